"""Time the explorer on 20,000 examples in headless Chromium: loading, first drawing, and filtering.

    .venv/bin/python benchmarks/explorer.py
    .venv/bin/python benchmarks/explorer.py --most 20000    # without the limit on the number of marks

The page is like that of `soi report`: two runs of 10 epochs, texts of 15 words, and all scripts embedded. Loading ends
when the scripts have been read (plotly alone is 4.8 MB), the first drawing when map and flow are complete, and a filter
when both are redrawn after a click on a category.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from pathlib import Path

import bench
import numpy as np
from playwright.sync_api import Page, sync_playwright

from soi_lib import TrainingDynamics
from soi_lib.plots import explorer

SETTLED = (
    "() => { const e = document.querySelector('.soi-look').explorer; return e?.settled && e.settled === e.round; }"
)


def main() -> int:
    parser = bench.parser(__doc__)
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--most", type=int, default=explorer.MOST_EXAMPLES, help="maximum number of marks on a map")
    given = parser.parse_args()
    explorer.MOST_EXAMPLES = given.most
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        path = Path(folder) / "page.html"
        path.write_text(made(given.examples), encoding="utf-8")
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        found = [
            measured(browser.new_page(viewport={"width": 1280, "height": 900}), path) for _ in range(given.repeats)
        ]
        browser.close()
        size = path.stat().st_size / 1e6
    for name, values in zip(("loading", "first drawing", "filter"), zip(*found, strict=True), strict=True):
        print(f"{name}: {statistics.median(values):.2f} s [{min(values):.2f}, {max(values):.2f}], n = {len(values)}")
    marks = min(given.most, given.examples)
    print(f"{given.examples:,} examples, {marks:,} marks, page of {size:.1f} MB; {bench.machine()}")
    return 0


def made(n: int) -> str:
    """Return a page with one explorer for two runs of `n` examples."""
    draw = np.random.default_rng(0)
    ids, gold, words = np.arange(n), np.arange(n) % 2, np.array(["forgotten", "example", "of", "a", "text"])
    runs = {}
    for name in ("alone", "together"):
        p = np.clip(draw.beta(1, 1, n) + np.linspace(-0.3, 0.3, 10)[:, None] + draw.normal(0, 0.1, (10, n)), 0, 1)
        runs[name] = TrainingDynamics(ids, gold, p, p > 0.5)
    texts = {i: (" ".join(draw.choice(words, 15)),) for i in range(n)}
    data = explorer.explorer_data(runs, texts, first="alone", second="together")
    parts = explorer.explorer_files({"own": explorer.Explorer({"own": data})})
    style = parts.pop("explorer.css")
    scripts = "".join(f"<script>{body}</script>" for body in parts.values())
    place = '<div class="soi-look" data-comparison="own"></div>'
    clock = f"""<script>window.loaded = performance.now();
      (function wait() {{ if (({SETTLED})()) window.drawn = performance.now(); else requestAnimationFrame(wait); }})();
      </script>"""
    return f'<!doctype html><meta charset="utf-8"><style>{style}</style><body>{place}{scripts}{clock}</body>'


def measured(page: Page, path: Path) -> list[float]:
    """Return the seconds measured by the page itself: for loading, the first drawing, and a filter."""
    page.goto(path.as_uri())
    page.wait_for_function(SETTLED, timeout=120_000)
    loaded, drawn = page.evaluate("[window.loaded, window.drawn]")
    filtered = page.evaluate(f"""async () => {{
      const explorer = document.querySelector('.soi-look').explorer, start = performance.now();
      explorer.settled = null;
      document.querySelector('.soi-look [data-soi]').click();
      while (!({SETTLED})()) await new Promise(requestAnimationFrame);
      return performance.now() - start;
    }}""")
    page.close()
    return [loaded / 1000, (drawn - loaded) / 1000, filtered / 1000]


if __name__ == "__main__":
    raise SystemExit(main())
