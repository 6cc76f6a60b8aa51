"""Figures: what is drawn is what was given, every axis has a name, and nothing is cut off."""

from __future__ import annotations

import html
import json
import re
from itertools import combinations, pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from synthetic import learn

from soi_lib.analysis.datamap import data_map
from soi_lib.analysis.excess import excess_transition
from soi_lib.analysis.soi import SOI, categorize, soi_counts, soi_shares
from soi_lib.analysis.transitions import mean_transition, transition_matrix
from soi_lib.dynamics import TrainingDynamics
from soi_lib.errors import AlignmentError, FormatError
from soi_lib.plots import (
    ORDER,
    SOI_COLORS,
    SOI_HATCHES,
    accuracy_bars,
    caption,
    data_map_plot,
    flow_plot,
    histories_figure,
    show,
    soi_bars,
    story_figure,
    transition_heatmap,
    transition_panels,
)
from soi_lib.plots.explorer import flow_sankey, interactive_html, interactive_map, write_page, write_plotly_js
from soi_lib.plots.maps import MOST_POINTS, example_histories
from soi_lib.plots.style import first_sentence, ink, percent

matplotlib.use("Agg")
LABELS = [s.label for s in ORDER]


@pytest.fixture(scope="module")
def single() -> TrainingDynamics:
    return learn(300, 8)


@pytest.fixture(scope="module")
def multi() -> TrainingDynamics:
    return learn(300, 8, seed=4, gain=2.2)


def counted(dyn: TrainingDynamics) -> dict[str, int]:
    return soi_counts(categorize(dyn))


def shares_table(
    members: tuple[str, ...] = ("tweets", "movie"), settings: tuple[str, ...] = ("alone", "all")
) -> pd.DataFrame:
    rows = {
        (m, s): soi_shares(categorize(learn(200, 6, corpus=i, seed=j, gain=1.2 + j)))
        for i, m in enumerate(members)
        for j, s in enumerate(settings)
    }
    return pd.DataFrame(rows).T


def nothing_is_cut_off(figure: Figure) -> None:
    """Every text lies inside the picture, and the picture is no wider than a column of the book."""
    width, height = figure.get_size_inches() * figure.dpi
    for text, box in drawn_texts(figure):
        assert box.x0 >= -1, text
        assert box.x1 <= width + 1, text
        assert box.y0 >= -1, text
        assert box.y1 <= height + 1, text
    assert figure.get_figwidth() <= 7.5  # inches


def drawn_texts(figure: Figure, upright: bool = False) -> list[tuple[str, Bbox]]:
    """Every text with its box in pixels; without the labels of ticks that lie outside their axis.

    The box of a slanted text is larger than its ink, so with `upright` those are left out.
    """
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
    texts = [t for t in texts if not upright or t.get_rotation() % 90 == 0]
    return [(t.get_text(), t.get_window_extent(renderer)) for t in texts]


def overlapping_labels(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts of one figure that lie on top of each other."""
    boxes = [(text, box.padded(-2)) for text, box in drawn_texts(figure, upright=True)]
    return [(a, b) for (a, left), (b, right) in combinations(boxes, 2) if left.overlaps(right) and left.width > 0]


def bars(figure: Figure, axis: int = 0) -> dict[float, list[Rectangle]]:
    """Rectangles of an axis by the middle of their row, from left to right."""
    rows: dict[float, list[Rectangle]] = {}
    for patch in figure.axes[axis].patches:
        assert isinstance(patch, Rectangle)
        rows.setdefault(round(patch.get_y() + patch.get_height() / 2, 6), []).append(patch)
    return dict(sorted(rows.items()))


# --- colours and words -----------------------------------------------------------------------------------------------


def lab(rgb: np.ndarray) -> np.ndarray:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    m = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(m) @ linear / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


# how colours look without long-, middle- or short-wave cones (matrices of Machado et al. 2009, severity 1)
VISIONS = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


@pytest.mark.parametrize("vision", VISIONS)
def test_neighbouring_colours_differ_for_everybody(vision: str) -> None:
    seen = []
    for soi in ORDER:
        rgb = np.array(to_rgb(SOI_COLORS[soi]))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        out = np.clip(np.array(VISIONS[vision]) @ linear, 0, 1)
        seen.append(lab(np.where(out <= 0.0031308, out * 12.92, 1.055 * out ** (1 / 2.4) - 0.055)))
    for a, b in combinations(range(6), 2):
        assert np.linalg.norm(seen[a] - seen[b]) > 14, (ORDER[a], ORDER[b])


def test_grey_print_tells_neighbours_apart() -> None:
    for a, b in pairwise(ORDER):
        grey = [float(lab(np.array(to_rgb(SOI_COLORS[s])))[0]) for s in (a, b)]
        assert abs(grey[0] - grey[1]) > 8 or SOI_HATCHES[a] != SOI_HATCHES[b]


def test_words() -> None:
    assert (percent(0.0), percent(0.004), percent(0.424)) == ("0 %", "<1 %", "42 %")
    assert first_sentence("One 0.5 thing. Two.") == "One 0.5 thing."
    assert first_sentence("One") == "One"
    assert (ink("#ffffff"), ink("#000000")) == ("black", "white")


# --- bars ------------------------------------------------------------------------------------------------------------


def test_bars_are_as_long_as_the_shares() -> None:
    table = shares_table()
    figure = soi_bars(table, note="Profile quick, seed 0")
    rows = bars(figure)
    assert len(rows) == 4
    for patches, (_, shares) in zip(rows.values(), table.iterrows(), strict=True):
        widths = [p.get_width() for p in sorted(patches, key=lambda p: p.get_x())]
        np.testing.assert_allclose(widths, [shares[s.name] for s in ORDER], atol=1e-12)
        assert sum(widths) == pytest.approx(1)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["alone", "all", "alone", "all"]
    assert figure.axes[0].get_xlabel() == "share of training examples (%)"
    assert [t.get_text() for t in figure.legends[0].get_texts()] == LABELS
    nothing_is_cut_off(figure)
    assert overlapping_labels(figure) == []
    text = caption(figure)
    low = table["ACE"].min()
    assert f"Always correct: {low * 100:.0f} %" in text
    assert text.endswith("Profile quick, seed 0.")


def test_bars_of_counts_say_how_many() -> None:
    counts = pd.DataFrame({"alone": counted(learn(200, 6)), "together": counted(learn(200, 6, gain=2))}).T
    figure = soi_bars(counts, title="tweets")
    text = caption(figure)
    assert "Each bar is 200 training examples." in text
    assert f"ACE {counts.loc['alone', 'ACE'] / 2:.0f} %" in text
    uneven = pd.DataFrame({"alone": counted(learn(200, 6)), "together": counted(learn(300, 6))}).T
    labels = [t.get_text() for t in soi_bars(uneven).axes[0].get_yticklabels()]
    assert labels == ["alone\nn = 200", "together\nn = 300"]
    written = [t.get_text() for t in figure.axes[0].texts]
    assert f"{counts.loc['alone', 'ACE'] / 2:.0f}" in written


def test_rounded_shares_are_shares() -> None:
    figure = soi_bars(shares_table().round(3))
    assert "training examples." not in caption(figure)


def test_wrong_tables_of_categories() -> None:
    with pytest.raises(FormatError, match="ACE"):
        soi_bars(pd.DataFrame({"UNE": [1.0]}))
    empty = pd.DataFrame([dict.fromkeys([s.name for s in SOI], 0)], index=["alone"])
    with pytest.raises(FormatError, match="alone"):
        soi_bars(empty)
    with pytest.raises(FormatError, match="two settings"):
        story_figure({"source": shares_table(settings=("alone", "pair", "all"))})


def test_the_story_holds_all_members_and_their_change() -> None:
    tables = {"task": shares_table(("entailment", "paraphrase")), "source": shares_table()}
    figure = story_figure(tables, note="Profile quick")
    assert [a.get_title(loc="left") for a in figure.axes] == ["Tasks", "Sources"]
    for axis, table in enumerate(tables.values()):
        rows = list(bars(figure, axis).values())
        assert len(rows) == 4
        for patches, (_, shares) in zip(rows, table.iterrows(), strict=True):
            np.testing.assert_allclose([p.get_width() for p in patches], [shares[s.name] for s in ORDER], atol=1e-12)
        written = [t.get_text() for t in figure.axes[axis].texts]
        trouble = table[["FRGE_1", "FRGE_2", "UNE"]].sum(axis=1) * 100
        for member in table.index.get_level_values(0).unique():
            assert f"{trouble[member, 'alone']:.0f} → {trouble[member, 'all']:.0f} %" in written
    fewer = sum(
        t.loc[(m, "all"), ["FRGE_1", "FRGE_2", "UNE"]].sum() < t.loc[(m, "alone"), ["FRGE_1", "FRGE_2", "UNE"]].sum()
        for t in tables.values()
        for m in t.index.get_level_values(0).unique()
    )
    assert f"in {fewer} of 4 members" in caption(figure)
    nothing_is_cut_off(figure)
    assert overlapping_labels(figure) == []


def scores() -> pd.DataFrame:
    draw = np.random.default_rng(3)
    rows = []
    for member in ("tweets", "amazon", "movie"):
        for setting in ("alone", "all three"):
            for split in ("test", "ood"):
                a = draw.uniform(0.7, 0.97)
                rows.append(
                    {"member": member, "setting": setting, "split": split, "accuracy": a, "low": a - 0.04}
                    | {"high": min(1, a + 0.03), "majority": 0.55, "bag_of_words": 0.68, "n": 300}
                )
    return pd.DataFrame(rows)


def test_accuracies_are_drawn_with_their_references() -> None:
    table = scores()
    table.loc[0, "bag_of_words"] = 0.99
    figure = accuracy_bars(table, title="Sources", note="Profile quick")
    drawn = {p.get_gid(): p.get_width() for ax in figure.axes for p in ax.patches}
    for row in table.itertuples():
        assert drawn[f"{row.member}|{row.setting}|{row.split}"] == pytest.approx(row.accuracy)
    assert [a.get_title(loc="left") for a in figure.axes] == ["test", "out of distribution (OOD)"]
    assert {a.get_xlabel() for a in figure.axes} == {"accuracy"}
    marks = [line for line in figure.axes[0].lines if len(set(line.get_xdata())) == 1 and len(line.get_xdata()) == 2]
    assert sorted(round(float(line.get_xdata()[0]), 2) for line in marks) == [0.55] * 6 + [0.68] * 5 + [0.99]
    assert "Not above bag of words on test: tweets (1 of 2 settings)." in caption(figure)
    assert "All are above" in caption(accuracy_bars(scores()))
    assert "95 % intervals" in caption(figure)
    nothing_is_cut_off(figure)
    assert overlapping_labels(figure) == []


def test_accuracies_without_extras_and_with_one_split() -> None:
    table = scores()[["member", "setting", "split", "accuracy"]]
    figure = accuracy_bars(table[table["split"] == "test"].iloc[:-1])
    assert len(figure.axes) == 1
    assert "intervals" not in caption(figure)
    with pytest.raises(FormatError, match="accuracy"):
        accuracy_bars(table.drop(columns="accuracy"))


# --- matrices --------------------------------------------------------------------------------------------------------


def cells(figure: Figure, axis: int) -> list[list[str]]:
    texts = [t.get_text() for t in figure.axes[axis].texts]
    return [texts[i : i + 6] for i in range(0, 36, 6)]


def test_heatmap_writes_the_counts(single: TrainingDynamics, multi: TrainingDynamics) -> None:
    counts = transition_matrix(single, multi)
    figure = transition_heatmap(counts, title="tweets: alone to all", note="Profile quick")
    ordered = counts.loc[[s.name for s in ORDER], [s.name for s in ORDER]]
    assert cells(figure, 0) == [[str(v) for v in row] for row in ordered.to_numpy()]
    totals = ordered.sum(axis=1).to_numpy()
    expected = [
        [f"{v / n * 100:.0f}" if n else "–" for v in row] for row, n in zip(ordered.to_numpy(), totals, strict=True)
    ]
    assert cells(figure, 1) == expected
    mesh = next(c for c in figure.axes[0].collections if isinstance(c, QuadMesh))
    np.testing.assert_allclose(np.asarray(mesh.get_array()).reshape(6, 6), ordered)
    assert figure.axes[0].get_ylabel() == "alone (from)"
    assert figure.axes[1].get_xlabel() == "together (to)"
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == LABELS
    assert figure.axes[0].get_yticklabels()[0].get_text() == f"ACE ({totals[0]})"
    nothing_is_cut_off(figure)
    assert overlapping_labels(figure) == []
    stay = np.trace(counts.to_numpy()) / 300
    assert f"Of 300 examples {stay * 100:.0f} % stay" in caption(figure)


def test_heatmap_of_means_and_of_an_empty_row(single: TrainingDynamics, multi: TrainingDynamics) -> None:
    only = single.subset(categorize(single) == SOI.ACE)
    figure = transition_heatmap(mean_transition([(only, multi), (only, single)]))
    assert cells(figure, 1)[-1] == ["–"] * 6
    assert any("." in text for row in cells(figure, 0) for text in row)
    with pytest.raises(FormatError, match="6x6"):
        transition_heatmap(pd.DataFrame([[1]]))
    with pytest.raises(FormatError, match="no examples"):
        transition_heatmap(transition_matrix(single, multi) * 0)


def test_panels_frame_what_is_more_than_noise() -> None:
    runs = [learn(300, 8, seed=s) for s in range(3)], [learn(300, 8, seed=s + 9, gain=2.4) for s in range(3)]
    found = excess_transition(*runs)
    figure = transition_panels(found, title="tweets")
    order = [s.name for s in ORDER]
    frames = {(round(p.get_y() - 0.04), round(p.get_x() - 0.04)) for p in figure.axes[2].patches}
    marked = found.significant.loc[order, order].to_numpy()
    assert frames == {(int(i), int(j)) for i, j in zip(*np.nonzero(marked), strict=True)}
    assert frames
    written = [float(t) for row in cells(figure, 2) for t in row]
    np.testing.assert_allclose(written, found.residual.loc[order, order].to_numpy().ravel(), atol=0.051)
    text = caption(figure)
    assert "3 seeds alone and 3 together" in text
    assert text.count("(+") + text.count("(-") == len(frames)
    nothing_is_cut_off(figure)
    assert overlapping_labels(figure) == []
    nothing = transition_panels(excess_transition(runs[0][:2], [runs[0][0]], resamples=50))
    assert "No move is more than noise." in caption(nothing)


def test_flow_bands_are_as_wide_as_the_moves(single: TrainingDynamics, multi: TrainingDynamics) -> None:
    counts = transition_matrix(single, multi)
    figure = flow_plot(counts, title="tweets")
    bands = [p for p in figure.axes[0].patches if isinstance(p, PathPatch)]
    widths = sorted(float(b.get_path().vertices[7, 1] - b.get_path().vertices[0, 1]) for b in bands)
    np.testing.assert_allclose(widths, np.sort(counts.to_numpy()[counts.to_numpy() > 0]) / 300, atol=1e-9)
    assert overlapping_labels(figure) == []
    for table in (counts, counts.mul(counts.columns != "ACE")):  # plotly would move the nodes beside an empty one
        flow = flow_sankey(table).data[0]
        side, names = np.array(flow.node.x) > 0.5, np.array([text.rsplit(" ", 1)[0] for text in flow.node.label])
        back = pd.DataFrame(0.0, index=counts.index, columns=counts.columns)
        code = {label: s.name for label, s in zip(LABELS, ORDER, strict=True)}
        for source, target, value in zip(flow.link.source, flow.link.target, flow.link.value, strict=True):
            assert not side[source] and side[target]  # noqa: PT018
            back.loc[code[names[source]], code[names[target]]] = value
        np.testing.assert_allclose(back, table)
        assert set(flow.link.source) | set(flow.link.target) == set(range(len(flow.node.label)))
    assert caption(flow_sankey(counts, note="x")).startswith("Flow of examples")


# --- maps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("color", ["correctness", "soi"])
def test_maps_show_every_example(single: TrainingDynamics, multi: TrainingDynamics, color: str) -> None:
    figure = data_map_plot({"alone": single, "together": data_map(multi)}, color=color, title="tweets")  # type: ignore[arg-type]
    for ax, run in zip(figure.axes, (single, multi), strict=False):
        points = np.concatenate([np.asarray(c.get_offsets()) for c in ax.collections if isinstance(c, PathCollection)])
        table = data_map(run)
        expected = table[["variability", "confidence"]].to_numpy()
        np.testing.assert_allclose(points[np.lexsort(points.T)], expected[np.lexsort(expected.T)])
        assert ax.get_xlabel() == "variability of p(gold)"
    assert figure.axes[0].get_ylabel().startswith("confidence")
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()
    nothing_is_cut_off(figure)
    assert f"mean confidence {data_map(single)['confidence'].mean():.2f}" in caption(figure)


def test_map_colours_are_correctness(single: TrainingDynamics) -> None:
    figure = data_map_plot({"alone": single})
    points = next(c for c in figure.axes[0].collections if isinstance(c, PathCollection))
    assert sorted(np.asarray(points.get_array())) == sorted(data_map(single)["correctness"])
    assert "correctness" in figure.axes[1].get_xlabel()


def test_large_maps_are_thinned_and_say_so() -> None:
    figure = data_map_plot({"alone": learn(MOST_POINTS + 500, 6)})
    points = next(c for c in figure.axes[0].collections if isinstance(c, PathCollection))
    assert len(points.get_offsets()) == MOST_POINTS
    assert "4,000 drawn" in caption(figure)
    with pytest.raises(FormatError):
        data_map_plot({})


@pytest.mark.parametrize("epochs", [6, 7, 10, 12, 20])
@pytest.mark.parametrize("early", [0.5, 0.3])
def test_drawn_histories_are_of_their_category(epochs: int, early: float) -> None:
    drawn = example_histories(epochs, early)
    codes = categorize(np.stack([drawn[s] for s in SOI], axis=1), early)
    assert codes.tolist() == [0, 1, 2, 3, 4, 5]


def test_histories_figure_draws_them() -> None:
    figure = histories_figure(10)
    filled = [p for p in figure.axes[0].patches if isinstance(p, Rectangle) and to_rgb(p.get_facecolor()) != (1, 1, 1)]
    assert len(filled) == sum(int(h.sum()) for h in example_histories(10).values())
    assert "ACE ■■■■■■■■■■" in caption(figure)
    assert "epoch" in figure.axes[0].get_xlabel()
    nothing_is_cut_off(figure)
    assert overlapping_labels(figure) == []
    with pytest.raises(FormatError, match="at least 6"):
        histories_figure(5)
    with pytest.raises(FormatError, match="fits"):
        histories_figure(6, early=0.1)


# --- showing ---------------------------------------------------------------------------------------------------------


def test_show_gives_one_piece_of_html_the_same_every_time() -> None:
    table = shares_table()
    first = show(soi_bars(table, note='A "note" <b>'))._repr_html_()
    assert first == show(soi_bars(table, note='A "note" <b>'))._repr_html_()
    assert first.startswith('<figure class="soi-figure"><img src="data:image/png;base64,')
    alt = html.unescape(re.search(r'alt="([^"]*)"', first)[1])  # type: ignore[index]
    assert alt == first_sentence(caption(soi_bars(table)))
    assert "&lt;b&gt;" in first
    assert '<figure class="soi-figure wide">' in show(accuracy_bars(scores()))._repr_html_()


def test_figures_leave_no_trace_in_pyplot() -> None:
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    histories_figure()
    assert plt.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


def test_interactive_map_carries_texts_histories_and_categories(
    single: TrainingDynamics, multi: TrainingDynamics
) -> None:
    texts = {key: f"text <b>of</b> {key} </script>" for key in single.ids}
    figure = interactive_map(single, multi, texts, title="tweets")
    points = figure.data[0]
    table = data_map(single)
    np.testing.assert_allclose(points.x, table["variability"], atol=5e-5)
    np.testing.assert_allclose(points.y, table["confidence"], atol=5e-5)
    row = points.customdata[7]
    assert row[0] == html.escape(texts[single.ids[7]])
    assert row[2] == "".join("■" if c else "□" for c in single.correct[:, 7])
    assert row[5] == SOI(int(categorize(multi)[7])).label
    assert points.marker.color[7] == SOI_COLORS[SOI(int(categorize(single)[7]))]
    state = figure.layout.meta["soi"]
    np.testing.assert_allclose(state["place"][1][1], data_map(multi)["confidence"], atol=5e-5)
    assert state["codes"][1] == categorize(multi).tolist()
    with pytest.raises(AlignmentError):
        interactive_map(single, learn(10, 8, member="movie"))


def test_interactive_page_is_whole_and_loads_only_the_given_script(
    single: TrainingDynamics, multi: TrainingDynamics, tmp_path: Path
) -> None:
    figure = interactive_map(single, multi, {single.ids[0]: "</script><script>alert(1)</script> " + "long " * 200})
    fragment = interactive_html(figure, name="tweets", plotly_js="plotly.min.js")
    assert fragment == interactive_html(figure, name="tweets", plotly_js="plotly.min.js")
    assert "alert(1)</script>" not in fragment
    assert re.findall(r'<script[^>]*src="([^"]*)"', fragment) == ["plotly.min.js"]
    assert 'id="soi-tweets"' in fragment
    assert fragment.count("<option") == 2 + 2 * 7
    write_page(figure, tmp_path / "map.html", name="tweets", title="A & B")
    page = (tmp_path / "map.html").read_text(encoding="utf-8")
    assert "<h1>A &amp; B</h1>" in page
    assert "viewport" in page
    write_plotly_js(tmp_path / "plotly.min.js")
    assert (tmp_path / "plotly.min.js").stat().st_size > 1_000_000
    with pytest.raises(FormatError, match="plain word"):
        interactive_html(figure, name='x" onload="')
    plain = interactive_html(flow_sankey(transition_matrix(single, multi)), name="flow")
    assert "soi-controls" not in plain
    state = re.search(r"state=(\{.*?\}),colors", fragment)
    assert len(json.loads(state[1])["codes"][0]) == 300  # type: ignore[index]
