"""One page of a training, for a browser and for somebody else: `soi report`.

What is special: the page is one file. Pictures, styles and the plotting script are inside, and a content policy in its
head forbids it to load anything, so that it can be opened from a disk, mailed, and read in ten years. What it says
is in `report.html.j2` beside this module. Texts are data from elsewhere: the template escapes every one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from soi_lib import files
from soi_lib.analysis.datamap import data_map
from soi_lib.analysis.soi import SOI, categorize, history_string, soi_counts
from soi_lib.analysis.transitions import mean_transition, noise_floor
from soi_lib.dynamics import TrainingDynamics
from soi_lib.errors import OutputExistsError, SoiError
from soi_lib.runs.own_folder import below_words, data_file, is_own, open_own, training_rows
from soi_lib.runs.own_stage import AGAINST, case, gain_table, gains, left_words
from soi_lib.runs.store import MANIFEST, StoredRun, open_run

if TYPE_CHECKING:
    import pandas as pd

    from soi_lib.data.dataset import Split
    from soi_lib.plots.explorer import Explorer
    from soi_lib.runs.results import Results

Runs = Mapping[str, Sequence[TrainingDynamics]]
"""The dynamics of one dataset by setting ("alone", "together"), a list over seeds."""
LONGEST = 400
"""Characters of a text in a table; longer ones are cut, and say so."""
EACH = 6
"""Examples to look at in each category."""
_WHY = {
    SOI.UNE: "Never right, least sure first. Wrong labels, unclear rows and rare cases gather here.",
    SOI.FRGE_2: "Learned and lost several times, least sure first: unclear cases, often between two labels.",
    SOI.FRGE_1: "Learned and lost once, least sure first.",
    SOI.LLE: "Right only in the second half of training: hard, but learnable.",
    SOI.ELE: "Wrong at first, then right and kept.",
    SOI.ACE: "Right from the first epoch on, surest first: what the model finds typical of the label.",
}


@dataclass(frozen=True)
class Subject:
    """What a page is about: dynamics by dataset and setting, and around them whatever is known of them.

    `texts` holds text by id for each dataset (nothing: ids are shown). `scores` has a row a dataset, setting and split,
    `runs` a row a run, `stages` what second stages gained (`own_stage.gains`); `decisions` are sentences on how the
    data were read.
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
    """Write the page of `place` (a folder of soi train, a run's folder, a dynamics file); return where it is.

    `out` is report.html in a folder of soi train, else NAME-report.html in the working folder. Raises
    OutputExistsError unless `force`, and a SoiError for whatever is damaged, unfinished, or no such thing.
    """
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
    files.write_text(target, _page(subject(place)), overwrite=force)
    return target


# --- what the page is about ------------------------------------------------------------------------------------------


def subject(place: str | Path) -> Subject:
    """What is at `place`. Raises SoiError."""
    place = Path(place)
    if not place.exists():
        raise SoiError("no such file or folder", where=place, hint="give a folder that soi train made")
    if place.is_file():
        return _of_dynamics(place, TrainingDynamics.load(place))
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
    names = results.members
    datasets: dict[str, Runs] = {
        name: {
            _setting(setting): [results.run(setting, seed).dynamics(name) for seed in results.seeds]
            for setting in results.settings_with(name)
        }
        for name in names
    }
    missing = len(index["runs"]) - len(results.runs)
    some = f" {missing} of {len(index['runs'])} runs are not done, or belong to a seed that is not complete."
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
        except (SoiError, KeyError):  # a corpus of another version, or no longer in the cache: ids must do
            continue
    return Subject(
        title=f"Training dynamics: {' + '.join(run.setting)}",
        lead=f"One run of {' + '.join(run.setting)}, seed {run.seed}.",
        note=f"Run {run.key}, seed {run.seed}, device {run.manifest['machine']['device']}",
        datasets={name: {_setting(run.setting): [run.dynamics(name)]} for name in run.setting},
        texts=texts,
        runs=_run_table((run,)),
    )


def _of_dynamics(path: Path, dynamics: TrainingDynamics) -> Subject:
    name = dynamics.meta.member or path.stem
    return Subject(
        title=f"Training dynamics: {name}",
        lead=f"{len(dynamics):,} examples over {dynamics.epochs} epochs, from the file {path.name}.",
        note=f"{path.name}, one seed",
        datasets={name: {_setting(dynamics.meta.setting): [dynamics]}},
    )


def _setting(setting: Sequence[str]) -> str:
    return "together" if len(setting) > 1 else "alone"


def _scores(results: Results) -> pd.DataFrame:
    """`score_table` as the page calls things, with intervals that stay between 0 and 1."""
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
    """The texts by id, both sides of a pair."""
    if rows.text_pair is None:
        return dict(zip(rows.ids, rows.text, strict=True))
    return {i: f"{a}  |  {b}" for i, a, b in zip(rows.ids, rows.text, rows.text_pair, strict=True)}


def _count(things: Sequence[Any], word: str) -> str:
    numbers = ("no", "one", "two", "three", "four", "five", "six")
    n = len(things)
    return f"{numbers[n] if n < len(numbers) else n} {word}{'' if n == 1 else 's'}"


def _run_table(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """A row a run and dataset: accuracy and macro-F1 of every split, minutes, folder."""
    import pandas as pd

    rows = []
    for run in runs:
        for name in run.setting:
            metrics = run.metrics[name]
            row: dict[str, Any] = {"dataset": name, "trained": _setting(run.setting)}
            row |= {"seed": run.seed, "train n": metrics["n"]}
            for split in [s for s in metrics if s in ("test", "ood") or s.startswith("ood:")]:
                shown = split.replace("ood", "OOD")
                row |= {f"{shown} accuracy": metrics[split]["accuracy"]}
                row |= {f"{shown} macro-F1": metrics[split]["macro_f1"]}
            row |= {"minutes": run.manifest["seconds"]["total"] / 60, "run": run.key}
            rows.append(row)
    return pd.DataFrame(rows)


# --- what the template shows -----------------------------------------------------------------------------------------


def _page(about: Subject) -> str:
    """The whole page as HTML: one file that loads nothing."""
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
            stages=None if about.stages is None or about.stages.empty else _stages(about.stages, about.note),
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


def _stages(found: pd.DataFrame, note: str) -> dict[str, Any]:
    """What second stages gained: what was left to learn, gains and controls as a picture and a table, and advice."""
    import pandas as pd

    from soi_lib.plots import interval_plot, show, show_table

    cases = [(case(row), str(row["subset"])) for _, row in found.iterrows()]
    varied = [names for names in zip(*cases, strict=True) if len(set(names)) > 1] or [tuple(name for name, _ in cases)]
    names = [fill(", ".join(parts), 24) for parts in zip(*varied, strict=True)]
    drawn = [
        {"case": name, "measure": f"accuracy over {against}", "value": row[f"over {against}"]}
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
    """Counts of the six categories by (dataset, setting), mean over seeds, as `soi_lib.plots.soi_bars` takes them."""
    import pandas as pd

    rows = {
        (name, setting): np.mean([list(soi_counts(categorize(run)).values()) for run in runs], axis=0)
        for name, settings in datasets.items()
        for setting, runs in settings.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=[soi.name for soi in SOI])
    table.index = pd.MultiIndex.from_tuples(list(rows), names=["member", "setting"])
    return table


def _explorer(about: Subject, name: str) -> Explorer:
    """The explorer of one dataset: all of its runs by setting and seed."""
    from soi_lib.plots.explorer import Explorer, explorer_data

    settings = about.datasets[name]
    runs = {f"{setting}, seed {run.meta.seed}": run for setting, of in settings.items() for run in of}
    names = list(runs)
    other = names[-len(settings[list(settings)[-1]])] if len(settings) > 1 else names[min(1, len(names) - 1)]
    texts = {key: (text,) for key, text in about.texts.get(name, {}).items()}
    return Explorer({name: explorer_data(runs, texts, first=names[0], second=other)}, about.note)


def _moves(settings: Runs, note: str) -> str:
    """From alone to together, beside what moves between seeds; with one setting only the latter; empty with one run."""
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
    """For each category the examples that show it best: text, gold label, and history in the first seed."""
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
    """A history as small squares, and in words."""
    squares = history_string(history, epochs)
    label = f"{side + ': ' if side else ''}right in {squares.count('■')} of {epochs} epochs"
    return {"squares": squares, "label": label, "side": side}


def _cut(text: str) -> str:
    """A text in one line, not too long."""
    short = " ".join(text[: 4 * LONGEST].split())
    return short if len(text) <= LONGEST and len(short) <= LONGEST else short[: LONGEST - 1] + "…"
