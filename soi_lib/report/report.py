"""One page of a training, for a browser and for somebody else: `soi report`.

What is special: the page is one file. Pictures, styles and the plotting script are inside, and a content policy in its
head forbids it to load anything, so that it can be opened from a disk, mailed, and read in ten years. Texts are data
from elsewhere: every one is escaped where it is put into the page.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from soi_lib import files
from soi_lib.analysis.soi import SOI, categorize, soi_counts
from soi_lib.dynamics import TrainingDynamics
from soi_lib.errors import OutputExistsError, SoiError
from soi_lib.runs.own import data_file, is_own, open_own, training_rows
from soi_lib.runs.store import MANIFEST, StoredRun, open_run

if TYPE_CHECKING:
    import pandas as pd

    from soi_lib.data.dataset import Split
    from soi_lib.runs.results import Results

Runs = Mapping[str, Sequence[TrainingDynamics]]
"""The dynamics of one member by setting ("alone", "together"), a list over seeds."""


@dataclass(frozen=True)
class Subject:
    """What a page is about: dynamics by member and setting, and around them whatever is known of them.

    `texts` holds text by id for each member (nothing: ids are shown). `scores` has a row a member, setting and split,
    `runs` a row a run; `decided` are sentences on how the data were read.
    """

    title: str
    lead: str
    note: str
    members: dict[str, Runs]
    texts: dict[str, dict[Any, str]] = field(default_factory=dict)
    scores: pd.DataFrame | None = None
    runs: pd.DataFrame | None = None
    decided: tuple[str, ...] = ()
    command: str = ""


def write_report(place: str | Path, out: str | Path | None = None, *, force: bool = False) -> Path:
    """Write the page of `place` (a folder of soi train, a run's folder, a dynamics file); return where it is.

    `out` is report.html in a folder of soi train, else NAME-report.html in the working folder. Raises
    OutputExistsError unless `force`, and a SoiError for whatever is damaged, unfinished, or no such thing.
    """
    from soi_lib.report.report_page import page

    place = Path(place)
    default = place / "report.html" if is_own(place) else Path(f"{place.resolve().stem}-report.html")
    target = Path(out) if out is not None else default
    if target.is_dir():
        target = target / "report.html"
    if any((folder / MANIFEST).exists() for folder in target.resolve().parents):
        raise SoiError(
            "this is inside a run, and nothing may be added to a run", where=target, hint="choose another --out"
        )
    if target.exists() and not force:
        raise OutputExistsError("the file is already there", where=target, hint="pass --force to replace it")
    files.write_text(target, page(subject(place)), overwrite=force)
    return target


def subject(place: str | Path) -> Subject:
    """What is at `place`. Raises SoiError."""
    place = Path(place)
    if not place.exists():
        raise SoiError("no such file or folder", where=place, hint="give a folder that soi train made")
    if place.is_file():
        dynamics = TrainingDynamics.load(place)
        return _of_dynamics(place, dynamics)
    if is_own(place):
        return _of_own(place)
    if (place / MANIFEST).is_file():
        return _of_run(open_run(place))
    raise SoiError(
        "there is nothing here to report on",
        where=place,
        expected="a folder that soi train made, the folder of a run, or a dynamics file",
        hint="`soi train --out` makes such a folder",
    )


def _of_own(folder: Path) -> Subject:
    results, index = open_own(folder)
    members: dict[str, Runs] = {
        member: {
            _name(setting): [results.run(setting, seed).dynamics(member) for seed in results.seeds]
            for setting in results.settings_with(member)
        }
        for member in results.members
    }
    texts = {m: _texts(training_rows(folder, m)) for m in results.members if data_file(folder, m).is_file()}
    missing = len(index["runs"]) - len(results.runs)
    some = f" {missing} of {len(index['runs'])} runs are not done, or belong to a seed that is not complete."
    lead = (
        f"{_count(results.members, 'data set').capitalize()} ({', '.join(results.members)}), trained "
        f"{'alone and together' if len(results.members) > 1 else 'alone'} for {index['epochs']} epochs from "
        f"{index['model']}, {_count(results.seeds, 'seed')}.{some if missing else ''}"
    )
    return Subject(
        title=f"Training dynamics: {', '.join(results.members)}",
        lead=lead,
        note=results.note,
        members=members,
        texts=texts,
        scores=_scores(results),
        runs=_run_table(results.runs),
        decided=tuple(index.get("decided", [])),
        command=str(index.get("command", "")),
    )


def _of_run(run: StoredRun) -> Subject:
    from soi_lib.data.catalog import load

    texts = {}
    for member in run.setting:
        try:
            fingerprint = run.manifest["identity"]["fingerprints"][f"corpus/{member}"]
            texts[member] = _texts(load(member, fingerprint).splits["train"])
        except (SoiError, KeyError):  # a corpus of another version, or no longer in the cache: ids must do
            continue
    return Subject(
        title=f"Training dynamics: {' + '.join(run.setting)}",
        lead=f"One run of {' + '.join(run.setting)}, seed {run.seed}.",
        note=f"Run {run.key}, seed {run.seed}, device {run.manifest['machine']['device']}",
        members={member: {_name(run.setting): [run.dynamics(member)]} for member in run.setting},
        texts=texts,
        runs=_run_table((run,)),
    )


def _of_dynamics(path: Path, dynamics: TrainingDynamics) -> Subject:
    name = dynamics.meta.member or path.stem
    return Subject(
        title=f"Training dynamics: {name}",
        lead=f"{len(dynamics):,} examples over {dynamics.epochs} epochs, from the file {path.name}.",
        note=f"{path.name}, one seed",
        members={name: {_name(dynamics.meta.setting): [dynamics]}},
    )


def _name(setting: Sequence[str]) -> str:
    return "together" if len(setting) > 1 else "alone"


def _scores(results: Results) -> pd.DataFrame:
    """`tables.score_table` with the settings as the page calls them, and intervals that stay between 0 and 1."""
    from soi_lib.report.tables import score_table

    table = score_table(results)
    names = table["setting"].map(lambda name: name if name == "alone" else "together")
    return table.assign(setting=names, low=table["low"].clip(0, 1), high=table["high"].clip(0, 1))


def _texts(rows: Split) -> dict[Any, str]:
    """The texts by id, both sides of a pair."""
    if rows.text_pair is None:
        return dict(zip(rows.ids, rows.text, strict=True))
    return {i: f"{a}  |  {b}" for i, a, b in zip(rows.ids, rows.text, rows.text_pair, strict=True)}


def _count(things: Sequence[Any], word: str) -> str:
    numbers = ("no", "one", "two", "three", "four", "five", "six")
    n = len(things)
    return f"{numbers[n] if n < len(numbers) else n} {word}{'' if n == 1 else 's'}"


def _run_table(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """A row a run and member: accuracy and macro-F1 of every split, minutes, folder."""
    import pandas as pd

    rows = []
    for run in runs:
        for member in run.setting:
            metrics = run.metrics[member]
            row: dict[str, Any] = {"member": member, "trained": _name(run.setting)}
            row |= {"seed": run.seed, "train n": metrics["n"]}
            for split in [s for s in metrics if s in ("test", "ood") or s.startswith("ood:")]:
                name = split.replace("ood", "OOD")
                row |= {f"{name} accuracy": metrics[split]["accuracy"], f"{name} macro-F1": metrics[split]["macro_f1"]}
            row |= {"minutes": run.manifest["seconds"]["total"] / 60, "run": run.key}
            rows.append(row)
    return pd.DataFrame(rows)


def shares(members: Mapping[str, Runs]) -> pd.DataFrame:
    """Counts of the six categories by (member, setting), mean over seeds, as `soi_lib.plots.soi_bars` takes them."""
    import pandas as pd

    rows = {
        (member, setting): np.mean([list(soi_counts(categorize(run)).values()) for run in runs], axis=0)
        for member, settings in members.items()
        for setting, runs in settings.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=[soi.name for soi in SOI])
    table.index = pd.MultiIndex.from_tuples(list(rows), names=["member", "setting"])
    return table


def escape(text: object) -> str:
    """Text for the page's body and attributes."""
    return html.escape(str(text), quote=True)
