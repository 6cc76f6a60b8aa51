"""The page that `soi_lib.report.report` writes: its sections, and how to read each of them.

What is special: a section exists where there is something to show, and each says beneath its figure how to read it,
for somebody who has never heard of a subset of interest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from soi_lib.analysis.datamap import data_map
from soi_lib.analysis.soi import SOI, history_string
from soi_lib.analysis.transition_test import transition_test
from soi_lib.analysis.transitions import mean_transition, noise_floor
from soi_lib.dynamics import TrainingDynamics
from soi_lib.report.report import Runs, Subject, escape, shares

if TYPE_CHECKING:
    from soi_lib.plots.explorer import Explorer

LONGEST = 400
"""Characters of a text in a table; longer ones are cut, and say so."""
EACH = 6
"""Examples to look at in each category."""
_SHOWN = (SOI.UNE, SOI.FRGE_2, SOI.FRGE_1, SOI.LLE, SOI.ELE, SOI.ACE)
_WHY = {
    SOI.UNE: "Never right, least sure first. Wrong labels, rows that miss what it takes, and rare cases gather here.",
    SOI.FRGE_2: "Learned and lost several times, least sure first: unclear cases, often between two labels.",
    SOI.FRGE_1: "Learned and lost once, least sure first.",
    SOI.LLE: "Right only in the second half of training: hard, but learnable.",
    SOI.ELE: "Wrong at first, then right and kept.",
    SOI.ACE: "Right from the first epoch on, surest first: what the model finds typical of the label.",
}


def page(subject: Subject) -> str:
    """The whole page as HTML: one file that loads nothing."""
    from soi_lib.plots.explorer import explorer_files

    files = explorer_files({member: _explorer(subject, member) for member in subject.members})
    style = _STYLE + files.pop("explorer.css")
    scripts = "".join(f"<script>{body}</script>" for body in files.values())
    body = [
        f"<header><h1>{escape(subject.title)}</h1><p>{escape(subject.lead)}</p>{_contents(subject)}</header>",
        _scores(subject),
        _categories(subject),
        *[_member(subject, member) for member in subject.members],
        _words(),
        _decided(subject),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(subject.title)}</title><style>{style}</style></head>"
        f"<body><main>{''.join(body)}</main>{scripts}</body></html>\n"
    )


def _contents(subject: Subject) -> str:
    links = [("scores", "Scores")] if subject.runs is not None else []
    links += [("categories", "Categories"), *((f"member-{m}", m) for m in subject.members), ("words", "Words")]
    anchors = " ".join(f'<a href="#{escape(name)}">{escape(title)}</a>' for name, title in links)
    return f"<nav>{anchors}</nav>"


def _scores(subject: Subject) -> str:
    import pandas as pd

    from soi_lib.plots import show_table

    if subject.runs is None:
        return ""
    parts = ['<section id="scores"><h2>Scores</h2>']
    if subject.scores is not None:
        table = subject.scores
        interval = [f"{row.low:.3f} to {row.high:.3f}" for row in table.itertuples()]
        shown = pd.DataFrame(
            {
                "member": table["member"],
                "trained": table["setting"],
                "split": table["split"].replace({"ood": "OOD"}),
                "n": table["n"],
                "accuracy": table["accuracy"],
                "95 % interval": interval,
                "macro-F1": table["macro_f1"],
                "majority": table["majority"],
                "bag of words": table["bag_of_words"],
            }
        )
        parts.append(_scroll(show_table(shown, f"Mean over seeds. {subject.note}.").markup))
        parts.append(
            _how(
                "Accuracy is the share of right answers; macro-F1 is the mean over the labels, so that a rare label "
                "counts as much as a common one. A score means something only above <em>majority</em> (always "
                "answering the commonest label) and <em>bag of words</em> (a classifier that only counts words). The "
                "interval says how far the accuracy may be off because these test rows, and these seeds, were drawn."
            )
        )
    runs = _scroll(show_table(subject.runs, "").markup)
    parts.append(f"<details{' open' if subject.scores is None else ''}><summary>Every run</summary>{runs}</details>")
    return "".join([*parts, "</section>"])


def _categories(subject: Subject) -> str:
    from soi_lib.plots import show, soi_bars

    figure = show(soi_bars(shares(subject.members), note=subject.note), dpi=150).markup
    return (
        f'<section id="categories"><h2>Categories</h2>{_scroll(figure)}'
        + _how(
            "Every training example is in one of six categories, by when the model had it right over the epochs (see "
            '<a href="#words">Words</a>). Blue and green were learned and kept, yellow and orange were forgotten on '
            "the way, dark grey was never right. A large grey share means wrong labels, too few epochs, or a task that "
            "these texts do not settle."
        )
        + "</section>"
    )


def _explorer(subject: Subject, member: str) -> Explorer:
    """The explorer of one member: all of its runs by setting and seed."""
    from soi_lib.plots.explorer import Explorer, explorer_data

    settings = subject.members[member]
    runs = {f"{name}, seed {run.meta.seed}": run for name, of in settings.items() for run in of}
    names = list(runs)
    other = names[-len(settings[list(settings)[-1]])] if len(settings) > 1 else names[min(1, len(names) - 1)]
    texts = {key: (text,) for key, text in subject.texts.get(member, {}).items()}
    return Explorer({member: explorer_data(runs, texts, first=names[0], second=other)}, subject.note)


def _member(subject: Subject, member: str) -> str:
    settings, texts = subject.members[member], subject.texts.get(member, {})
    names = list(settings)
    first = settings[names[0]][0]
    last = settings[names[-1]][0] if len(names) > 1 else None
    sides = tuple(names[:1] + names[-1:]) if len(names) > 1 else (names[0], "")
    return "".join(
        [
            f'<section id="member-{escape(member)}"><h2>{escape(member)}</h2><h3>Examples on a map</h3>',
            f'<div class="soi-look" data-comparison="{escape(member)}"></div>',
            _how(
                "A mark is a training example. Height is confidence, the mean probability that the model gave to its "
                "label over the epochs; to the right the probability varied more. Top left is easy, right is "
                "ambiguous, bottom left is hard, and the first place to look for wrong labels. Point at one to read "
                "it; the small squares are its epochs from first to last, filled where the model was right."
            ),
            _moves(subject, member, settings),
            _examples(first, last, texts, sides),
            "</section>",
        ]
    )


def _moves(subject: Subject, member: str, settings: Runs) -> str:
    """From alone to together, beside what moves between seeds; with one setting only the latter."""
    from soi_lib.plots import show, transition_beside_floor, transition_heatmap
    from soi_lib.report.tables import moves_of

    names = list(settings)
    single, several = settings[names[0]], len(settings[names[0]]) > 1
    if len(names) == 1:
        if not several:
            return ""
        floor = noise_floor(single)
        drawn = show(transition_heatmap(floor, note=subject.note, sides=("one seed", "another seed")), dpi=150)
        return f"<h3>What moves between seeds</h3>{_scroll(drawn.markup)}" + _how(
            "Rows: an example's category with one seed; columns: with another. Nothing differed but chance, so what "
            "lies off the diagonal is noise. The more of it there is, the less the category of one example says."
        )
    multi = settings[names[-1]]
    if several:
        figure = transition_beside_floor(moves_of(transition_test(single, multi)), note=subject.note)
        told = "The left picture is what chance does between seeds; read the right one against it."
    else:
        figure = transition_heatmap(mean_transition(zip(single, multi, strict=True)), note=subject.note)
        told = (
            "<strong>With one seed nothing says which of these moves are more than chance</strong>: examples "
            "also move between two seeds of the same setting. Train with <code>--seed 0 --seed 1 --seed 2</code> for a "
            "noise floor."
        )
    return f"<h3>From alone to together</h3>{_scroll(show(figure, dpi=150).markup)}" + _how(
        f"Rows: the category of an example when {escape(member)} was trained alone; columns: when it was trained "
        f"together with the others. The diagonal stayed; below it examples became easier, above it harder. {told}"
    )


def _examples(
    first: TrainingDynamics, last: TrainingDynamics | None, texts: dict[Any, str], sides: Sequence[str]
) -> str:
    """For each category the examples that show it best: text, gold label, history."""
    table = data_map(first)
    other = {} if last is None else dict(zip(last.ids.tolist(), last.history, strict=True))
    names, parts = first.meta.label_names, ["<h3>Examples to look at</h3>"]
    history = dict(zip(first.ids.tolist(), first.history, strict=True))
    gold = dict(zip(first.ids.tolist(), first.gold, strict=True))
    for soi in _SHOWN:
        rows = table[table["soi"] == soi].sort_values(
            ["confidence", "id"], ascending=[soi is not SOI.ACE, True], kind="stable"
        )
        if rows.empty:
            continue
        lines = []
        for row in rows.head(EACH).to_dict("records"):
            key = row["id"]
            label = names[gold[key]] if names else gold[key]
            cells = [_squares(history[key], first.epochs, soi, sides[0] if last is not None else "")]
            if last is not None and key in other:
                cells.append(_squares(other[key], last.epochs, None, sides[1]))
            text, ident = texts.get(key), f'<span class="id">{escape(key)}</span>'
            told = ident if text is None else f"{_cut(text)} {ident}"
            lines.append(
                f'<tr><td class="text" dir="auto">{told}</td><td>{escape(label)}</td><td>{"<br>".join(cells)}</td>'
                f'<td class="num">{row["confidence"]:.2f}</td></tr>'
            )
        name = f"{soi.name}, {soi.description.partition(':')[0]}"
        share = len(rows) / len(table)
        parts.append(
            f'<details{" open" if soi in (SOI.UNE, SOI.FRGE_2) else ""}><summary><span class="dot {soi.name}"></span>'
            f"{escape(name)}: {len(rows):,} examples ({share:.0%})</summary><p>{_WHY[soi]}</p>"
            '<div class="scroll"><table><thead><tr><th>text</th><th>gold label</th><th>epochs</th>'
            f'<th class="num">confidence</th></tr></thead><tbody>{"".join(lines)}</tbody></table></div></details>'
        )
    return "".join(parts)


def _words() -> str:
    rows = "".join(
        f'<dt><span class="dot {soi.name}"></span>{escape(soi.name)}</dt><dd>{escape(soi.description)}</dd>'
        for soi in SOI
    )
    return f"""<section id="words"><h2>Words</h2><dl>{rows}
<dt>gold label</dt><dd>the label that the row has in your file</dd>
<dt>confidence</dt><dd>the mean probability of the gold label over the epochs</dd>
<dt>variability</dt><dd>the standard deviation of that probability over the epochs</dd>
<dt>early, late</dt><dd>before, or from, the middle of training</dd>
<dt>OOD</dt><dd>out of distribution: rows from elsewhere than the training rows</dd></dl></section>"""


def _decided(subject: Subject) -> str:
    if not subject.decided and not subject.command:
        return ""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in subject.decided)
    command = f"<p>Made by:</p><pre>{escape(subject.command)}</pre>" if subject.command else ""
    return f'<section id="made"><h2>How it was made</h2><ul>{items}</ul>{command}</section>'


def _squares(history: Any, epochs: int, soi: SOI | None, side: str) -> str:
    told = history_string(history, epochs)
    right = told.count("■")
    label = f"{side + ': ' if side else ''}right in {right} of {epochs} epochs"
    name = f'<span class="side">{escape(side)}</span> ' if side else ""
    return f'<span class="squares" role="img" aria-label="{escape(label)}" title="{escape(label)}">{name}{told}</span>'


def _cut(text: str) -> str:
    short = " ".join(text[: 4 * LONGEST].split())
    return escape(short if len(text) <= LONGEST and len(short) <= LONGEST else short[: LONGEST - 1] + "…")


def _scroll(markup: str) -> str:
    return f'<div class="scroll">{markup}</div>'


def _how(text: str) -> str:
    """How to read what stands above; `text` is ours, with what is the user's in it escaped."""
    return f'<p class="how"><b>How to read this.</b> {text}</p>'


def _dots() -> str:
    from soi_lib.plots.style import SOI_COLORS

    return "".join(f".dot.{soi.name}{{background:{color}}}" for soi, color in SOI_COLORS.items())


_POLICY = (
    "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; font-src data:; "
    "form-action 'none'; base-uri 'none'"
)
_STYLE = """:root{color-scheme:light;--pst-color-text-base:#202124;--pst-color-text-muted:#5f6368;
--pst-color-border:#dadce0;--pst-color-background:#fff;--pst-color-surface:#f6f8fa;--pst-color-primary:#0b57d0}*{box-sizing:border-box}
body{margin:0;font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
color:#202124;background:#fff}
main{max-width:64rem;margin:0 auto;padding:1rem 1rem 4rem}h1{font-size:1.6rem;margin:.6rem 0;overflow-wrap:anywhere}
h2{font-size:1.3rem;margin:2.6rem 0 .6rem;padding-top:.8rem;border-top:1px solid #dadce0;overflow-wrap:anywhere}
h3{font-size:1.08rem;margin:1.8rem 0 .5rem}nav a{margin-right:.9rem;white-space:nowrap}a{color:#0b57d0}
figure{margin:.5rem 0}figure img{max-width:100%;height:auto;display:block}figcaption{font-size:.88rem;color:#5f6368}
.how{background:#f1f5fb;border-left:4px solid #0072b2;padding:.6rem .8rem;margin:.8rem 0;font-size:.95rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .6rem;border-bottom:1px solid #e3e5e8;text-align:left;vertical-align:top}th{white-space:nowrap}
.num{text-align:right}td.text{min-width:16rem;max-width:34rem;overflow-wrap:anywhere}.id{color:#5f6368;font-size:.82rem}
.squares{white-space:nowrap;letter-spacing:.06em}.side{font-size:.82rem;color:#5f6368;letter-spacing:0;
display:inline-block;min-width:4.4rem}
details{margin:.6rem 0;border:1px solid #dadce0;border-radius:6px;padding:.3rem .8rem}
summary{cursor:pointer;font-weight:600}
.dot{display:inline-block;width:.8em;height:.8em;border-radius:50%;margin-right:.45em}
dl{display:grid;grid-template-columns:minmax(6rem,9rem) 1fr;gap:.35rem 1rem}dt{font-weight:600}dd{margin:0}
pre{background:#f6f8fa;padding:.6rem;white-space:pre-wrap;overflow-wrap:anywhere}
@media(max-width:600px){figcaption{max-width:calc(100vw - 2rem)}
td.text{min-width:14rem}dl{grid-template-columns:1fr;gap:.1rem}dd{margin-bottom:.5rem}}
@media print{details{border:0}.how{break-inside:avoid}}
""" + _dots()
