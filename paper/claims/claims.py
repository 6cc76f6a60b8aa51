"""The paper's claims, each with its rule, and what the runs say of it: supported, mixed, not supported, not tested.

Special about it: a rule is text and code side by side, fixed beforehand (the code is in `claim_categories` and
`claim_gains`), and a verdict is only given from three seeds on. With fewer the same evidence is shown and the claim
stays not tested.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from paper.claims import categories_claim as claim_categories
from paper.claims import gains_claim as claim_gains
from paper.claims.evidence import Evidence, Finding, Judgement
from paper.recorded import Results
from paper.stage_tables import stage_summary

LEAST_SEEDS = 3
JUDGEMENTS: tuple[Judgement, ...] = ("supported", "mixed", "not supported", "not tested")
_NUMBERS = {1: "one", 2: "two"}


@dataclass(frozen=True)
class Claim:
    """A claim of the abstract in our words, its rule in words and in code, and the caption of its evidence."""

    id: str
    title: str
    text: str
    rule: str
    judge: Callable[[Evidence], Finding]
    caption: str


@dataclass(frozen=True)
class Verdict:
    """What the runs say of a claim. `would_be` is what the rule gives before it is asked for three seeds."""

    claim: Claim
    verdict: Judgement
    would_be: Judgement
    finding: Finding

    @property
    def seeds(self) -> int:
        """The seeds of the comparison that has the fewest."""
        return self.finding.seeds

    @property
    def n(self) -> int:
        """The examples that were looked at, counted once whatever the number of seeds and settings."""
        return self.finding.n

    @property
    def evidence(self) -> tuple[str, ...]:
        """Sentences computed from the runs."""
        return self.finding.evidence

    @property
    def change(self) -> str:
        """What would change the verdict."""
        return self.finding.change

    @property
    def table(self) -> pd.DataFrame:
        """A row a case: case, measure, value, low, high, n, seeds, and more; see `Finding`."""
        return self.finding.table

    @property
    def shown(self) -> pd.DataFrame:
        """The table for a page: counts as whole numbers, and nothing where there is none."""
        table = self.table.copy()
        for column in table.columns.difference(["value", "low", "high"]):
            values = pd.to_numeric(table[column], errors="coerce")
            if values.isna().any() and values.notna().any() and (values.dropna() % 1 == 0).all():
                table[column] = ["" if np.isnan(v) else f"{v:.0f}" for v in values]
        return table

    @property
    def label(self) -> str:
        """The verdict for reading: `supported`, or `not tested (one seed)`."""
        if self.verdict == "not tested" and 0 < self.seeds < LEAST_SEEDS:
            return f"not tested ({_NUMBERS[self.seeds]} seed{'s' if self.seeds > 1 else ''})"
        return self.verdict

    @cached_property
    def text(self) -> str:
        """Markdown: claim, rule, verdict, evidence, and what would change it."""
        lines = [f"**{self.claim.id}.** {self.claim.text}", "", f"*Rule, fixed beforehand.* {self.claim.rule}", ""]
        lines += [f"**Verdict: {self.label}.**", ""]
        if self.verdict == "not tested" and self.would_be != "not tested":
            lines[-2] += f" A verdict needs {LEAST_SEEDS} seeds. From these alone the rule would give: {self.would_be}."
        lines += [f"- {sentence}" for sentence in self.evidence]
        return "\n".join([*lines, "", f"*What would change it:* {self.change}"])


CLAIMS = (
    Claim(
        "C1",
        "Six learning behaviours",
        "The history of its correctness puts every training example into one of six learning behaviours, among them "
        "forgettable, unlearned and always-correct examples.",
        "Supported when (a) the six categories add up to all examples in every run, (b) each occurs in at least half "
        "of the members trained alone, and (c) examples fall into the same category again when only the seed differs: "
        "Cohen's kappa between seeds lies above zero with its 95 % interval over examples, for every member and for "
        "every category against the others. Not supported when (a) fails or no member repeats; else mixed.",
        claim_categories.six_behaviours,
        "Kappa between seeds, for every member and for every category against the others, with 95 % intervals over "
        "examples.",
    ),
    Claim(
        "C2",
        "Several sources, out of distribution",
        "Learning from several sources together consistently improves accuracy out of distribution, by up to 7 %.",
        "OOD accuracy together minus alone, paired by example and seed. Supported when the 95 % interval lies above "
        "zero for every source; mixed when it does for some and lies below zero for none; else not supported. The "
        "largest gain is set beside the paper's.",
        claim_gains.several_sources,
        "OOD accuracy together minus alone, with 95 % intervals (paired by example and seed).",
    ),
    Claim(
        "C3",
        "Several tasks, similar and dissimilar",
        "Learning several tasks together gives mixed results, with notable gains for combinations of similar tasks.",
        "Two halves, and supported only when both are; mixed when one is, or when one half is itself mixed. First: "
        "among all members, settings and sets (test, OOD), both gains and losses whose 95 % intervals are without "
        "zero are more than chance gives (binomial, 5 %); mixed when only one side is. Second: over directed pairs, "
        "the gain in accuracy (mean of test and OOD) rises with the similarity of the two tasks before training "
        "(cosine of gradients with aligned heads; rank correlation, all relabellings of the tasks, p at most 5 %). "
        "With three tasks p cannot be that small: the second half then stays not tested.",
        claim_gains.several_tasks,
        "Accuracy with other tasks minus alone, with 95 % intervals (paired by example and seed).",
    ),
    Claim(
        "C4",
        "Moves between the categories",
        "Heatmaps of transitions and data maps show how examples move between the categories from training alone to "
        "training together.",
        "For each member, the transition from alone to all together is held against the noise floor between seeds. "
        "Supported when at least half of the members have a move between two categories that is more than noise "
        "(false discovery rate 5 % by a permutation test, and no other division of the runs shows as much); mixed "
        "when fewer have, but more than chance gives; else not supported. Beside it stands how far the data map "
        "shifts.",
        claim_categories.moves,
        "How many more examples change category between the settings than between seeds, and the change of mean "
        "confidence, with 95 % intervals. Significant moves are cells off the diagonal that are more than noise.",
    ),
    Claim(
        "C5",
        "A second stage",
        "A second stage of fine-tuning on a subset chosen by category improves the result further.",
        "Accuracy pooled over all members and settings. Supported when continuing on never-learned and forgotten "
        "examples (UNE+FRGE, the recipe's subset) gains both over the run that it continues and over a random subset "
        "of the same size and classes, with 95 % intervals above zero on the test or the OOD sets, and loses on "
        "neither; mixed when it does not, but more of the four subsets by category gain over their random control "
        "than chance gives; else not supported.",
        claim_gains.second_stage,
        "Gains of accuracy of continuing on a subset, pooled over all members and settings, with 95 % intervals. "
        "Cases: members in a setting whose subset was large enough in every seed (not tested: the others); up and "
        "down: those of them whose own interval is above or below zero.",
    ),
)


def evaluate(
    found: Mapping[str, Results],
    similarity: pd.DataFrame | None = None,
    stages: pd.DataFrame | None = None,
    *,
    only: Iterable[str] = (),
) -> tuple[Verdict, ...]:
    """Judge C1 to C5 by the runs in `found` (results by comparison; those that are missing are not tested).

    `similarity` is a table of `paper.similarity.task_similarity`; `stages` one of `stage_summary`, made
    here from the results that were opened with their stages when it is not given. `only` keeps some claims.
    """
    wanted = set(only) or {claim.id for claim in CLAIMS}
    if stages is None and "C5" in wanted:
        stages = stages_of(found)
    evidence = Evidence(dict(found), similarity, stages)
    verdicts = []
    for claim in (claim for claim in CLAIMS if claim.id in wanted):
        finding = claim.judge(evidence)
        judgement: Judgement = finding.judgement if finding.seeds >= LEAST_SEEDS else "not tested"
        verdicts.append(Verdict(claim, judgement, finding.judgement, finding))
    return tuple(verdicts)


def stages_of(found: Mapping[str, Results]) -> pd.DataFrame | None:
    """The summary of all second stages in `found`, over the seeds that have them; None when there are none."""
    parts = []
    for results in found.values():
        seeds = {stage.seed for stage in results.stages}
        if seeds:
            parts.append(replace(results, runs=tuple(run for run in results.runs if run.seed in seeds)))
    return stage_summary(parts) if parts else None


def overview(verdicts: Iterable[Verdict]) -> pd.DataFrame:
    """A row a claim: claim, verdict, examples, seeds, and the first sentence of the evidence."""
    return pd.DataFrame(
        {
            "claim": f"{v.claim.id}. {v.claim.text}",
            "verdict": v.label,
            "examples": v.n,
            "seeds": v.seeds,
            "seen": v.evidence[0],
        }
        for v in verdicts
    )
