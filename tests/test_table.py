"""Tables for a page: nothing cut, nothing interpreted as markup, numbers recognised."""

from __future__ import annotations

import pandas as pd

from soi_lib.plots import show_table


def test_a_table_shows_all_of_every_value():
    text = "long " * 60 + "<b>&"
    frame = pd.DataFrame(
        {"text": [text, "short"], "score": [0.12345, float("nan")], "n": [3, 1000], "ok": [True, False]}
    )
    shown = show_table(frame, "Two rows & a caption.")
    html = shown._repr_html_()
    assert "long " * 60 + "&lt;b&gt;&amp;" in html
    assert '<td class="num">0.123</td>' in html
    assert '<td class="num">1000</td>' in html
    assert "<td>yes</td>" in html
    assert "nan" not in html
    assert "<figcaption>Two rows &amp; a caption.</figcaption>" in html
    assert repr(shown).splitlines()[0] == "text\tscore\tn\tok"
    assert repr(shown).endswith("Two rows & a caption.")


def test_named_rows_are_shown_and_numbered_ones_are_not():
    frame = pd.DataFrame({"a": [1]})
    assert '<th class="num">member</th>' in show_table(frame.rename_axis("member"))._repr_html_()
    assert show_table(frame)._repr_html_().count("<th ") == 1
