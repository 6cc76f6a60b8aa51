"""Which examples a stage trains on: the subset, as many random ones of the same classes, or as many updates on all.

All of it is decided from the seed and the dynamics of the run that the stage starts from, before any weight is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np

from soi_lib.analysis.selection import select
from soi_lib.analysis.soi import SOI
from soi_lib.dynamics import TrainingDynamics
from soi_lib.errors import SelectionError
from soi_lib.runs.config import Subset

if TYPE_CHECKING:
    from soi_lib.runs.second_stage import StageSpec

SUBSETS: dict[str, tuple[str, ...]] = {
    "FRGE": ("FRGE_1", "FRGE_2"),
    "UNE+FRGE": ("UNE", "FRGE_1", "FRGE_2"),
    "LLE+FRGE+UNE": ("LLE", "FRGE_1", "FRGE_2", "UNE"),
    "ACE": ("ACE",),
    "ambiguous": ("ambiguous",),
    "hard-to-learn": ("hard",),
    "easy-to-learn": ("easy",),
}
"""The categories or map regions that a subset unites; regions are the top third."""
assert tuple(SUBSETS) == get_args(Subset)

SMALLEST = 8
"""A subset of fewer examples is not tested; nor is one with fewer than two classes of a member."""


@dataclass(frozen=True)
class Choice:
    """What a stage trains on: ids of each member (sorted) and passes over them, or why it is not tested.

    `n` is the size of the subset in each member, also where it is too small or where a control is trained instead.
    """

    ids: dict[str, np.ndarray]
    passes: int
    n: dict[str, int]
    reason: str = ""


def choose(spec: StageSpec, dynamics: dict[str, TrainingDynamics]) -> Choice:
    """The examples of a stage, from the dynamics of its run; each member's subset comes from its own dynamics.

    Balanced means that no class gives more examples than the median class of the subset (the lower one of two), so
    with two classes both give as many. The random control has as many examples of each class of each member, drawn
    from all data. The control "all" is a random part of all data, each member in proportion to its size, of such a
    size that the fewest possible passes over it have exactly as many updates as the subset's epochs: 4 epochs of 100
    examples are 4 x 7 updates with batches of 16, and so is one pass over 433 examples.
    """
    picked = {member: _subset(spec, member, dyn) for member, dyn in dynamics.items()}
    n = {member: sum(len(ids) for ids in classes.values()) for member, classes in picked.items()}
    poor = [member for member, classes in picked.items() if len(classes) < 2]
    if poor:
        return Choice({}, 0, n, f"fewer than two classes of {', '.join(poor)}")
    if sum(n.values()) < SMALLEST:
        return Choice({}, 0, n, f"fewer than {SMALLEST} examples")
    if spec.control == "all":
        return _of_all(spec, dynamics, n)
    if spec.control == "random":
        drawn = {
            member: {gold: _draw(_of_class(dyn, gold), len(ids), spec.seed_for(f"{member}/{gold}"))
                     for gold, ids in picked[member].items()}
            for member, dyn in dynamics.items()
        }  # fmt: skip
    else:
        drawn = picked
    return Choice({m: np.sort(np.concatenate(list(c.values()))) for m, c in drawn.items()}, spec.training.epochs, n)


def _subset(spec: StageSpec, member: str, dynamics: TrainingDynamics) -> dict[int, np.ndarray]:
    """The ids of each class that the subset has, balanced and limited as `spec` says; the same for its controls."""
    from soi_lib.models.multitask import derived_seed

    try:
        inside = dynamics.subset(select(dynamics, SUBSETS[spec.subset]))
    except SelectionError:  # no example is in it
        return {}
    classes, sizes = np.unique(inside.gold, return_counts=True)
    if spec.balance:
        sizes = np.minimum(sizes, np.sort(sizes)[(len(sizes) - 1) // 2])
    if spec.limit is not None and sizes.sum() > spec.limit:
        sizes = _shares(sizes, spec.limit)
    seed = derived_seed(spec.base.seed, "subset", spec.subset, member)
    return {int(c): _draw(_of_class(inside, c), n, seed + int(c)) for c, n in zip(classes, sizes, strict=True) if n}


def _of_class(dynamics: TrainingDynamics, gold: int) -> TrainingDynamics:
    return dynamics.subset(dynamics.gold == gold)


def _draw(dynamics: TrainingDynamics, n: int, seed: int) -> np.ndarray:
    """`n` ids at random, of whatever category."""
    return select(dynamics, tuple(SOI), n=int(n), seed=seed)


def _shares(sizes: np.ndarray, total: int) -> np.ndarray:
    """`total` (at most the sum) divided in proportion to `sizes` by largest remainders, at least one for each."""
    exact = sizes * (total / sizes.sum())
    out = np.maximum(np.floor(exact).astype(np.int64), 1)
    while out.sum() != total:
        step = 1 if out.sum() < total else -1
        room = out < sizes if step > 0 else out > 1
        if not room.any():
            break
        out[np.argmax(np.where(room, step * (exact - out), -np.inf))] += step
    return out


def _of_all(spec: StageSpec, dynamics: dict[str, TrainingDynamics], n: dict[str, int]) -> Choice:
    epochs, batch, size = spec.training.epochs, spec.training.batch_size, sum(n.values())
    everything = np.array([len(dyn) for dyn in dynamics.values()])
    updates = epochs * -(-size // batch)
    most = -(-int(everything.sum()) // batch)
    passes = next(p for p in range(1, epochs + 1) if epochs % p == 0 and updates // p <= most)
    steps = updates // passes
    # as many presentations as the subset has, if so many examples fill neither fewer batches nor more
    wanted = min(max(epochs // passes * size, (steps - 1) * batch + 1), int(everything.sum()))
    shares = _shares(everything, wanted)
    ids = {
        member: _draw(dyn, share, spec.seed_for(member))
        for (member, dyn), share in zip(dynamics.items(), shares, strict=True)
    }
    return Choice(ids, passes, n)
