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
    from soi_lib.runs.results import Results

Runs = Mapping[str, Sequence[TrainingDynamics]]
"""The dynamics of one dataset: for each setting ("alone", "together"), one per seed."""
LONGEST = 400
"""Maximum number of characters of a text in a table; longer texts are cut and end in an ellipsis."""
EACH = 6
"""Number of examples shown for each category."""
_WHY = {
    SOI.UNE: "Never correct; least confident first. Look here for wrong labels, unclear texts and rare cases.",
    SOI.FRGE_2: "Learned and forgotten several times; least confident first. Often unclear cases between two labels.",
    SOI.FRGE_1: "Learned and forgotten once; least confident first.",
    SOI.LLE: "Correct only in the second half of training: hard, but learnable.",
    SOI.ELE: "Wrong at first, then learned early and never forgotten.",
    SOI.ACE: "Correct from the first epoch on; most confident first. The model finds these typical of their label.",
}


@dataclass(frozen=True)
class Subject:
    """The content of a report: the dynamics of each dataset and setting, and everything else known about them.

    `texts` maps ids to texts for each dataset (ids are shown if it is empty). `scores` has one row per dataset, setting
    and split, `runs` one row per run and dataset, and `stages` the gains of second stages (`own_stage.gains`).
    `decisions` are sentences on how the data were read.
    """

    title: str
    lead: str
    note: str
    datasets: dict[str, Runs]
    texts: dict[str, dict[Any, str]] = field(default_factory=dict)
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
        return _of_dynamics(place, TrainingDynamics.load(place))
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
    datasets: dict[str, Runs] = {
        name: {
            company(setting): [results.run(setting, seed).dynamics(name) for seed in results.seeds]
            for setting in results.settings_with(name)
        }
        for name in names
    }
    missing = len(index["runs"]) - len(results.runs)
    some = f" {missing} of {len(index['runs'])} runs are missing, or belong to an incomplete seed."
    warned = "".join(f" {sentence[0].upper()}{sentence[1:]}." for sentence in below_words(index))
    return Subject(
        title=f"Training dynamics: {', '.join(names)}",
        lead=f"{_count(names, 'dataset').capitalize()} ({', '.join(names)}), trained "
        f"{'alone and together' if len(names) > 1 else 'alone'} for {index['epochs']} epochs from "
        f"{index['model']}, {_count(results.seeds, 'seed')}.{some if missing else ''}{warned}",
        note=results.note,
        datasets=datasets,
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


def _of_dynamics(path: Path, dynamics: TrainingDynamics) -> Subject:
    name = dynamics.meta.member or path.stem
    return Subject(
        title=f"Training dynamics: {name}",
        lead=f"{len(dynamics):,} examples over {dynamics.epochs} epochs, from the file {path.name}.",
        note=f"{path.name}, one seed",
        datasets={name: {company(dynamics.meta.setting): [dynamics]}},
    )


def _scores(results: Results) -> pd.DataFrame:
    """Return `score_table` with the column names of the report, and intervals clipped to [0, 1]."""
    from soi_lib.runs.results import score_table

    table = score_table(results)
    low, high = table["low"].clip(0, 1), table["high"].clip(0, 1)
    columns = {"member": "dataset", "setting": "trained", "macro_f1": "macro-F1", "bag_of_words": "bag of words"}
    shown = table.drop(columns=["low", "high", "loss"]).rename(columns=columns)
    shown["trained"] = ["alone" if name == "alone" else "together" for name in shown["trained"]]
    shown["split"] = shown["split"].replace({"ood": "OOD"})
    interval = [f"{a:.3f} to {b:.3f}" for a, b in zip(low, high, strict=True)]
    shown.insert(list(shown.columns).index("accuracy") + 1, "95 % interval", interval)
    return shown


def _texts(rows: Split) -> dict[Any, str]:
    """Return the texts by id; the two texts of a pair are joined."""
    if rows.text_pair is None:
        return dict(zip(rows.ids, rows.text, strict=True))
    return {i: f"{a}  |  {b}" for i, a, b in zip(rows.ids, rows.text, rows.text_pair, strict=True)}


def _count(things: Sequence[Any], word: str) -> str:
    numbers = ("no", "one", "two", "three", "four", "five", "six")
    n = len(things)
    return f"{numbers[n] if n < len(numbers) else n} {word}{'' if n == 1 else 's'}"


def _run_table(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """Return one row per run and dataset: accuracy and macro-F1 of every split, minutes, and the run's key."""
    import pandas as pd

    rows = []
    for run in runs:
        for name in run.setting:
            metrics = run.metrics[name]
            row: dict[str, Any] = {"dataset": name, "trained": company(run.setting)}
            row |= {"seed": run.seed, "train n": metrics["n"]}
            for split in [s for s in metrics if s in ("test", "ood") or s.startswith("ood:")]:
                shown = split.replace("ood", "OOD")
                row |= {f"{shown} accuracy": metrics[split]["accuracy"]}
                row |= {f"{shown} macro-F1": metrics[split]["macro_f1"]}
            row |= {"minutes": run.manifest["seconds"]["total"] / 60, "run": run.key}
            rows.append(row)
    return pd.DataFrame(rows)


# --- the values of the template --------------------------------------------------------------------------------------


def _page(about: Subject) -> str:
    """Render the report as a self-contained HTML page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from soi_lib.plots import SOI_COLORS, show, show_table, soi_bars
    from soi_lib.plots.explorer import explorer_files

    parts = explorer_files({name: _explorer(about, name) for name in about.datasets})
    environment = Environment(
        loader=PackageLoader("soi_lib", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return (
        environment.get_template("report.html.j2")
        .render(
            about=about,
            categories=list(SOI),
            colors=SOI_COLORS,
            style=parts.pop("explorer.css"),
            scripts=list(parts.values()),
            scores=None if about.scores is None else show_table(about.scores, f"Mean over seeds. {about.note}.").markup,
            runs=None if about.runs is None else show_table(about.runs, "").markup,
            stages=None if about.stages is None or about.stages.empty else _stages(about.stages),
            shares=show(soi_bars(_shares(about.datasets), note=about.note), dpi=150).markup,
            datasets=[
                {
                    "name": name,
                    "together": len(settings) > 1,
                    "seeds": len(next(iter(settings.values()))),
                    "moves": _moves(settings, about.note),
                    "groups": _examples(settings, about.texts.get(name, {})),
                }
                for name, settings in about.datasets.items()
            ],
        )
        .lstrip()
    )


def _stages(found: pd.DataFrame) -> dict[str, Any]:
    """Return the section on second stages: what was left to learn, gains over controls (figure, table), and advice."""
    import pandas as pd

    from soi_lib.plots import interval_plot, show, show_table
    from soi_lib.plots.style import span

    note = f"Seeds: {span(found['seeds'])}"
    cases = [(case(row), str(row["subset"])) for _, row in found.iterrows()]
    varied = [names for names in zip(*cases, strict=True) if len(set(names)) > 1] or [tuple(name for name, _ in cases)]
    names = [fill(", ".join(parts), 24) for parts in zip(*varied, strict=True)]
    drawn = [
        {"case": name, "measure": f"accuracy gain over {against}", "value": row[f"over {against}"]}
        | {end: row[f"{end} over {against}"] for end in ("low", "high")}
        for against in AGAINST
        for name, (_, row) in zip(names, found.iterrows(), strict=True)
    ]
    return {
        "left": [
            f"{row['subset']}, {case(row).rpartition(',')[0]}: {row['examples']:.0f} examples. "
            f"{left_words(row['left before'])}. After the second stage it is {row['left after']:.0%}."
            for _, row in found.drop_duplicates(["subset", "setting", "dataset"]).iterrows()
        ],
        "figure": show(interval_plot(pd.DataFrame(drawn), note=note), dpi=150).markup,
        "table": show_table(
            pd.DataFrame(gain_table(found)), f"Accuracy, mean over seeds; 95 % intervals. {note}."
        ).markup,
        "advice": [f"{row['subset']}, {case(row)}: {row['advice']}" for _, row in found.iterrows()],
    }


def _shares(datasets: Mapping[str, Runs]) -> pd.DataFrame:
    """Return the counts of the six categories by (dataset, setting), averaged over seeds, for `soi_bars`."""
    runs = {
        (name, setting, number): run
        for name, settings in datasets.items()
        for setting, held in settings.items()
        for number, run in enumerate(held)
    }
    return soi_table(runs, shares=False).groupby(level=[0, 1], sort=False).mean()


def _explorer(about: Subject, name: str) -> Explorer:
    """Return the explorer of one dataset, with all of its runs."""
    from soi_lib.plots.explorer import Explorer, explorer_data

    settings = about.datasets[name]
    runs = {f"{setting}, seed {run.meta.seed}": run for setting, of in settings.items() for run in of}
    names = list(runs)
    other = names[-len(settings[list(settings)[-1]])] if len(settings) > 1 else names[min(1, len(names) - 1)]
    texts = {key: (text,) for key, text in about.texts.get(name, {}).items()}
    return Explorer({name: explorer_data(runs, texts, first=names[0], second=other)}, about.note)


def _moves(settings: Runs, note: str) -> str:
    """Draw the moves from alone to together beside those between seeds, as far as there are runs; "" for one run."""
    from soi_lib.plots import Moves, show, transition_beside_floor, transition_heatmap

    single, *others = settings.values()
    if others and len(single) > 1:
        figure = transition_beside_floor(Moves.of(single, others[-1]), note=note)
    elif others:
        figure = transition_heatmap(mean_transition(zip(single, others[-1], strict=True)), note=note)
    elif len(single) > 1:
        figure = transition_heatmap(noise_floor(single), note=note, sides=("one seed", "another seed"))
    else:
        return ""
    return show(figure, dpi=150).markup


def _examples(settings: Runs, texts: Mapping[Any, str]) -> list[dict[str, Any]]:
    """Return the most typical examples of each category: text, gold label, and history in the first seed."""
    names, runs = list(settings), [of[0] for of in settings.values()]
    sides = {names[0]: runs[0], names[-1]: runs[-1]}
    table, labels = data_map(runs[0]), runs[0].meta.label_names
    gold = dict(zip(runs[0].ids.tolist(), runs[0].gold.tolist(), strict=True))
    history = {side: dict(zip(run.ids.tolist(), run.history, strict=True)) for side, run in sides.items()}
    groups = []
    for soi, why in _WHY.items():
        rows = table[table["soi"] == soi]
        rows = rows.sort_values(["confidence", "id"], ascending=[soi is not SOI.ACE, True], kind="stable")
        if rows.empty:
            continue
        examples = [
            {
                "id": key,
                "text": _cut(texts[key]) if key in texts else None,
                "label": labels[gold[key]] if labels else gold[key],
                "confidence": confidence,
                "histories": [
                    _squares(history[side][key], run.epochs, side if len(sides) > 1 else "")
                    for side, run in sides.items()
                    if key in history[side]
                ],
            }
            for key, confidence in rows.head(EACH)[["id", "confidence"]].itertuples(index=False)
        ]
        groups.append(
            {
                "soi": soi,
                "words": soi.description.partition(":")[0],
                "why": why,
                "open": soi in (SOI.UNE, SOI.FRGE_2),
                "n": len(rows),
                "share": len(rows) / len(table),
                "rows": examples,
            }
        )
    return groups


def _squares(history: Any, epochs: int, side: str) -> dict[str, str]:
    """Describe a history as small squares and in words."""
    squares = history_string(history, epochs)
    label = f"{side + ': ' if side else ''}correct in {squares.count('■')} of {epochs} epochs"
    return {"squares": squares, "label": label, "side": side}


def _cut(text: str) -> str:
    """Put a text on one line and cut it to `LONGEST` characters."""
    short = " ".join(text[: 4 * LONGEST].split())
    return short if len(text) <= LONGEST and len(short) <= LONGEST else short[: LONGEST - 1] + "…"
