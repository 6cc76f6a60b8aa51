"""The list of runs of a profile, each under a key that is a hash of all that determines it.

The key is the sha256 of a canonical JSON of the run's hyperparameters, setting and seed, the number of examples, the
fingerprints of its corpora and of its encoder, and the engine's version. Names of profiles are not in it: two profiles
that ask for the same run share it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from soi_lib.errors import ProfileError, nearest
from soi_lib.runs.config import Budget, Comparison, DataSizes, Profile, Setting, Training
from soi_lib.training.device import kind_of, resolve_device, resolve_precision

if TYPE_CHECKING:
    from soi_lib.data.dataset import Corpus
    from soi_lib.runs.store import RunStore, StoredRun

Progress = Callable[[str, int, int], None]
"""Called with the run's key, the epoch (from 0) and the number of training examples done since the last call."""


class Job(Protocol):
    """What `reproduce.run_all` does: a run, or training that starts from one."""

    @property
    def key(self) -> str:
        """Under which the store has it when it is done."""

    @property
    def setting(self) -> Setting:
        """The members that are trained together."""

    @property
    def device(self) -> str:
        """Where it is trained: "cpu", "cuda" or "cuda:N"."""

    @property
    def training(self) -> Training:
        """Its hyperparameters."""

    @property
    def examples(self) -> int:
        """About how many examples are trained on, counted once an epoch."""

    def found(self, store: RunStore) -> StoredRun | None:
        """What `store` has of it; None when it is still to do."""

    def do(self, store: RunStore, progress: Progress | None = None) -> StoredRun:
        """Do it, unless it is done."""


@dataclass(frozen=True)
class RunSpec:
    """One run: its comparison, the datasets trained together, its seed, and all that sizes it.

    The precision in `training` is one that `device` computes in, never "auto".
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
    """Where the encoder lies that the profile brought; no part of the identity, as its fingerprint is."""

    @property
    def budget(self) -> Budget:
        """Whether each dataset gives all its training examples, or its part of those of one run."""
        return self.setting.budget

    def identity(self) -> dict[str, Any]:
        """Everything that determines the run, as JSON values."""
        return {
            "comparison": self.comparison,
            "setting": list(self.setting),
            "budget": self.budget,
            "seed": self.seed,
            "encoder": self.encoder,
            "data": self.data.model_dump(),
            "training": self.training.model_dump(),
            "fingerprints": dict(self.fingerprints),
            "engine": self.engine,
            "device": kind_of(self.device),
        }

    def fingerprint(self, what: str) -> str:
        """The fingerprint of `corpus/<member>` or of the `encoder`."""
        return dict(self.fingerprints)[what]

    @property
    def key(self) -> str:
        """Twenty hex digits of the sha256 of `identity`."""
        return key_of(self.identity())

    @property
    def name(self) -> str:
        """For people: `task entailment+sentiment seed 0`, `source tweets+amazon at equal budget seed 1`."""
        return f"{self.comparison} {self.setting} seed {self.seed}"

    @property
    def examples(self) -> int:
        """How many examples are trained on, counted once an epoch (fewer where a split is smaller)."""
        whole = self.data.train * self.training.epochs
        return whole if self.budget == "equal" else whole * len(self.setting)

    def found(self, store: RunStore) -> StoredRun | None:
        """The finished run in `store`."""
        return store.get(self.key)

    def do(self, store: RunStore, progress: Progress | None = None) -> StoredRun:
        """Train it unless `store` has it; see `soi_lib.runs.run.do_run`."""
        from soi_lib.runs.run import do_run

        return do_run(self, store, progress=progress)


def key_of(identity: dict[str, Any]) -> str:
    """Twenty hex digits of the sha256 of the canonical JSON of `identity`."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def plan(
    profile: Profile, *, only: Iterable[str] = (), device: str = "auto", precision: str | None = None
) -> list[RunSpec]:
    """The runs of `profile`, in the order of its comparisons, settings and seeds; `only` keeps some comparisons.

    `device` and `precision` (by default `$SOI_PRECISION`, or as the profile says) are resolved here, once, for all
    that follows; see `soi_lib.training.device`. A GPU need not be there to plan for it.

    Builds the corpora and the encoders' directories if the cache does not have them, since keys contain their
    fingerprints; those that the profile itself names are brought from where it says.
    """
    from soi_lib.data import sources
    from soi_lib.data.cache import keep
    from soi_lib.data.catalog import load
    from soi_lib.data.splitfiles import check_place
    from soi_lib.models.encoder import encoder_dir, fingerprint
    from soi_lib.models.hub import bring
    from soi_lib.training.version import ENGINE_VERSION

    device = resolve_device(device)
    precision = precision or os.environ.get("SOI_PRECISION")
    wanted = set(only) or set(profile.comparisons)
    for name in sorted(wanted - set(profile.comparisons)):
        raise ProfileError(
            "unknown comparison",
            where=f"profile {profile.name}",
            found=repr(name),
            hint=nearest(name, profile.comparisons),
        )
    specs = []
    for member in [m for name, part in profile.comparisons.items() if name in wanted for m in part.members]:
        if member in profile.corpora:
            check_place(member, profile.corpora[member])
    for comparison, part in profile.comparisons.items():
        if comparison not in wanted:
            continue
        own = profile.encoders.get(part.encoder)
        folder = encoder_dir(part.encoder) if own is None else bring(part.encoder, own)
        encoder = fingerprint(folder)
        found = {
            m: sources.load(m, profile.corpora[m]) if m in profile.corpora else keep(load(m)) for m in part.members
        }
        if comparison == "task":
            _heads_apart(found)
        corpora = {member: corpus.fingerprint for member, corpus in found.items()}
        training = profile.training_of(comparison)
        resolved = resolve_precision(precision or training.precision, kind_of(device))
        for setting in part.member_sets():
            prints = tuple(sorted({f"corpus/{m}": corpora[m] for m in setting}.items()))
            for seed in profile.seeds_of(comparison):
                specs.append(
                    RunSpec(
                        comparison=comparison,
                        setting=setting,
                        seed=seed,
                        encoder=part.encoder,
                        data=profile.data_of(comparison),
                        training=training.model_copy(update={"precision": resolved}),
                        fingerprints=(*prints, ("encoder", encoder)),
                        engine=ENGINE_VERSION,
                        device=device,
                        encoder_folder="" if own is None else str(folder),
                    )
                )
    return specs


def _heads_apart(corpora: dict[str, Corpus]) -> None:
    """Refuse tasks whose labels are the same numbers: equal labels share a head, and these mean different things."""
    seen: dict[tuple[str, ...], str] = {}
    for member, corpus in corpora.items():
        other = seen.setdefault(corpus.labels, member)
        if other != member and all(label.lstrip("-").isdigit() for label in corpus.labels):
            raise ProfileError(
                f"the tasks {other} and {member} call their labels by the same numbers, so they would share a head",
                where="corpora",
                found=", ".join(corpus.labels[:8]),
                hint="give the labels names, e.g. labels: {0: different, 1: paraphrase}",
            )
