"""Generate the page `book/rules.md`: the text in `rules.md.j2` with the numbers of `rules` and of the simulation.

python -m paper.claims.rules_page book/rules.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paper.claims import rules
from paper.tables import markdown, template_house
from soi_lib import files

Rows = Sequence[Mapping[str, Any]]
POWER = Path("data/power/power.json")


def page(power: Mapping[str, Any]) -> str:
    """Return the whole page as Markdown; `power` is the content of `data/power/power.json`."""
    house = template_house(pct=_pct)
    house.globals.update(case=_case, inside=_inside, reached=_reached, excluded=_excluded)
    return house.get_template("claims/rules.md.j2").render(rules=rules, power=power, names=rules.NAMES)


def _pct(share: float | None, digits: int = 0) -> str:
    return "–" if share is None else f"{share:.{digits}%}".replace("%", " %")


def _case(rows: Rows) -> str:
    head = ["score", "seeds", "examples", "half-width", *(f"gain found at +{g}" for g in (0.02, 0.03, 0.05))]
    head += ["gain at 0", "loss at 0", *(f"inside ±{b} at 0" for b in (0.01, 0.02, 0.03)), "coverage"]
    body = []
    for score, seeds, n in dict.fromkeys((r["score"], r["seeds"], r["n"]) for r in rows):
        part = {r["true"]: r for r in rows if (r["score"], r["seeds"], r["n"]) == (score, seeds, n)}
        zero = part[0.0]
        line = [rules.NAMES[score], seeds, n, f"{zero['half-width']:.3f}"]
        line += [_pct(part[g]["gain"]) for g in (0.02, 0.03, 0.05)]
        line += [_pct(zero["gain"], 1), _pct(zero["loss"], 1)]
        line += [_pct(zero[f"inside {b}"]) for b in (0.01, 0.02, 0.03)]
        body.append([*line, _pct(sum(r["coverage"] for r in part.values()) / len(part), 1)])
    return markdown(head, body)


def _inside(rows: Rows, score: str, seeds: int, bound: float) -> float:
    """Return how often the interval lies inside ±`bound` if nothing changes, with 2,000 examples."""
    of = {(r["score"], r["seeds"], r["n"], r["true"]): r for r in rows}
    return float(of[score, seeds, 2000, 0][f"inside {bound}"])


def _reached(rows: Rows, score: str | None = None) -> str:
    """Return the smallest simulated gain at which the claim is called supported in 80 % of the simulations."""
    gains = [r["true"] for r in rows if r.get("supported", 0) >= 0.8 and r.get("score") == score]
    return f"+{min(gains)}" if gains else "none of those simulated"


def _excluded(rows: Rows, score: str | None = None) -> float:
    """Return how often the claim is called not supported if nothing changes."""
    return float(next(r.get("not supported", 0) for r in rows if r["true"] == 0 and r.get("score") == score))


def main() -> None:
    """Write the page to the path given on the command line."""
    power = json.loads(POWER.read_text(encoding="utf-8"))
    files.write_text(sys.argv[1], page(power))


if __name__ == "__main__":
    main()
