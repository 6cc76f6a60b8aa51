"""The list of runs of a profile, each under a key that is a hash of all that determines it.

The key is the sha256 of a canonical JSON of the run's hyperparameters, setting and seed, the number of examples, the
fingerprints of its corpora and of its encoder, and the engine's version. Names of profiles are not in it: two profiles
that ask for the same run share it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from soi_lib.errors import ProfileError, nearest
from soi_lib.experiments.profile import Comparison, DataSizes, Profile, Training


@dataclass(frozen=True)
class RunSpec:
    """One run: its comparison, the members trained together, its seed, and all that sizes it."""

    comparison: Comparison
    setting: tuple[str, ...]
    seed: int
    encoder: str
    data: DataSizes
    training: Training
    fingerprints: tuple[tuple[str, str], ...]
    engine: int

    def identity(self) -> dict[str, Any]:
        """Everything that determines the run, as JSON values."""
        values = asdict(self) | {"data": self.data.model_dump(), "training": self.training.model_dump()}
        values["fingerprints"] = dict(self.fingerprints)
        return values

    @property
    def key(self) -> str:
        """Twenty hex digits of the sha256 of `identity`."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    @property
    def name(self) -> str:
        """For people: `task entailment+sentiment seed 0`."""
        return f"{self.comparison} {'+'.join(self.setting)} seed {self.seed}"


def plan(profile: Profile, *, only: Iterable[str] = ()) -> list[RunSpec]:
    """The runs of `profile`, in the order of its comparisons, settings and seeds; `only` keeps some comparisons.

    Builds the corpora and the encoders' directories if the cache does not have them, since keys contain their
    fingerprints.
    """
    from soi_lib.corpora import load
    from soi_lib.encoders.sources import encoder_dir, fingerprint
    from soi_lib.training.version import ENGINE_VERSION

    wanted = set(only) or set(profile.comparisons)
    for name in sorted(wanted - set(profile.comparisons)):
        raise ProfileError(
            "unknown comparison",
            where=f"profile {profile.name}",
            found=repr(name),
            hint=nearest(name, profile.comparisons),
        )
    specs = []
    for comparison, part in profile.comparisons.items():
        if comparison not in wanted:
            continue
        encoder = fingerprint(encoder_dir(part.encoder))
        corpora = {member: load(member).fingerprint for member in part.members}
        for setting in part.member_sets():
            prints = tuple(sorted({f"corpus/{m}": corpora[m] for m in setting}.items()))
            for seed in profile.seeds:
                specs.append(
                    RunSpec(
                        comparison=comparison,
                        setting=setting,
                        seed=seed,
                        encoder=part.encoder,
                        data=profile.data,
                        training=profile.training_of(comparison),
                        fingerprints=(*prints, ("encoder", encoder)),
                        engine=ENGINE_VERSION,
                    )
                )
    return specs
