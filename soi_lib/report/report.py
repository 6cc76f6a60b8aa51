"""Build the HTML report on a training (`soi report`).

The report is a single file. It embeds pictures, styles and the plotting script, and a content security policy in its
head forbids loading anything, so that it can be opened from disk, sent by mail, and still be read in ten years. Its
wording is in `report.html.j2` in this folder. Texts come from outside: the template escapes every one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from soi_lib import files
from soi_lib.analysis.datamap import data_map
from soi_lib.analysis.soi import SOI, history_string, soi_table
from soi_lib.analysis.transitions import mean_transition, noise_floor
from soi_lib.dynamics import TrainingDynamics
from soi_lib.errors import OutputExistsError, SoiError
from soi_lib.runs.own_folder import below_words, company, data_file, is_own, open_own, training_rows
from soi_lib.runs.own_stage import AGAINST, case, gain_table, gains, left_words
from soi_lib.runs.store import MANIFEST, StoredRun, open_run

if TYPE_CHECKING:
    import pandas as pd

    from soi_lib.data.dataset import Split
    from soi_lib.plots.explorer import Explorer
    from soi_lib.plots.style import Shown
    from soi_lib.runs.results import Results

Runs = Mapping[str, Sequence[TrainingDynamics]]
"""The dynamics of one dataset: for each setting ("alone", "together"), one per seed."""
EACH = 6
"""Number of examples shown for each category."""


@dataclass(frozen=True)
class Subject:
    """The content of a report: the dynamics of each dataset and setting, and everything else known about them.

    `texts` maps ids to one or two texts for each dataset (ids are shown if it is empty). `scores` has one row per
    dataset, setting and split, `runs` one row per run and dataset, and `stages` the gains of second stages
    (`own_stage.gains`). `decisions` are sentences on how the data were read.
    """

    title: str
    lead: str
    note: str
    datasets: dict[str, Runs]
    texts: dict[str, dict[Any, tuple[str, ...]]] = field(default_factory=dict)
    scores: pd.DataFrame | None = None
    runs: pd.DataFrame | None = None
    stages: pd.DataFrame | None = None
    decisions: tuple[str, ...] = ()
    command: str = ""


def write_report(place: str | Path, out: str | Path | None = None, *, force: bool = False) -> Path:
    """Write the report on `place` (a folder of soi train, the folder of a run, or a dynamics file); return its path.

    `out` defaults to report.html in a folder of soi train, else to NAME-report.html in the working folder. Raises
    OutputExistsError if the file exists, unless `force`, and SoiError if `place` is damaged, unfinished or unsuitable.
    """
    place = Path(place)
    default = place / "report.html" if is_own(place) else Path(f"{place.resolve().stem}-report.html")
    target = Path(out) if out is not None else default
    if target.is_dir():
        target = target / "report.html"
    if any((folder / MANIFEST).exists() for folder in target.resolve().parents):
        raise SoiError(
            "the output is inside a run, and runs must not be changed", where=target, hint="choose another --out"
        )
    if target.exists() and not force:
        raise OutputExistsError("the file already exists", where=target, hint="pass --force to replace it")
    files.write_text(target, _page(subject(place)), overwrite=force)
    return target


# --- the content of a report -----------------------------------------------------------------------------------------


def subject(place: str | Path) -> Subject:
    """Read the content of the report on `place`. Raises SoiError."""
    place = Path(place)
    if not place.exists():
        raise SoiError("no such file or folder", where=place, hint="give an output folder of soi train")
    if place.is_file():
        return _of_dynamics(place)
    if is_own(place):
        return _of_own(place)
    if (place / MANIFEST).is_file():
        return _of_run(open_run(place))
    raise SoiError(
        "there is nothing here to report on",
        where=place,
        expected="an output folder of soi train, the folder of a run, or a dynamics file",
        hint="create such a folder with `soi train --out`",
    )


def _of_own(folder: Path) -> Subject:
    results, index = open_own(folder)
    names = results.members
    sides = "alone and together" if len(names) > 1 else "alone"
    seeds = f"seed{'s' * (len(results.seeds) > 1)} {', '.join(map(str, results.seeds))}"
    missing = len(index["runs"]) - len(results.runs)
    some = f" {missing} of {len(index['runs'])} runs are missing, or belong to an incomplete seed." if missing else ""
    warned = "".join(f" {sentence[0].upper()}{sentence[1:]}." for sentence in below_words(index))
    return Subject(
        title=f"Training dynamics: {', '.join(names)}",
        lead=f"Trained {sides} for {index['epochs']} epochs from {index['model']}, {seeds}.{some}{warned}",
        note=results.note,
        datasets={
            name: {
                company(setting): [results.run(setting, seed).dynamics(name) for seed in results.seeds]
                for setting in results.settings_with(name)
            }
            for name in names
        },
        texts={m: _texts(training_rows(folder, m)) for m in names if data_file(folder, m).is_file()},
        scores=_scores(results),
        runs=_run_table(results.runs),
        stages=gains(folder),
        decisions=tuple(index.get("decided", [])),
        command=str(index.get("command", "")),
    )


def _of_run(run: StoredRun) -> Subject:
    from soi_lib.data.cache import load

    texts = {}
    for name in run.setting:
        try:
            fingerprint = run.manifest["identity"]["fingerprints"][f"corpus/{name}"]
            texts[name] = _texts(load(name, fingerprint).splits["train"])
        except (SoiError, KeyError):  # the corpus has another version or left the cache: show ids
            continue
    device, precision = run.manifest["machine"]["device"], run.manifest["precision"]
    return Subject(
        title=f"Training dynamics: {' + '.join(run.setting)}",
        lead=f"One run of {' + '.join(run.setting)}, seed {run.seed}.",
        note=f"Run {run.key}, seed {run.seed}, device {device} ({precision})",
        datasets={name: {company(run.setting): [run.dynamics(name)]} for name in run.setting},
        texts=texts,
        runs=_run_table((run,)),
    )


def _of_dynamics(path: Path) -> Subject:
    dynamics = TrainingDynamics.load(path)
    name = dynamics.meta.member or path.stem
    return Subject(
        title=f"Training dynamics: {name}",
        lead=f"{len(dynamics):,} examples over {dynamics.epochs} epochs, from the file {path.name}.",
        note=f"{path.name}, one seed",
        datasets={name: {company(dynamics.meta.setting): [dynamics]}},
    )


def _scores(results: Results) -> pd.DataFrame:
    """Return `score_table` with the column names of the report, and intervals clipped to [0, 1]."""
    import pandas as pd

    from soi_lib.runs.results import score_table

    table = score_table(results)
    return pd.DataFrame(
        {
            "dataset": table["member"],
            "trained": ["alone" if name == "alone" else "together" for name in table["setting"]],
            "split": table["split"].replace({"ood": "OOD"}),
            "n": table["n"],
            "accuracy": table["accuracy"],
            "95 % interval": [f"{a:.3f} to {b:.3f}" for a, b in table[["low", "high"]].clip(0, 1).to_numpy()],
            "macro-F1": table["macro_f1"],
            "majority": table["majority"],
            "bag of words": table["bag_of_words"],
        }
    )


def _texts(rows: Split) -> dict[Any, tuple[str, ...]]:
    parts = [rows.text] if rows.text_pair is None else [rows.text, rows.text_pair]
    return dict(zip(rows.ids, zip(*parts, strict=True), strict=True))


def _run_table(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """Return one row per run and dataset: accuracy and macro-F1 of every split, minutes, and the run's key."""
    import pandas as pd

    rows = []
    for run in runs:
        for name in run.setting:
            metrics = run.metrics[name]
            row = {"dataset": name, "trained": company(run.setting), "seed": run.seed, "train n": metrics["n"]}
            for split in [s for s in metrics if s in ("test", "ood") or s.startswith("ood:")]:
                shown = split.replace("ood", "OOD")
                row |= {f"{shown} accuracy": metrics[split]["accuracy"]}
                row |= {f"{shown} macro-F1": metrics[split]["macro_f1"]}
            rows.append(row | {"minutes": run.manifest["seconds"]["total"] / 60, "run": run.key})
    return pd.DataFrame(rows)


# --- the values of the template --------------------------------------------------------------------------------------


def _page(about: Subject) -> str:
    """Render the report as a self-contained HTML page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from soi_lib.plots import ORDER, SOI_COLORS, show, show_table, soi_bars
    from soi_lib.plots.explorer import explorer_files

    parts = explorer_files({name: _explorer(about, name) for name in about.datasets})
    runs = {
        (name, setting, k): run
        for name, settings in about.datasets.items()
        for setting, of in settings.items()
        for k, run in enumerate(of)
    }
    counts = soi_table(runs, shares=False).groupby(level=[0, 1], sort=False).mean()
    house = Environment(
        loader=PackageLoader("soi_lib", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    page = house.get_template("report.html.j2").render(
        about=about,
        categories=list(SOI),
        hardest_first=ORDER[::-1],
        colors=SOI_COLORS,
        style=parts.pop("explorer.css"),
        scripts=list(parts.values()),
        scores=None if about.scores is None else show_table(about.scores, f"Mean over seeds. {about.note}."),
        runs=None if about.runs is None else show_table(about.runs),
        stages=None if about.stages is None or about.stages.empty else _stages(about.stages),
        left_words=left_words,
        shares=show(soi_bars(counts, note=about.note), dpi=150),
        moves={name: _moves(settings, about.note) for name, settings in about.datasets.items()},
        examples={name: _examples(about, name) for name in about.datasets},
    )
    return page.lstrip()


def _stages(found: pd.DataFrame) -> dict[str, Any]:
    """Return the values of the section on second stages: the rows of `gains` with their case, a figure and a table."""
    import pandas as pd

    from soi_lib.plots import interval_plot, show, show_table
    from soi_lib.plots.style import span

    note = f"Seeds: {span(found['seeds'])}"
    found = found.assign(case=[case(row) for _, row in found.iterrows()])
    varied = [column for column in ("case", "subset") if found[column].nunique() > 1] or ["case"]
    names = [fill(", ".join(parts), 24) for parts in found[varied].to_numpy()]
    drawn = []
    for against in AGAINST:
        columns = {f"over {against}": "value", f"low over {against}": "low", f"high over {against}": "high"}
        part = found[list(columns)].rename(columns=columns)
        drawn.append(part.assign(case=names, measure=f"accuracy gain over {against}"))
    return {
        "rows": found.to_dict("records"),
        "first": found.drop_duplicates(["subset", "setting", "dataset"]).to_dict("records"),
        "figure": show(interval_plot(pd.concat(drawn, ignore_index=True), note=note), dpi=150),
        "table": show_table(pd.DataFrame(gain_table(found)), f"Accuracy, mean over seeds; 95 % intervals. {note}."),
    }


def _explorer(about: Subject, name: str) -> Explorer:
    """Return the explorer of one dataset, with all of its runs."""
    from soi_lib.plots.explorer import Explorer, explorer_data

    single, *together = about.datasets[name].values()
    runs = {f"{side}, seed {run.meta.seed}": run for side, of in about.datasets[name].items() for run in of}
    names = list(runs)
    other = names[len(single) if together else min(1, len(names) - 1)]
    data = explorer_data(runs, about.texts.get(name, {}), first=names[0], second=other)
    return Explorer({name: data}, about.note)


def _moves(settings: Runs, note: str) -> Shown | None:
    """Draw the moves from alone to together beside those between seeds, as far as there are runs; None for one run."""
    from soi_lib.plots import Moves, show, transition_beside_floor, transition_heatmap

    single, *together = settings.values()
    if together and len(single) > 1:
        figure = transition_beside_floor(Moves.of(single, *together), note=note)
    elif together:
        figure = transition_heatmap(mean_transition(zip(single, *together, strict=True)), note=note)
    elif len(single) > 1:
        figure = transition_heatmap(noise_floor(single), note=note, sides=("one seed", "another seed"))
    else:
        return None
    return show(figure, dpi=150)


def _examples(about: Subject, name: str) -> dict[SOI, dict[str, Any]]:
    """Return the most typical examples of each category: text, gold label, and history in the first seed."""
    sides = {side: of[0] for side, of in about.datasets[name].items()}
    first, texts = next(iter(sides.values())), about.texts.get(name, {})
    history = {side: dict(zip(run.ids.tolist(), run.history, strict=True)) for side, run in sides.items()}
    labels = first.meta.label_names or range(first.meta.classes)
    table = data_map(first).assign(label=[labels[gold] for gold in first.gold])
    groups = {}
    for soi in SOI:
        rows = table[table["soi"] == soi]
        rows = rows.sort_values(["confidence", "id"], ascending=[soi is not SOI.ACE, True], kind="stable")
        examples = [
            {
                "id": key,
                "text": " ".join(" | ".join(texts.get(key, ())).split()),
                "label": label,
                "confidence": confidence,
                "histories": {
                    side: history_string(history[side][key], run.epochs)
                    for side, run in sides.items()
                    if key in history[side]
                },
            }
            for key, label, confidence in rows.head(EACH)[["id", "label", "confidence"]].itertuples(index=False)
        ]
        groups[soi] = {"n": len(rows), "share": len(rows) / len(table), "rows": examples}
    return groups
