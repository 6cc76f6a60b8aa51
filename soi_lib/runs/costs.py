"""About how long a run takes on one core, from its sizes alone: nothing is read and nothing is measured.

Training costs 6 floating-point operations a token and parameter (Kaplan et al. 2020: 2 forward, 4 backward), an
evaluation 2; embeddings are looked up and cost none. The rate of a core was read off recorded runs.
"""

from __future__ import annotations

from soi_lib.runs.spec import Job, StageSpec

CORE_RATE = 68e9
"""FLOP a second of one core with AVX2 only in fp32, whole runs of the profile `quick` counted, evaluation and start
included; with bf16 it is more."""
BYTES_A_PARAMETER = 20
"""Memory of one parameter while it is trained, in either precision: its value, its gradient and both moments of AdamW
with 4 bytes each, and 4 of the backward pass. What a batch takes comes on top."""
ENCODERS = {"minilm": (10_650_000, 6), "e5": (21_300_000, 12)}
"""Parameters without embeddings, and layers; every other encoder is counted as BERT-base."""
BERT_BASE = (85_100_000, 12)
OOD = 2_000
"""Rows of an OOD set where a profile takes every one: as many as the largest of the project has."""
DATASETS = {
    "entailment": (46, 23_097), "paraphrase": (17, 3_668), "sentiment": (30, 8_078),
    "tweets": (22, None), "amazon": (23, None), "movie": (27, None), "en": (12, 7_600), "fr": (14, 11_500),
    "fa": (13, 11_514), "twitter": (22, 40_000), "yelp": (115, 40_000), "imdb": (127, 40_000),
}  # fmt: skip
"""Mean tokens of an example (recorded for the datasets of the project, guessed for the others, cut at 128),
and the largest training split that the authors' data or ours have; None where it is larger than any profile asks."""


def tokens(job: Job) -> tuple[float, float, float]:
    """Examples and tokens to train on, counted once an epoch, and tokens to evaluate on."""
    base = job.base if isinstance(job, StageSpec) else job
    examples = trained = evaluated = 0.0
    for dataset in base.setting:
        length, most = DATASETS.get(dataset, (128, None))
        n = float(min(base.data.train, most or base.data.train))
        if isinstance(job, StageSpec):
            share = job.examples / (base.examples / base.training.epochs * job.training.epochs)
            n *= share
        if base.budget == "equal":
            n /= len(base.setting)
        examples += n * job.training.epochs
        trained += n * job.training.epochs * length
        rows = base.data.evaluate + (base.data.ood or OOD) + base.data.validation * job.training.epochs
        if job.training.record != "train" and not isinstance(job, StageSpec):
            evaluated += n * job.training.epochs * length  # the pass that records in evaluation mode
        evaluated += rows * length
    return examples, trained, evaluated


def flop(parameters: float, trained: float, evaluated: float) -> float:
    """Floating-point operations of so many tokens in a model with so many parameters beside its embeddings."""
    return parameters * (6 * trained + 2 * evaluated)


def core_seconds(job: Job) -> float:
    """About how long a run or a stage takes on one core."""
    base = job.base if isinstance(job, StageSpec) else job
    parameters, _ = ENCODERS.get(base.encoder, BERT_BASE)
    _, trained, evaluated = tokens(job)
    return flop(parameters, trained, evaluated) / CORE_RATE
