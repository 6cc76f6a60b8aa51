"""The runs of a profile, each with a key (a hash of everything that determines it) and an estimate of its cost.

The key is the sha256 of a canonical JSON of the run's hyperparameters, setting and seed, the number of examples, the
fingerprints of its corpora and encoder, and the engine's version. Profile names are not part of it: two profiles that
define the same run share it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from soi_lib.errors import ProfileError, nearest
from soi_lib.runs.config import Comparison, DataSizes, Profile, Setting, Stages, Training
from soi_lib.training.device import kind_of, resolve_device, resolve_precision

if TYPE_CHECKING:
    from soi_lib.data.dataset import Corpus
    from soi_lib.runs.store import RunStore, StoredRun

Progress = Callable[[str, int, int], None]
"""Called with the run's key, the epoch (from 0) and the number of examples trained on since the last call."""
Control = Literal["random", "all"]
STAGE_VERSION = 2
"""Part of every stage's key; raise it when a change in `soi_lib.runs.second_stage` changes what a stage computes."""
_SHARE = 0.12  # the typical size of a subset; only the progress bar and the order of the work depend on it


@dataclass(frozen=True)
class RunSpec:
    """One run: its comparison, the datasets trained together, its seed, and everything else that determines it.

    The precision in `training` is one that `device` supports, never "auto".
    """

    comparison: Comparison
    setting: Setting
    seed: int
    encoder: str
    data: DataSizes
    training: Training
    fingerprints: tuple[tuple[str, str], ...]
    engine: int
    device: str = "cpu"
    """Where it is trained: "cpu", "cuda" or "cuda:N". Its kind is part of the identity."""
    encoder_folder: str = ""
    """The folder of an encoder defined by the profile; not part of the identity, which has its fingerprint."""
    keep_weights: bool = False
    """Whether to keep the final weights, for second stages to start from; not part of the identity."""

    def identity(self) -> dict[str, Any]:
        """Return everything that determines the run, as JSON values."""
        return {
            "comparison": self.comparison,
            "setting": list(self.setting),
            "budget": self.setting.budget,
            "seed": self.seed,
            "encoder": self.encoder,
            "data": self.data.model_dump(),
            "training": _values(self.training),
            "fingerprints": dict(self.fingerprints),
            "engine": self.engine,
            "device": kind_of(self.device),
        }

    def fingerprint(self, what: str) -> str:
        """Return the fingerprint of `corpus/<member>` or of the `encoder`."""
        return dict(self.fingerprints)[what]

    @property
    def key(self) -> str:
        """Twenty hex digits of the sha256 of `identity`."""
        return key_of(self.identity())

    @property
    def name(self) -> str:
        """A readable name: `task entailment+sentiment seed 0`, `source tweets+amazon at equal budget seed 1`."""
        return f"{self.comparison} {self.setting} seed {self.seed}"

    @property
    def examples(self) -> int:
        """How many examples are trained on, counted once per epoch (fewer if a split is smaller)."""
        whole = self.data.train * self.training.epochs
        return whole if self.setting.budget == "equal" else whole * len(self.setting)

    def found(self, store: RunStore) -> StoredRun | None:
        """Return the finished run in `store`, or None if it or weights that are to be kept are missing."""
        missing = self.keep_weights and not store.weights_path(self.key).exists()
        return None if missing else store.get(self.key)


@dataclass(frozen=True)
class StageSpec:
    """One stage: the run whose final weights it starts from, its subset, its control, and its recipe.

    `subset` is a union such as "UNE+LLE", or any name for `ids`. With `control` None it trains on the subset, with
    "random" on a matched random control, with "all" on examples of all data for as many updates.
    """

    base: RunSpec
    subset: str
    control: Control | None
    balance: bool
    training: Training
    ids: tuple[str, ...] = ()
    """The examples of a subset that is not defined by categories or regions."""
    keep_weights: bool = False
    """Whether to keep the final weights; not part of the identity."""

    def identity(self) -> dict[str, Any]:
        """Return everything that determines the stage, as JSON values, with the key of the run it starts from."""
        return {
            "comparison": self.base.comparison,
            "setting": list(self.base.setting),
            "seed": self.base.seed,
            "base": self.base.key,
            "stage": {
                "version": STAGE_VERSION,
                "start": "final",
                "subset": self.subset,
                "control": self.control,
                "balance": self.balance,
                "limit": None,  # part of existing keys
                "training": _values(self.training),
                **({"ids": list(self.ids)} if self.ids else {}),
            },
        }

    @property
    def key(self) -> str:
        """Twenty hex digits of the sha256 of `identity`."""
        return key_of(self.identity())

    @property
    def setting(self) -> Setting:
        """The members that are trained together."""
        return self.base.setting

    @property
    def device(self) -> str:
        """Where it is trained: the device of its run."""
        return self.base.device

    @property
    def name(self) -> str:
        """A readable name: `source tweets seed 0, FRGE, random control`."""
        side = {None: "", "random": ", random control", "all": ", equal updates on all data"}[self.control]
        return f"{self.base.name}, {self.subset}{side}"

    @property
    def examples(self) -> int:
        """About how many examples are trained on, counted once per epoch; the exact number depends on the run."""
        return round(self.base.examples / self.base.training.epochs * self.training.epochs * _SHARE)

    def found(self, store: RunStore) -> StoredRun | None:
        """Return the finished stage in `store`, or None."""
        return store.get(self.key)

    def seed_for(self, use: str) -> int:
        """Return the seed for one use of randomness, from the run's seed and the subset or, for controls, their kind.

        So a control depends on its subset only through the number of examples of each class.
        """
        from soi_lib.models.multitask import derived_seed

        return derived_seed(self.base.seed, "stage", "final", self.control or self.subset, use)


Job = RunSpec | StageSpec
"""What is trained and stored under a key."""


def _values(training: Training) -> dict[str, Any]:
    """Return what is part of an identity: `keep_logits` only if it is set, so that older keys stay the same."""
    return training.model_dump(exclude=None if training.keep_logits else {"keep_logits"})


def key_of(identity: dict[str, Any]) -> str:
    """Return twenty hex digits of the sha256 of the canonical JSON of `identity`."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def plan(
    profile: Profile, *, only: Iterable[str] = (), device: str = "auto", precision: str | None = None
) -> list[RunSpec]:
    """Return the runs of `profile`, in the order of its comparisons, settings and seeds; `only` selects comparisons.

    `device` and `precision` (by default `$SOI_PRECISION`, or the profile's) are resolved here, once for everything that
    follows; see `soi_lib.training.device`. Planning for a GPU does not require one.

    Builds the corpora and encoder folders that are not in the cache, since keys contain their fingerprints; those that
    the profile defines are downloaded from their sources.
    """
    from soi_lib.data.places import check_place

    device, only = resolve_device(device), tuple(only)
    precision = precision or os.environ.get("SOI_PRECISION")
    unknown = sorted(set(only) - set(profile.comparisons))
    if unknown:
        hint = nearest(unknown[0], profile.comparisons)
        raise ProfileError("unknown comparison", where=f"profile {profile.name}", found=repr(unknown[0]), hint=hint)
    wanted = [name for name in profile.comparisons if not only or name in only]
    for dataset in [dataset for name in wanted for dataset in profile.comparisons[name].members]:
        if dataset in profile.corpora:
            check_place(dataset, profile.corpora[dataset])
    return [spec for name in wanted for spec in _runs_of(profile, name, device, precision)]


def _runs_of(profile: Profile, comparison: Comparison, device: str, precision: str | None) -> list[RunSpec]:
    """Return the runs of one comparison."""
    from soi_lib.data.cache import keep, load, load_spec
    from soi_lib.models.encoder import download, encoder_dir, fingerprint
    from soi_lib.training import ENGINE_VERSION

    part, training = profile.comparisons[comparison], profile.training_of(comparison)
    own = profile.encoders.get(part.encoder)
    folder = encoder_dir(part.encoder) if own is None else download(part.encoder, own)
    corpora = {m: load_spec(m, profile.corpora[m]) if m in profile.corpora else keep(load(m)) for m in part.members}
    if comparison == "task":
        _heads_apart(corpora)
    encoder = fingerprint(folder)
    resolved = resolve_precision(precision or training.precision, kind_of(device))
    training = training.model_copy(update={"precision": resolved})
    return [
        RunSpec(
            comparison=comparison,
            setting=setting,
            seed=seed,
            encoder=part.encoder,
            data=profile.data_of(comparison),
            training=training,
            fingerprints=(*sorted((f"corpus/{m}", corpora[m].fingerprint) for m in setting), ("encoder", encoder)),
            engine=ENGINE_VERSION,
            device=device,
            encoder_folder="" if own is None else str(folder),
        )
        for setting in part.member_sets()
        for seed in profile.seeds_of(comparison)
    ]


def _heads_apart(corpora: dict[str, Corpus]) -> None:
    """Raise ProfileError if tasks use the same numbers as labels: they would share a head but mean different things."""
    seen: dict[tuple[str, ...], str] = {}
    for member, corpus in corpora.items():
        other = seen.setdefault(corpus.labels, member)
        if other != member and all(label.lstrip("-").isdigit() for label in corpus.labels):
            what = f"the tasks {other} and {member} use the same numbers as labels, so they would share a head"
            hint = "give the labels names, e.g. labels: {0: different, 1: paraphrase}"
            raise ProfileError(what, where="corpora", found=", ".join(corpus.labels[:8]), hint=hint)


def staged(profile: Profile, spec: RunSpec) -> bool:
    """Return whether stages of `profile` start from this run: datasets alone, and all together at full budget."""
    if profile.stages is None or not profile.stages.subsets:
        return False
    sizes = (1, len(profile.comparisons[spec.comparison].members))
    return spec.setting.budget == "full" and len(spec.setting) in sizes


def plan_stages(
    profile: Profile, *, only: Iterable[str] = (), device: str = "auto", precision: str | None = None
) -> list[StageSpec]:
    """Return the stages of `profile`, in the order of its runs; empty if it has none. Other arguments as for `plan`."""
    if profile.stages is None:
        return []
    bases = plan(profile, only=only, device=device, precision=precision)
    return [stage for base in bases if staged(profile, base) for stage in stages_of(base, profile.stages)]


def stages_of(base: RunSpec, wanted: Stages) -> list[StageSpec]:
    """Return the stages that start from one run: each subset, then its controls."""
    second = base.training.model_copy(
        update={
            "epochs": wanted.epochs,
            "learning_rate": float(f"{base.training.learning_rate * wanted.learning_rate_factor:.6g}"),
            "warmup": 0.0,
            "keep_logits": False,
        }
    )
    return [
        StageSpec(base, subset, control, wanted.balance, second)
        for subset in wanted.subsets
        for control in (None, *wanted.controls)
    ]


# --- estimates of time and memory, from sizes alone ------------------------------------------------------------------

CORE_RATE = 68e9
"""FLOP per second of one core with only AVX2, in fp32, measured on whole runs of the profile `quick`, including
evaluation and start-up; with bf16 it is more."""
BYTES_A_PARAMETER = 20
"""Memory per parameter during training, in either precision: its value, its gradient and both moments of AdamW with
4 bytes each, and 4 for the backward pass. The memory of a batch is extra."""
ENCODERS = {"minilm": (10_650_000, 6), "e5": (21_300_000, 12)}
"""Parameters without embeddings, and layers; all other encoders count as BERT-base."""
BERT_BASE = (85_100_000, 12)
OOD = 2_000
"""Rows of an OOD set if a profile uses all of them: as many as the largest in the project has."""
DATASETS = {
    "entailment": (46, 23_097), "paraphrase": (17, 3_668), "sentiment": (30, 8_078),
    "tweets": (22, None), "amazon": (23, None), "movie": (27, None), "en": (12, 7_600), "fr": (14, 11_500),
    "fa": (13, 11_514), "twitter": (22, 40_000), "yelp": (115, 40_000), "imdb": (127, 40_000),
}  # fmt: skip
"""Mean tokens per example (recorded for the project's datasets, guessed for others, cut at 128), and the size of the
largest training split in the authors' data or ours; None if it is larger than any profile uses."""


def tokens(job: Job) -> tuple[float, float, float]:
    """Return the examples and tokens to train on, counted once per epoch, and the tokens to evaluate on."""
    base, epochs = job.base if isinstance(job, StageSpec) else job, job.training.epochs
    examples = trained = evaluated = 0.0
    for dataset in base.setting:
        length, most = DATASETS.get(dataset, (128, None))
        n = float(min(base.data.train, most or base.data.train))
        if isinstance(job, StageSpec):
            n *= job.examples / (base.examples / base.training.epochs * epochs)
        if base.setting.budget == "equal":
            n /= len(base.setting)
        rows: float = base.data.evaluate + (base.data.ood or OOD) + base.data.validation * epochs
        if job.training.record != "train" and not isinstance(job, StageSpec):
            rows += n * epochs  # the pass that records in evaluation mode
        examples += n * epochs
        trained += n * epochs * length
        evaluated += rows * length
    return examples, trained, evaluated


def flop(parameters: float, trained: float, evaluated: float) -> float:
    """Return the floating-point operations for these tokens in a model with `parameters` parameters besides embeddings.

    Training costs 6 per token and parameter (Kaplan et al. 2020: 2 forward, 4 backward), evaluation 2; embeddings are
    looked up and cost nothing.
    """
    return parameters * (6 * trained + 2 * evaluated)


def core_seconds(job: Job) -> float:
    """Return about how long a run or a stage takes on one core."""
    base = job.base if isinstance(job, StageSpec) else job
    parameters, _ = ENCODERS.get(base.encoder, BERT_BASE)
    _, trained, evaluated = tokens(job)
    return flop(parameters, trained, evaluated) / CORE_RATE
