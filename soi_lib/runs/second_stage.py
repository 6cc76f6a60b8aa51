"""Further training on subsets of finished runs: a second stage from the final weights.

The second stage follows Yaghoobzadeh et al. (2021): after training on everything, continue on the examples that were
forgotten or never learned, with balanced classes, at a tenth of the learning rate, for 4 epochs with linear decay and
no warm-up; the optimizer starts fresh. Here the subset can be chosen. Subsets come from the dynamics of the same run
whose weights are continued. Each subset is compared with two controls: as many random examples with the same classes,
and as many updates on all data. Each of these is a run in the same store, under its own key.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from soi_lib import files
from soi_lib.analysis.selection import select
from soi_lib.analysis.soi import SOI
from soi_lib.dynamics import TrainingDynamics
from soi_lib.errors import SelectionError
from soi_lib.runs import run
from soi_lib.runs.config import parts_of
from soi_lib.runs.spec import Progress, StageSpec
from soi_lib.runs.store import RunStore, StoredRun
from soi_lib.training.device import held

if TYPE_CHECKING:
    from soi_lib.training.engine import TrainMember

SMALLEST = 8
"""A subset with fewer examples is not tested, nor is one with fewer than two classes of a member."""


@dataclass(frozen=True)
class Choice:
    """What a stage trains on: the ids of each member (sorted) and the passes over them, or why it is not tested.

    `there` is the number of examples of each member in the subset, `n` the number after its classes are balanced. Both
    are also given if the subset is too small or a control is trained instead.
    """

    ids: dict[str, np.ndarray]
    passes: int
    there: dict[str, int]
    n: dict[str, int]
    reason: str = ""


def choose(spec: StageSpec, dynamics: dict[str, TrainingDynamics]) -> Choice:
    """Choose the examples of a stage, from the dynamics of its run; each member's subset comes from its own dynamics.

    Balanced means that no class has more examples than the median class of the subset (the lower median), so two
    classes have equally many. The random control has as many examples of each class of each member, drawn from all
    data. The control "all" is a random part of all data, with each member in proportion to its size. Its size is chosen
    so that the fewest possible passes over it have exactly as many updates as the subset's epochs: with batches of 16,
    4 epochs of 100 examples are 4 x 7 updates, and so is one pass over 433 examples.
    """
    found = {member: _found(spec, dyn) for member, dyn in dynamics.items()}
    there = {member: len(ids) for member, ids in found.items()}
    picked = {member: _even(spec, member, dynamics[member], ids) for member, ids in found.items()}
    n = {member: sum(len(ids) for ids in classes.values()) for member, classes in picked.items()}
    poor = [member for member, classes in picked.items() if len(classes) < 2]
    if poor:
        return Choice({}, 0, there, n, f"fewer than two labels of {', '.join(poor)} are in the subset")
    used, every = sum(n.values()), sum(there.values())
    if used < SMALLEST:
        even = f", of {every} before its labels were made even" if every > used else ""
        return Choice({}, 0, there, n, f"fewer than {SMALLEST} examples: {used}{even}")
    if spec.control == "all":
        ids, passes = _of_all(spec, dynamics, used)
        return Choice(ids, passes, there, n)
    if spec.control == "random":
        picked = {
            member: {gold: _draw(dyn.subset(dyn.gold == gold), len(ids), spec.seed_for(f"{member}/{gold}"))
                     for gold, ids in picked[member].items()}
            for member, dyn in dynamics.items()
        }  # fmt: skip
    ids = {member: np.sort(np.concatenate(list(classes.values()))) for member, classes in picked.items()}
    return Choice(ids, spec.training.epochs, there, n)


def _found(spec: StageSpec, dynamics: TrainingDynamics) -> np.ndarray:
    """Return the ids of all examples in the subset; empty if there are none."""
    if spec.ids:  # possibly of several datasets
        wanted = set(spec.ids)
        return dynamics.ids[np.array([str(i) in wanted for i in dynamics.ids], dtype=bool)]
    try:
        return select(dynamics, parts_of(spec.subset))
    except SelectionError:
        return dynamics.ids[:0]


def _even(spec: StageSpec, member: str, dynamics: TrainingDynamics, there: np.ndarray) -> dict[int, np.ndarray]:
    """Return the ids of each class of the subset, balanced if `spec` says so; the same for its controls."""
    from soi_lib.models.multitask import derived_seed

    if not len(there):
        return {}
    inside = dynamics.subset(there)
    classes, sizes = np.unique(inside.gold, return_counts=True)
    if spec.balance:
        sizes = np.minimum(sizes, np.sort(sizes)[(len(sizes) - 1) // 2])
    seed = derived_seed(spec.base.seed, "subset", spec.subset, member)
    return {
        int(c): _draw(inside.subset(inside.gold == c), n, seed + int(c)) for c, n in zip(classes, sizes, strict=True)
    }


def _draw(dynamics: TrainingDynamics, n: int, seed: int) -> np.ndarray:
    """Draw `n` ids at random, from any category."""
    return select(dynamics, tuple(SOI), n=int(n), seed=seed)


def _shares(sizes: np.ndarray, total: int) -> np.ndarray:
    """Divide `total` (at most the sum) in proportion to `sizes` by largest remainders, with at least one for each."""
    exact = sizes * (total / sizes.sum())
    out = np.maximum(np.floor(exact).astype(np.int64), 1)
    while out.sum() != total:
        step = 1 if out.sum() < total else -1
        room = out < sizes if step > 0 else out > 1
        if not room.any():
            break
        out[np.argmax(np.where(room, step * (exact - out), -np.inf))] += step
    return out


def _of_all(spec: StageSpec, dynamics: dict[str, TrainingDynamics], size: int) -> tuple[dict[str, np.ndarray], int]:
    """Return the ids of the control "all" for a subset of `size` examples, and the number of passes over them."""
    epochs, batch = spec.training.epochs, spec.training.batch_size
    everything = np.array([len(dyn) for dyn in dynamics.values()])
    updates = epochs * -(-size // batch)
    most = -(-int(everything.sum()) // batch)
    passes = next(p for p in range(1, epochs + 1) if epochs % p == 0 and updates // p <= most)
    steps = updates // passes
    # as many presentations as the subset has, if that leaves the number of batches unchanged
    wanted = min(max(epochs // passes * size, (steps - 1) * batch + 1), int(everything.sum()))
    shares = dict(zip(dynamics, _shares(everything, wanted), strict=True))
    return {member: _draw(dyn, shares[member], spec.seed_for(member)) for member, dyn in dynamics.items()}, passes


# --- training ----------------------------------------------------------------------------------------------------


def do_stage(spec: StageSpec, store: RunStore, *, progress: Progress | None = None) -> StoredRun:
    """Train a stage unless `store` has it, after the run that it starts from, and return the stored stage.

    A subset that is too small is stored as not tested, with its size. Raises StoreError if the run's weights are
    missing and training it again does not reproduce the stored dynamics bit for bit.
    """
    with held(store.lock(spec.key)):
        done = store.get(spec.key)
        if done is not None:
            return done
        base = run.do_run(replace(spec.base, keep_weights=True), store)
        return _stage(spec, base, store, progress)


def _stage(spec: StageSpec, base: StoredRun, store: RunStore, progress: Progress | None) -> StoredRun:
    """Choose the examples, then train the stage or store that it cannot be tested."""
    from soi_lib.training.checkpoint import load_weights

    began = run.begin()
    choice = choose(spec, {member: base.dynamics(member) for member in spec.setting})
    about: dict[str, Any] = {"base": base.manifest["sha256"]}
    about["stage"] = {"tested": not choice.reason, "reason": choice.reason, "n": choice.n, "passes": choice.passes}
    if choice.reason:
        sizes = {member: {"n": n} for member, n in choice.n.items()}
        about |= run.heading(spec) | {"started": began[0]}
        return store.write(spec.key, about, lambda out: files.write_json(out / "metrics.json", sizes))

    hashes = {m: hashlib.sha256("\n".join(map(str, ids)).encode()).hexdigest() for m, ids in choice.ids.items()}
    ready = run.prepare(spec.base)
    rows = {m.name: np.flatnonzero(np.isin(m.ids, choice.ids[m.name])) for m in ready.members}
    initial, _, weights = load_weights(store.weights_path(base.key), ready.vocabulary)
    ready = replace(ready, members=[_part(member, rows[member.name]) for member in ready.members])
    how: dict[str, Any] = {"seed": spec.seed_for("training"), "initial": initial, "epochs": choice.passes}
    result = run.train_prepared(spec, ready, store, progress, **how)
    metrics = {
        member: {
            "n": choice.n[member],
            "trained": len(rows[member]),
            "base": {split: base.metrics[member][split] for split in result.predictions[member]},
        }
        for member in spec.setting
    }
    left = {
        member: [round(left_to_learn(d, after.ids), 6) for d in (base.dynamics(member), after)]
        for member, after in result.dynamics.items()
    }
    about["examples"] = sum(len(index) for index in rows.values())
    presentations = choice.passes * about["examples"]
    about["stage"] |= {"presentations": presentations, "ids": hashes, "weights": weights, "left": left}
    return run.write_run(spec, store, ready, result, began, metrics, about)


CONFIDENT = 0.9
"""An example classified correctly with at least this probability of its label has nothing left to learn."""


def left_to_learn(dynamics: TrainingDynamics, ids: np.ndarray) -> float:
    """Return the share of `ids` (n,) misclassified in the last epoch, or correct with less than `CONFIDENT`.

    A second stage on a subset with nothing left to learn can change little, whatever the subset is.
    """
    chosen = dynamics.subset(ids)
    return float((~chosen.correct[-1] | (chosen.p_gold[-1] < CONFIDENT)).mean())


def _part(member: TrainMember, rows: np.ndarray) -> TrainMember:
    """Return the examples at positions `rows` of a dataset, and the sets that gains are measured on."""
    from soi_lib.training.batching import Encoded

    data = member.splits["train"]
    lengths = data.lengths[rows]
    offset = np.concatenate([[0], np.cumsum(lengths)])
    place = np.repeat(data.offset[rows] - offset[:-1], lengths) + np.arange(offset[-1])
    segment = None if data.segment is None else data.segment[place]
    train = Encoded(data.token[place], segment, offset, data.gold[rows], data.member[rows])
    tested = {name: split for name, split in member.splits.items() if name in ("test", "ood")}
    return replace(member, ids=member.ids[rows], splits={"train": train, **tested})
