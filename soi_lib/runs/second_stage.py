"""Further training on subsets of finished runs: a second stage from the final weights, or anew from pretrained ones.

The second stage follows Yaghoobzadeh et al. (2021): after training on everything, continue on the examples that were
forgotten or never learned, classes balanced, at a tenth of the learning rate, for 4 epochs with linear decay and no
warm-up; the optimizer starts fresh. Here the subset is a choice. Subsets come from the dynamics of the very run whose
weights are continued, and nothing is believed without its controls: as many random examples with the same classes,
and as many updates on all data. Each of them is a run in the same store, under a key of its own. Two subsets of one
run that have as many examples of every class have the same controls: these are trained once.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from soi_lib import files
from soi_lib.runs.config import Profile, Setting, Stages, Subset, Training
from soi_lib.runs.spec import Progress, RunSpec, key_of, plan
from soi_lib.runs.store import RunStore, StoredRun
from soi_lib.runs.subset import choose
from soi_lib.training import launch
from soi_lib.training.device import reproducibly

if TYPE_CHECKING:
    from soi_lib.training.batching import Encoded

STAGE_VERSION = 2
"""Part of every stage's key: raised whenever a change here changes what a stage computes."""

Start = Literal["final", "pretrained"]
Control = Literal["random", "all"]
# Usual sizes as shares of the data. Only the progress bar and the order of the work depend on them.
_SHARE = {"FRGE": 0.12, "UNE+FRGE": 0.12, "LLE+FRGE+UNE": 0.2, "ACE": 0.2}


@dataclass(frozen=True)
class StageSpec:
    """One stage: the run that it starts from, its subset, which side of the comparison it is, and its recipe.

    `start` is "final" (the run's final weights) or "pretrained" (the weights that the run itself started from, with
    the same initial heads). `control` None trains on the subset, "random" on its matched random control, "all" on
    examples of all data for as many updates.
    """

    base: RunSpec
    start: Start
    subset: Subset
    control: Control | None
    balance: bool
    limit: int | None
    training: Training

    def identity(self) -> dict[str, Any]:
        """Everything that determines the stage, as JSON values; the run it starts from by its key."""
        return {
            "comparison": self.base.comparison,
            "setting": list(self.base.setting),
            "seed": self.base.seed,
            "base": self.base.key,
            "stage": {
                "version": STAGE_VERSION,
                "start": self.start,
                "subset": self.subset,
                "control": self.control,
                "balance": self.balance,
                "limit": self.limit,
                "training": self.training.model_dump(),
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
        """Where it is trained, as the run."""
        return self.base.device

    @property
    def name(self) -> str:
        """For people: `source tweets seed 0, FRGE, random control`."""
        side = {None: "", "random": ", random control", "all": ", equal updates on all data"}[self.control]
        weights = " from pretrained weights" if self.start == "pretrained" else ""
        return f"{self.base.name}, {self.subset}{weights}{side}"

    @property
    def examples(self) -> int:
        """About how many examples are trained on, counted once an epoch; the run decides how many there are."""
        share = _SHARE.get(self.subset, 0.3)
        return round(self.base.examples / self.base.training.epochs * self.training.epochs * share)

    def found(self, store: RunStore) -> StoredRun | None:
        """The finished stage in `store`."""
        return store.get(self.key)

    def do(self, store: RunStore, progress: Progress | None = None) -> StoredRun:
        """Train it unless `store` has it; see `do_stage`."""
        return do_stage(self, store, progress=progress)

    def seed_for(self, use: str) -> int:
        """The seed of one use of randomness, from the run's seed and the subset, or the kind of control for any subset.

        So a control depends on its subset by the number of examples of each class only.
        """
        from soi_lib.models.multitask import derived_seed

        return derived_seed(self.base.seed, "stage", self.start, self.control or self.subset, use)


@dataclass(frozen=True)
class WithWeights:
    """A run whose final weights are wanted too: made with the run, or made again for a stored one."""

    base: RunSpec

    @property
    def key(self) -> str:
        """The run's key."""
        return self.base.key

    @property
    def setting(self) -> Setting:
        """The members that are trained together."""
        return self.base.setting

    @property
    def device(self) -> str:
        """Where it is trained, as the run."""
        return self.base.device

    @property
    def training(self) -> Training:
        """The run's hyperparameters."""
        return self.base.training

    @property
    def examples(self) -> int:
        """As for the run."""
        return self.base.examples

    def found(self, store: RunStore) -> StoredRun | None:
        """The finished run, when its weights are there as well."""
        return store.get(self.key) if store.weights_path(self.key).exists() else None

    def do(self, store: RunStore, progress: Progress | None = None) -> StoredRun:
        """See `soi_lib.runs.run.do_run`."""
        from soi_lib.runs.run import do_run

        return do_run(self.base, store, progress=progress, keep_weights=True)


def staged(profile: Profile, spec: RunSpec) -> bool:
    """Whether stages of `profile` start from this run: members alone, and all together at full budget."""
    part, wanted = profile.comparisons[spec.comparison], profile.stages
    if wanted is None or spec.seed not in (
        wanted.seeds if wanted.seeds is not None else profile.seeds_of(spec.comparison)
    ):
        return False
    return spec.budget == "full" and len(spec.setting) in (1, len(part.members))


def plan_stages(
    profile: Profile, *, only: Iterable[str] = (), device: str = "auto", precision: str | None = None
) -> list[StageSpec]:
    """The stages of `profile`, in the order of its runs; empty when it has none. Further arguments as for `plan`."""
    if profile.stages is None:
        return []
    specs = plan(profile, only=only, device=device, precision=precision)
    bases = [spec for spec in specs if staged(profile, spec)]
    return [stage for base in bases for stage in stages_of(base, profile.stages)]


def stages_of(base: RunSpec, wanted: Stages) -> list[StageSpec]:
    """The stages that start from one run: each subset, then its controls.

    From pretrained weights (single members only) the control on all data is the run itself, so it is not done again.
    """
    second = base.training.model_copy(
        update={
            "epochs": wanted.epochs,
            "learning_rate": float(f"{base.training.learning_rate * wanted.learning_rate_factor:.6g}"),
            "warmup": 0.0,
            "batch_size": wanted.batch_size or base.training.batch_size,
        }
    )
    stages = [
        StageSpec(base, "final", subset, control, wanted.balance, wanted.limit, second)
        for subset in wanted.subsets
        for control in (None, *wanted.controls)
    ]
    if len(base.setting) == 1:
        stages += [
            StageSpec(base, "pretrained", subset, control, False, wanted.limit, base.training)
            for subset in wanted.from_pretrained
            for control in (None, *(c for c in wanted.controls if c == "random"))
        ]
    return stages


# --- training ----------------------------------------------------------------------------------------------------


def do_stage(spec: StageSpec, store: RunStore, *, progress: Progress | None = None) -> StoredRun:
    """Train a stage unless `store` has it, and the run that it starts from before, and return the stored stage.

    A subset that is too small is stored as not tested, with its size. Raises StoreError when the run's weights are
    missing and training it again does not give the stored dynamics bit for bit.
    """
    from soi_lib.runs.run import do_run

    with launch.held(store.lock(spec.key)):
        done = store.get(spec.key)
        if done is not None:
            return done
        base = do_run(spec.base, store, keep_weights=spec.start == "final")
        return _stage(spec, base, store, progress)


def _stage(spec: StageSpec, base: StoredRun, store: RunStore, progress: Progress | None) -> StoredRun:
    from soi_lib.runs import run
    from soi_lib.runs.weights import load_weights
    from soi_lib.training.engine import TrainConfig, TrainMember, train

    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    choice = choose(spec, {member: base.dynamics(member) for member in spec.setting})
    about = {"identity": spec.identity(), "command": f"python -m paper run {spec.key}", "base": base.manifest["sha256"]}
    stage = {"tested": not choice.reason, "reason": choice.reason, "n": choice.n, "passes": choice.passes}
    if choice.reason:
        metrics: dict[str, Any] = {member: {"n": n} for member, n in choice.n.items()}
        about |= {"commit": run.commit(), "started": started, "stage": stage}
        return store.write(spec.key, about, lambda out: files.write_json(out / "metrics.json", metrics))

    hashes = {m: hashlib.sha256("\n".join(map(str, ids)).encode()).hexdigest() for m, ids in choice.ids.items()}
    twin = _twin(spec, store, hashes, choice.passes) if spec.control else None
    if twin is not None:
        about |= {k: twin.manifest[k] for k in _TRAINED}
        about["stage"] = twin.manifest["stage"] | stage | {"same_as": twin.key}
        metrics = {member: scores | {"n": choice.n[member]} for member, scores in twin.metrics.items()}
        return store.write(spec.key, about, lambda out: _copied(twin, metrics, out))

    ready = run.prepare(spec.base)
    initial, weights = None, ""
    if spec.start == "final":
        initial, weights = load_weights(store.weights_path(base.key), vocabulary=ready.vocabulary)
    rows = {m.name: np.flatnonzero(np.isin(m.ids, choice.ids[m.name])) for m in ready.members}
    members = [
        TrainMember(m.name, m.labels, m.ids[rows[m.name]], _splits(m.splits, rows[m.name])) for m in ready.members
    ]
    # from pretrained weights the heads start as the run's did, so that only the examples differ
    seed = spec.seed_for("training") if spec.start == "final" else spec.base.seed
    settings = spec.training.model_dump(exclude={"max_length"}) | {"epochs": choice.passes}
    with reproducibly(spec.device):
        result = train(
            ready.encoder,
            members,
            TrainConfig(**settings, seed=seed),
            pad=ready.pad,
            device=spec.device,
            meta=run.described(spec.base, spec.key) | {"base": base.key, "stage": spec.identity()["stage"]},
            initial=initial,
            progress=None if progress is None else lambda epoch, n: progress(spec.key, epoch, n),
            checkpoint_path=store.checkpoint_path(spec.key),
            identity=spec.key,
        )
    metrics = {
        member: {
            "n": choice.n[member],
            "trained": len(rows[member]),
            "soi": run.counts(result.dynamics[member]),
            **{split: run.scores(p) for split, p in result.predictions[member].items()},
            "base": {split: base.metrics[member][split] for split in result.predictions[member]},
        }
        for member in spec.setting
    }
    examples = sum(len(index) for index in rows.values())
    about |= run.provenance(started, clock, result) | {
        "examples": examples,
        "stage": stage | {"presentations": choice.passes * examples, "ids": hashes, "weights": weights},
    }
    return store.write(spec.key, about, lambda out: run.save_result(out, ready.splits, result, metrics))


# what a manifest says of a training: the same for stages that are the same training
_TRAINED = ("commit", "started", "seconds", "updates", "precision", "machine", "versions", "examples")


def _twin(spec: StageSpec, store: RunStore, hashes: dict[str, str], passes: int) -> StoredRun | None:
    """The finished control of another subset of the same run that trained on the same examples."""
    for subset in get_args(Subset):
        other = replace(spec, subset=subset).found(store) if subset != spec.subset else None
        if other is not None and other.manifest["stage"]["tested"]:
            stage = other.manifest["stage"]
            if (stage["ids"], stage["passes"]) == (hashes, passes) and "same_as" not in stage:
                return other
    return None


def _copied(twin: StoredRun, metrics: dict[str, Any], out: Path) -> None:
    shutil.copytree(
        twin.folder, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json", "metrics.json")
    )
    files.write_json(out / "metrics.json", metrics)


def _splits(splits: dict[str, Encoded], index: np.ndarray) -> dict[str, Encoded]:
    """What a stage trains on, at places `index`, and the sets that its gains are measured on."""
    kept = {name: splits[name] for name in ("test", "ood") if name in splits}
    return {"train": _rows(splits["train"], index)} | kept


def _rows(data: Encoded, index: np.ndarray) -> Encoded:
    """The examples at places `index`."""
    from soi_lib.training.batching import Encoded

    lengths = data.lengths[index]
    offset = np.concatenate([[0], np.cumsum(lengths)])
    place = np.repeat(data.offset[index] - offset[:-1], lengths) + np.arange(offset[-1])
    segment = None if data.segment is None else data.segment[place]
    return Encoded(data.token[place], segment, offset, data.gold[index], data.member[index])
