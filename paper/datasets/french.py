"""French agreement, which the sentence templates leave open.

The templates allow `le la les l'` and `du de des à au aux` before every noun. A random walk would write "la salon" and
"du cuisine"; here the article agrees with the noun, and the preposition contracts with the article.
"""

from __future__ import annotations

import re

from paper.datasets.templates import CLOSE, OPEN

# Nouns that the templates themselves write after an article: gender, with an apostrophe if the article is elided.
NOUNS = {
    "lumière": "f", "lampe": "f", "ampoule": "f'", "éclairage": "m'", "ventilateur": "m", "ventilo": "m",
    "brasseur d'air": "m", "minuteur": "m", "minuterie": "f", "compte à rebours": "m", "compte a rebours": "m",
    "décompte": "m", "store": "m", "banne": "f", "auvent": "m'", "rideau": "m", "porte": "f", "portail": "m",
    "volet": "m", "fenêtre": "f", "morceau": "m", "chanson": "f", "musique": "f", "élément": "m'", "podcast": "m",
    "film": "m", "vidéo": "f", "épisode": "m'", "radio": "f", "média": "m", "lecture": "f", "visionnage": "m",
    "pièce": "f", "endroit": "m'", "maison": "f", "domicile": "m", "appartement": "m'", "appart": "m'",
    "logement": "m", "piste": "f", "titre": "m",
}  # fmt: skip
MASS = ("musique", "lecture", "visionnage", "radio", "maison", "domicile", "appartement", "appart", "logement")
PLACES = ("pièce", "maison", "domicile", "appartement", "appart", "logement")
# After these words a value takes no preposition.
ALONE = ("pause", "dans", "sur", "en", "route", "marche", "et", "lumière")
_PREP = r"(?:\b(?P<prep>du|de|des|à|au|aux|dans|sur) )?"
_ART = r"(?P<art>\b(?:le|la|les) |\bl' ?)?"
_VALUE = re.compile(
    rf"{_PREP}(?P<all>\b(?:tout|tous|toutes?) )?{_ART}{OPEN}(?P<own>le |la |les |l')(?P<noun>[^{CLOSE}]*){CLOSE}"
)
_NOUN = re.compile(
    rf"{_PREP}(?:\b(?P<all>tout|tous|toutes?) )?(?:\b(?P<det>le|la|les|mon|ma|mes|un|une|cet|cette) |\b(?P<el>l' ?))?"
    rf"\b(?P<noun>{'|'.join(sorted(NOUNS, key=len, reverse=True))})(?P<plural>[sx]?)\b(?P<next> suivante?s?\b)?"
)


def _join(prep: str | None, article: str, noun: str) -> str:
    """Join preposition, article and noun with their contractions."""
    if prep is None:
        return f"{article}{noun}"
    if prep in ("du", "de", "des"):
        return {"le ": "du ", "les ": "des "}.get(article, f"de {article}") + noun
    if prep in ("à", "au", "aux"):
        return {"le ": "au ", "les ": "aux "}.get(article, f"à {article}") + noun
    return f"{prep} {article}{noun}"


def _value(match: re.Match[str]) -> str:
    """Write one of our values; after a noun without a preposition it gets `de` ("les lampes du salon")."""
    prep, before = match["prep"], match.string[: match.start()].split()
    if match["all"] and match["own"]:
        whole = {"le ": "tout le ", "les ": "tous les "}.get(match["own"], f"toute {match['own']}") + match["noun"]
        return f"{prep} {whole}" if prep in ("dans", "sur", "de", "à") else whole
    if prep is None and len(before) > 1 and before[-1] not in ALONE and match["own"]:
        prep = "de"
    if prep is None and match["art"] is None:
        return match["noun"]
    return _join(prep, match["own"] or "", match["noun"])


def _noun(match: re.Match[str]) -> str:
    noun, det, prep = match["noun"], match["det"], match["prep"]
    feminine, elided = NOUNS[noun].startswith("f"), NOUNS[noun].endswith("'")
    plural = bool(match["plural"] or match["all"]) and noun not in MASS
    first, space, rest = noun.partition(" ")
    ending = "" if not plural or first.endswith("s") else "x" if first.endswith("eau") else "s"
    written = f"{first}{ending}{space}{rest}"
    if match["next"]:
        written += " suivant" + "e" * feminine + "s" * plural
    article = "les " if plural else "l'" if elided else "la " if feminine else "le "
    kept = f"{prep} " if prep in ("dans", "sur", "de", "à") else ""
    if match["all"]:
        everything = ("toutes " if plural else "toute ") if feminine else ("tous " if plural else "tout ")
        if not prep and noun in PLACES and len(match.string[: match.start()].split()) > 1:
            kept = "dans "
        return kept + everything + article + written
    if det in ("mon", "ma", "mes"):
        return _join(prep, "mes " if plural else "ma " if feminine and not elided else "mon ", written)
    if det in ("cet", "cette"):
        return (kept or "dans ") + ("cette " if feminine else "cet " if elided else "ce ") + written
    if det in ("un", "une"):
        return (f"{prep} " if prep else "") + ("une " if feminine else "un ") + written
    if det is None and match["el"] is None and prep in (None, "de"):
        return ("" if prep is None else "d'" if elided else "de ") + written
    return _join(prep, article, written)


def agree(text: str) -> str:
    """Correct the articles and contractions of a generated sentence, and remove the marks around our values.

    Values are expected with their article ("la cuisine"), which is dropped if the template has none.
    """
    kept: list[str] = []

    def stash(match: re.Match[str]) -> str:
        kept.append(_value(match))
        return f"{OPEN}{len(kept) - 1}{CLOSE}"

    text = _VALUE.sub(stash, text)
    text = text.replace("brasseurs d'air", "brasseur d'airs").replace("portess", "portes")
    text = re.sub(r"\b(?:le |la |les |l')(?=les? )", "", text)  # an article before a rule that has its own
    text = _NOUN.sub(_noun, text)
    text = re.sub(f"{OPEN}(\\d+){CLOSE}", lambda m: kept[int(m[1])], text)
    return " ".join(re.sub(f"[{OPEN}{CLOSE}]", "", text).split())
