"""The sensitivities of protocol 1 on runs of known truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from made_runs import World, make

from paper import sensitivity
from soi_lib.analysis.soi import categorize


def test_shares_depend_on_epochs_and_bound_as_the_definition_says(tmp_path) -> None:
    results = make(tmp_path, World(n=200))["source"]
    dyn = results.run(("tweets",)).dynamics("tweets")
    np.testing.assert_array_equal(sensitivity.truncated(dyn, 5, 0.2), categorize(dyn.correct[:5], 0.2))
    one = replace(results, runs=tuple(run for run in results.runs if run.seed == 0))
    table = sensitivity.by_epochs(one)
    for run in one.runs:
        for member in run.setting:
            name = "alone" if len(run.setting) == 1 else "all three"
            row = table[(table["member"] == member) & (table["setting"] == name) & (table["epochs"] == 8)]
            shares = [run.metrics[member]["soi"][n] / 200 for n in sensitivity.NAMES]
            np.testing.assert_allclose(row[sensitivity.NAMES].to_numpy()[0], shares)
    middle = sensitivity.by_early(results).query("early == 0.5").reset_index(drop=True)
    np.testing.assert_allclose(middle[sensitivity.NAMES], sensitivity.by_seed(results)[sensitivity.NAMES])
