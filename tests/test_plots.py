"""Figures: they draw the values they are given, labels are readable, and nothing is cut off."""

import html
import json
import re
from collections.abc import Callable
from itertools import combinations

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from synthetic import learn

from paper.figures import example_histories, histories_figure, verdict_strip
from soi_lib import plots
from soi_lib.analysis.datamap import data_map
from soi_lib.analysis.soi import SOI, categorize, soi_shares
from soi_lib.analysis.transitions import transition_matrix
from soi_lib.dynamics import TrainingDynamics
from soi_lib.errors import FormatError
from soi_lib.plots import ORDER, SOI_COLORS, Moves
from soi_lib.plots.explorer import Explorer, explorer_data, explorer_files
from soi_lib.plots.style import LONG_NAMES, first_sentence

matplotlib.use("Agg")
NAMES = [s.name for s in ORDER]
Runs = dict[str, list[list[TrainingDynamics]]]


@pytest.fixture(scope="module")
def runs() -> Runs:
    return {
        name: [[learn(300, 8, member=name, corpus=k, seed=s + 9 * g, gain=1.3 + g) for s in range(3)] for g in (0, 1)]
        for k, name in enumerate(("tweets", "movie"))
    }


@pytest.fixture(scope="module")
def panels(runs: Runs) -> dict[str, Moves]:
    return {name: Moves.of(*sides) for name, sides in runs.items()}


@pytest.fixture(scope="module")
def counts(runs: Runs) -> pd.DataFrame:
    return transition_matrix(runs["tweets"][0][0], runs["tweets"][1][0])


def shares_table() -> pd.DataFrame:
    rows = {
        (member, setting): soi_shares(categorize(learn(200, 6, corpus=i, seed=j, gain=1.2 + j)))
        for i, member in enumerate(("tweets", "movie"))
        for j, setting in enumerate(("alone", "all"))
    }
    return pd.DataFrame(rows).T


def drawn_texts(figure: Figure) -> list[tuple[Text, Bbox]]:
    """Return every visible text with its box in pixels; labels of ticks outside their axis are hidden."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    hidden = set()
    for ax in figure.axes:
        for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            for tick in axis.get_major_ticks():
                if not min(limits) <= tick.get_loc() <= max(limits):
                    hidden |= {tick.label1, tick.label2}
        if not ax.axison:
            hidden |= {*ax.get_xticklabels(), *ax.get_yticklabels()}
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in hidden]
    return [(t, t.get_window_extent(renderer)) for t in texts]


def overlapping_labels(texts: list[tuple[Text, Bbox]]) -> list[tuple[str, str]]:
    """Return pairs of overlapping texts. Slanted ones are left out: their boxes are larger than their ink."""
    boxes = [(text.get_text(), box.padded(-2)) for text, box in texts if text.get_rotation() % 90 == 0]
    return [(a, b) for (a, left), (b, right) in combinations(boxes, 2) if left.overlaps(right) and left.width > 0]


def bars(figure: Figure, axis: int = 0) -> dict[float, list[Rectangle]]:
    """Return the rectangles of an axis by the middle of their row."""
    rows: dict[float, list[Rectangle]] = {}
    for patch in figure.axes[axis].patches:
        assert isinstance(patch, Rectangle)
        rows.setdefault(round(patch.get_y() + patch.get_height() / 2, 6), []).append(patch)
    return dict(sorted(rows.items()))


def lab(linear: np.ndarray) -> np.ndarray:
    """Convert linear RGB to CIELAB, in which distances are as large as they look."""
    m = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(m) @ linear / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


# linear RGB as seen without long-, middle- or short-wave cones (Machado et al. 2009, severity 1)
VISIONS = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


@pytest.mark.parametrize("vision", VISIONS)
def test_category_colours_differ_for_colour_blind_readers(vision: str) -> None:
    seen = []
    for soi in ORDER:
        rgb = np.array(to_rgb(SOI_COLORS[soi]))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        seen.append(lab(np.clip(np.array(VISIONS[vision]) @ linear, 0, 1)))
    for a, b in combinations(range(6), 2):
        assert np.linalg.norm(seen[a] - seen[b]) > 14, (ORDER[a], ORDER[b])


def curves(runs: Runs) -> pd.DataFrame:
    rows = []
    for name, sides in runs.items():
        for setting, side in zip(("alone", "together"), sides, strict=True):
            for seed, run in enumerate(side):
                frame = {"epoch": np.arange(1, run.epochs + 1), "accuracy": run.correct.mean(axis=1), "split": "train"}
                rows.append(pd.DataFrame({"dataset": name, "setting": setting, "seed": seed, **frame}))
    return pd.concat(rows, ignore_index=True)


def by_setting() -> pd.DataFrame:
    table = pd.DataFrame({"dataset": ["tweets", "tweets", "movie", "movie"], "setting": ["single", "all"] * 2})
    value = np.array([0.71, 0.78, 0.66, 0.65])
    return table.assign(value=value, low=value - 0.02, high=value + 0.02)


def repeated() -> pd.DataFrame:
    seeds = np.arange(1, 11)
    rows = [{"score": name, "seeds": seeds, "agreement": seeds * r / (1 + (seeds - 1) * r)}
            for name, r in (("confidence", 0.6), ("variability", 0.3))]  # fmt: skip
    return pd.concat(map(pd.DataFrame, rows), ignore_index=True)


def intervals() -> pd.DataFrame:
    rows = [("first", "gain", 0.1, 0.05, 0.2), ("second, of a longer name", "gain", 0.01, -0.05, 0.05),
            ("first", "another measure with a long name", -0.1, -0.2, -0.05),
            ("second, of a longer name", "another measure with a long name", np.nan, np.nan, np.nan)]  # fmt: skip
    return pd.DataFrame(rows, columns=["case", "measure", "value", "low", "high"])


FIGURES: dict[str, Callable[[Runs, dict[str, Moves]], Figure]] = {
    "soi_bars": lambda r, _: plots.soi_bars(shares_table(), title="Sources", note="n"),
    "interval_plot": lambda r, _: plots.interval_plot(intervals(), title="Gains", note="n"),
    "data_map_plot": lambda r, _: plots.data_map_plot({"alone": r["movie"][0][0]}, title="movie", note="n"),
    "data_map_plot, categories": lambda r, _: plots.data_map_plot(dict(enumerate(r["movie"][0])), color="soi"),
    "transition_heatmap": lambda r, t: plots.transition_heatmap(t["movie"].transition, title="movie", note="n"),
    "transition_beside_floor": lambda r, t: plots.transition_beside_floor(t["tweets"], title="tweets", note="n"),
    "transition_panels": lambda r, t: plots.transition_panels(t, title="Sources", note="n"),
    "flow_plot": lambda r, t: plots.flow_plot(t["movie"].transition, title="movie", note="n"),
    "flow_beside_floor": lambda r, t: plots.flow_beside_floor(t["movie"], title="movie", note="n"),
    "training_curves": lambda r, _: plots.training_curves(curves(r), title="Sources", note="n"),
    "gain_curves": lambda r, _: plots.gain_curves(by_setting(), "setting", title="Sources", note="n"),
    "reliability_curves": lambda r, _: plots.reliability_curves(repeated(), title="Confidence", note="n"),
    "verdict_strip": lambda r, _: verdict_strip({"C1": "supported", "C2": "not tested (one seed)"}),
    "histories_figure": lambda r, _: histories_figure(),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_readable_and_gives_its_values(name: str, runs: Runs, panels: dict[str, Moves]) -> None:
    figure = FIGURES[name](runs, panels)
    texts = drawn_texts(figure)
    page = figure.bbox.padded(1)
    assert [text for text, box in texts if not all(page.contains(*corner) for corner in box.corners())] == []
    assert figure.get_figwidth() <= 5.2  # inches: a wider figure is unreadable on a phone
    assert overlapping_labels(texts) == []
    assert min(t.get_fontsize() for t in figure.findobj(Text) if t.get_text()) >= 8  # 7.5 pixels on a phone
    assert len(plots.values(figure)) > 1
    text = plots.caption(figure)
    assert text.endswith(".")
    assert len(first_sentence(text)) > 40
    assert plt.get_fignums() == []
    assert html.unescape(re.search(r'alt="([^"]*)"', plots.show(figure, dpi=60).markup)[1]) == first_sentence(text)


def test_the_same_html_every_time_and_nothing_global_changes() -> None:
    before = dict(matplotlib.rcParams)
    first, again = (plots.show(plots.soi_bars(shares_table(), note='A "note" <b>'), dpi=60).markup for _ in range(2))
    assert first == again
    assert "&lt;b&gt;" in first
    with pytest.raises(FormatError, match="no column"):
        plots.soi_bars(pd.DataFrame({"UNE": [1.0]}))
    assert dict(matplotlib.rcParams) == before


def test_bars_are_as_long_as_the_shares() -> None:
    table = shares_table()
    figure = plots.soi_bars(table, note="Profile quick, seed 0")
    pd.testing.assert_frame_equal(plots.values(figure), table[NAMES], check_names=False)
    for axis, member in enumerate(("tweets", "movie")):
        for patches, (_, shares) in zip(bars(figure, axis).values(), table.loc[member].iterrows(), strict=True):
            widths = [p.get_width() for p in sorted(patches, key=lambda p: p.get_x())]
            np.testing.assert_allclose(widths, [shares[name] for name in NAMES], atol=1e-12)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["alone", "all"]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == list(LONG_NAMES.values())
    assert plots.caption(figure).endswith("Profile quick, seed 0.")


def test_points_are_filled_if_the_interval_excludes_zero() -> None:
    figure = plots.interval_plot(intervals())
    filled = {line.get_xdata()[0]: line.get_markerfacecolor() for ax in figure.axes for line in ax.lines
              if line.get_marker() == "o" and len(line.get_xdata())}  # fmt: skip
    assert filled == {0.1: "#0072B2", 0.01: "white", -0.1: "#D55E00"}
    assert "Of 3 intervals, 1 are above zero and 1 below." in plots.caption(figure)
    with pytest.raises(FormatError, match="no rows"):
        plots.interval_plot(intervals().assign(low=np.nan))


def cells(figure: Figure, axis: int) -> list[list[str]]:
    texts = [t.get_text() for t in figure.axes[axis].texts]
    return [texts[i : i + 6] for i in range(0, 36, 6)]


def frames(figure: Figure, axis: int) -> set[tuple[int, int]]:
    patches = [p for p in figure.axes[axis].patches if isinstance(p, Rectangle)]
    return {(round(p.get_y() - 0.05), round(p.get_x() - 0.05)) for p in patches}


def test_heatmap_shows_row_percentages_and_totals(counts: pd.DataFrame) -> None:
    figure = plots.transition_heatmap(counts, title="tweets: alone to all")
    ordered = counts.loc[NAMES, NAMES]
    totals = ordered.sum(axis=1)
    shares = ordered.div(totals.where(totals >= 5), axis=0)
    expected = [["–" if np.isnan(v) else f"{v * 100:.0f}" for v in row] for row in shares.to_numpy()]
    assert cells(figure, 0) == expected
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == NAMES
    assert figure.axes[0].get_yticklabels()[0].get_text() == f"ACE ({totals['ACE']})"
    assert figure.axes[0].get_ylabel() == "alone (from)"
    assert f"Of 300 examples, {np.trace(counts.to_numpy()) / 3:.0f} % stay" in plots.caption(figure)
    pd.testing.assert_frame_equal(plots.values(figure), ordered)


def test_moves_beyond_the_floor_are_framed_from_three_seeds_on(runs: Runs, panels: dict[str, Moves]) -> None:
    marked = panels["tweets"].table("beyond").to_numpy()
    expected = {(int(i), int(j)) for i, j in zip(*np.nonzero(marked), strict=True)}
    assert expected
    figure = plots.transition_beside_floor(panels["tweets"])
    assert (frames(figure, 0), frames(figure, 1)) == (set(), expected)
    assert f"{len(expected)} moves are beyond chance" in plots.caption(figure)
    two = plots.transition_beside_floor(Moves.of(*(side[:2] for side in runs["tweets"])))
    assert frames(two, 1) == set()
    assert "Detecting moves beyond chance takes 3 seeds per setting" in plots.caption(two)


def test_flow_bands_have_the_width_of_moves_and_colour_beyond_the_floor(counts: pd.DataFrame) -> None:
    figure = plots.flow_plot(counts)
    bands = [p for p in figure.axes[0].patches if isinstance(p, PathPatch)]
    widths = sorted(float(b.get_path().vertices[7, 1] - b.get_path().vertices[0, 1]) for b in bands)
    np.testing.assert_allclose(widths, np.sort(counts.to_numpy()[counts.to_numpy() > 0]) / 300, atol=1e-9)
    assert len({b.get_facecolor() for b in bands}) == 1
    beyond = counts.astype(bool) & False
    beyond.loc["ELE", "ACE"] = True
    above, below = plots.flow_beside_floor(Moves(counts, counts, beyond, n=300, seeds=3)).axes
    colors = [[b.get_facecolor()[:3] for b in ax.patches if isinstance(b, PathPatch)] for ax in (above, below)]
    assert to_rgb(SOI_COLORS[SOI.ELE]) not in colors[0]
    assert colors[1].count(to_rgb(SOI_COLORS[SOI.ELE])) == 1


@pytest.mark.parametrize("color", ["correctness", "soi"])
def test_maps_show_every_example(runs: Runs, color: str) -> None:
    single, multi = (side[0] for side in runs["tweets"])
    figure = plots.data_map_plot({"alone": single, "together": data_map(multi)}, color=color, title="tweets")
    for ax, run in zip(figure.axes, (single, multi), strict=False):
        points = np.concatenate([np.asarray(c.get_offsets()) for c in ax.collections if isinstance(c, PathCollection)])
        table = data_map(run)
        expected = table[["variability", "confidence"]].to_numpy()
        np.testing.assert_allclose(points[np.lexsort(points.T)], expected[np.lexsort(expected.T)])
        assert ax.get_xlabel() == "variability of p(gold)"
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()
    assert len(plots.values(figure)) == len(single) + len(multi)


@pytest.mark.parametrize(("epochs", "early"), [(6, 0.5), (20, 0.3)])
def test_example_histories_have_their_category(epochs: int, early: float) -> None:
    drawn = example_histories(epochs, early)
    codes = categorize(np.stack([drawn[s] for s in SOI], axis=1), early)
    assert codes.tolist() == [0, 1, 2, 3, 4, 5]
    filled = [p for p in histories_figure(epochs, early).axes[0].patches if to_rgb(p.get_facecolor()) != (1, 1, 1)]
    assert len(filled) == sum(int(history.sum()) for history in drawn.values())


def test_explorer_files_keep_texts_and_contain_no_markup_from_them(runs: Runs) -> None:
    single = runs["tweets"][0][0]
    hostile = "</script><script>alert(1)</script> <img src=x onerror=alert(1)> & \u2028 \ud800"
    data = explorer_data({"alone": single}, {single.ids[0]: (hostile,)}, first="alone", second="alone")
    files = explorer_files({"source": Explorer({"tweets": data}, "A note")}, "7")
    assert list(files) == ["explorer.css", "index.js", "source-tweets.js", "plotly.min.js", "explorer.js"]
    script = files["source-tweets.js"]
    assert "<" not in script
    name, _, body = script.removeprefix("soiLook.put(").partition(",")
    assert json.loads(name) == "source-tweets"
    assert json.loads(body.removesuffix(");\n"))["text"][0] == hostile.replace("\ud800", "?")
    assert all(json.dumps(name) in files["index.js"] for name in NAMES)
    assert "</" not in files["explorer.js"].replace("<\\/", "")  # inlined into a page unescaped
