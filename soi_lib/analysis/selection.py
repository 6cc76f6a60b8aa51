"""Subsets of examples by category or map region, and a random subset to compare with each of them.

The draw depends only on the ids and the seed, not on the order in which examples are stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from soi_lib.analysis.datamap import REGIONS, data_map, regions
from soi_lib.analysis.soi import SOI, categorize
from soi_lib.dynamics import TrainingDynamics
from soi_lib.errors import SelectionError, nearest


def select(
    dynamics: TrainingDynamics,
    which: SOI | str | Iterable[SOI | str],
    n: int | None = None,
    balance: bool = False,
    seed: int = 0,
    control: Literal["random"] | None = None,
    *,
    early: float = 0.5,
    fraction: float = 1 / 3,
) -> npt.NDArray[Any]:
    """Return the sorted ids (n,) of the examples in the union of categories or regions; their type is as in `dynamics`.

    `which` lists SOI codes or names ("UNE"), or map regions ("easy", "ambiguous", "hard"; each the top `fraction`).
    `n` draws that many examples at random; `balance` takes the same number from every gold class in `dynamics` (as
    many as the rarest allows, or n / classes with the remainder going to the first classes). `control="random"`
    returns the matched control instead: as many examples of each gold class, drawn from all of `dynamics`, including
    the subset, because the question is whether choosing matters, not whether the complement differs.
    The same arguments give the same ids. Raises SelectionError if there are fewer examples than requested.
    """
    if control not in (None, "random"):
        raise SelectionError("unknown control", found=repr(control), expected="None or 'random'")
    order = np.argsort(dynamics.ids, kind="stable")
    gold = dynamics.gold[order]
    name, mask = _mask(dynamics, which, early, fraction)
    candidates = np.flatnonzero(mask[order])
    if n is not None and n < 1:
        raise SelectionError("no examples were requested", found=n, expected="at least 1")
    if not len(candidates):
        raise SelectionError(f"there are no examples in {name}", hint="choose other categories")
    if n is not None and n > len(candidates):
        raise SelectionError(f"too few examples in {name}", found=len(candidates), expected=n, hint="ask for fewer")
    # two streams, so that the subset and its control are independent
    draw, draw_control = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
    if balance:
        chosen = _balanced(candidates, gold, n, draw, name)
    elif n is not None:
        chosen = draw.choice(candidates, n, replace=False)
    else:
        chosen = candidates
    if control == "random":
        chosen = _matched(chosen, gold, draw_control)
    return dynamics.ids[order][np.sort(chosen)]


def _mask(
    dynamics: TrainingDynamics, which: SOI | str | Iterable[SOI | str], early: float, fraction: float
) -> tuple[str, npt.NDArray[np.bool_]]:
    """Return the name of the union and its mask (N,)."""
    by_code: dict[Any, str] = {int(soi): soi.name for soi in SOI}
    names = [by_code.get(one, str(one)) for one in ([which] if isinstance(which, str | int) else which)]
    if not names:
        raise SelectionError("no category was given", hint=f"choose from {', '.join(by_code.values())}")
    for name in names:
        if name not in (*by_code.values(), *REGIONS):
            raise SelectionError(f"unknown category {name!r}", hint=nearest(str(name), [*by_code.values(), *REGIONS]))
    codes = categorize(dynamics, early)
    masks = {soi.name: codes == soi for soi in SOI}
    if not set(names) <= set(masks):
        masks |= regions(data_map(dynamics, early), fraction)
    return "+".join(names), np.logical_or.reduce([masks[name] for name in names])


def _balanced(
    candidates: npt.NDArray[Any], gold: npt.NDArray[Any], n: int | None, draw: np.random.Generator, name: str
) -> npt.NDArray[Any]:
    """Return equally many candidates of every class, as rows of the sorted order."""
    classes = np.unique(gold)
    groups = [candidates[gold[candidates] == c] for c in classes]
    total = len(classes) * min(map(len, groups)) if n is None else n
    picks = []
    for place, (c, group) in enumerate(zip(classes, groups, strict=True)):
        size = total // len(classes) + (place < total % len(classes))
        if len(group) < max(1, size):
            raise SelectionError(
                f"too few examples of class {c} in {name} to balance the classes",
                found=len(group),
                expected=max(1, size),
                hint="ask for fewer, or leave balance out",
            )
        picks.append(draw.choice(group, size, replace=False))
    return np.concatenate(picks)


def _matched(chosen: npt.NDArray[Any], gold: npt.NDArray[Any], draw: np.random.Generator) -> npt.NDArray[Any]:
    """Return as many rows of each class as `chosen` has, drawn from all rows."""
    classes, sizes = np.unique(gold[chosen], return_counts=True)
    picks = [draw.choice(np.flatnonzero(gold == c), s, replace=False) for c, s in zip(classes, sizes, strict=True)]
    return np.concatenate(picks)
