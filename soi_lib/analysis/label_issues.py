"""Find labels that may be wrong, from how a model learned them.

In training-mode recording, the model's prediction for an example in epoch e comes before its e-th update on that
example, so the first epochs are nearly predictions on unseen data. A label that contradicts the rest of the data is
learned late or never, and its probability is low on average over training. Which average works best is measured:
benchmarks/wrong_labels.py compares those in `RULES` on labels that were flipped on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from soi_lib.analysis.datamap import confidence_variability, data_map
from soi_lib.analysis.soi import SOI, categorize, forgetting_events
from soi_lib.dynamics import TrainingDynamics, shared_rows
from soi_lib.errors import FormatError, RangeError, nearest

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]
DEFAULT_RULE = "confidence"
_AVERAGED = ("confidence", "variability", "correctness")  # columns of `data_map`
TINY = 1e-7
"""Closer than this to 0 or 1, a float32 probability carries no further information."""


def label_issues(dynamics: TrainingDynamics | Sequence[TrainingDynamics], rule: str = DEFAULT_RULE) -> pd.DataFrame:
    """Return all examples, the most suspect label first: a DataFrame with N rows.

    Columns: id; gold int16 and given (the label's name); suggested (the name of the label that the model favoured
    over training if it differs; None if it agrees or was not recorded: more than two classes without logits); score
    float64, larger is more suspect; confidence and variability float64 as in `data_map`; correctness float64; soi
    int8. Given several runs that differ in the seed, the numbers are means over the runs, the category is the most
    frequent one, and only examples that all runs share are ranked. `rule` is a name from `RULES`. Equal scores are
    ordered by id, so the same dynamics give the same ranking whatever the order of their examples. Raises RangeError
    for an unknown rule, FormatError for a rule that needs logits that were not recorded, AlignmentError for runs of
    other examples.
    """
    import pandas as pd

    if rule not in RULES:
        raise RangeError("there is no such rule", found=repr(rule), hint=nearest(rule, RULES))
    runs = [dynamics] if isinstance(dynamics, TrainingDynamics) else list(dynamics)
    rows, first = shared_rows(runs), runs[0]

    def mean(values: Callable[[TrainingDynamics], Array]) -> Array:
        return np.stack([values(run)[row] for run, row in zip(runs, rows, strict=True)]).mean(axis=0, dtype=np.float64)

    gold = first.gold[rows[0]]
    names = np.array(first.meta.label_names or [str(c) for c in range(first.meta.classes)], dtype=object)
    suggested = np.full(len(gold), None, dtype=object)
    if first.meta.classes == 2 or all(run.logits is not None for run in runs):
        chances = mean(_chances)
        other = chances.max(1) > chances[np.arange(len(gold)), gold]
        suggested[other] = names[chances.argmax(1)[other]]
    maps = [data_map(run).iloc[row] for run, row in zip(runs, rows, strict=True)]
    codes = np.stack([one["soi"] for one in maps])
    frame = pd.DataFrame(
        {
            "id": maps[0]["id"].to_numpy(),
            "gold": gold,
            "given": names[gold],
            "suggested": pd.Series(suggested, dtype=object),
            "score": mean(RULES[rule]),
            **{name: np.mean([one[name] for one in maps], axis=0) for name in _AVERAGED},
            "soi": (codes == np.arange(len(SOI))[:, None, None]).sum(1).argmax(0).astype(np.int8),
        }
    )
    return frame.sort_values(["score", "id"], ascending=[False, True], kind="stable", ignore_index=True)


def margins(dynamics: TrainingDynamics) -> Array:
    """Return the logit of the given label minus the largest other logit: (E, N) float64.

    Computed from recorded logits or, with two classes, from p_gold alone, whose log odds are this margin. Raises
    FormatError for more classes without logits. Its mean over epochs is the area under the margin (Pleiss et al. 2020).
    """
    if dynamics.logits is None:
        if dynamics.meta.classes != 2:
            raise FormatError(
                "margins need the logits of all classes",
                found=f"{dynamics.meta.classes} classes and no logits",
                hint="record with keep_logits=True (soi train --keep-logits), or use the rule 'confidence'",
            )
        p = np.clip(dynamics.p_gold.astype(np.float64), TINY, 1 - TINY)
        return np.log(p / (1 - p))
    logits = dynamics.logits.astype(np.float64)
    own = logits[:, np.arange(len(dynamics)), dynamics.gold]
    others = np.where(dynamics.gold[:, None] == np.arange(logits.shape[2]), -np.inf, logits)
    return own - others.max(2)


def _chances(dynamics: TrainingDynamics) -> Array:
    """Return the mean probability of each class over epochs, (N, C) float64, from logits or for two classes."""
    if dynamics.logits is not None:
        from scipy.special import softmax  # type: ignore[import-untyped]

        return softmax(dynamics.logits.astype(np.float64), axis=2).mean(0)
    p = dynamics.p_gold.mean(0, dtype=np.float64)
    return np.where(dynamics.gold[:, None] == np.arange(2), p[:, None], 1 - p[:, None])


def _confidence(dynamics: TrainingDynamics) -> Array:
    return 1 - confidence_variability(dynamics.p_gold)[0]


def _forgetting(dynamics: TrainingDynamics) -> Array:
    """Count forgetting events; an example that was never right ranks above all others (Toneva et al. 2019)."""
    events = forgetting_events(dynamics.history, dynamics.epochs).astype(np.float64)
    return np.where(dynamics.history == 0, dynamics.epochs, events)


RULES: dict[str, Callable[[TrainingDynamics], Array]] = {
    "confidence": _confidence,
    "margin": lambda dynamics: -margins(dynamics).mean(0),
    "loss": lambda dynamics: -np.log(np.maximum(dynamics.p_gold.astype(np.float64), TINY)).mean(0),
    "unlearned first": lambda dynamics: _confidence(dynamics) + (categorize(dynamics) == SOI.UNE),
    # ties are ordered by confidence, lowest first
    "wrong epochs": lambda dynamics: (~dynamics.correct).sum(0) + _confidence(dynamics) / 2,
    "last epoch": lambda dynamics: 1 - dynamics.p_gold[-1].astype(np.float64),
    "forgetting": _forgetting,
}
"""Rules by name: each returns scores (N,), larger for more suspect labels."""
