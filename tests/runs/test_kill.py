"""Ten kills of a reproduction, restarted each time: the same bits, nothing left. A hundred: see kill_anywhere.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import kill_anywhere


def test_a_killed_reproduction_ends_with_the_same_bits(tmp_path):
    log = tmp_path / "kills.json"
    command = [sys.executable, kill_anywhere.__file__, "--kills", "10", "--seed", "0", "--log", log]
    done = subprocess.run([*command, "--folder", tmp_path / "work"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(log.read_text(encoding="utf-8"))
    assert found["kills"] == sum(found["kills aimed at"].values()) == 10
    assert found["rounds finished and compared"] >= 1
    assert found["faults"] == []
    assert len([n for n in found["kills aimed at"].values() if n]) >= 4
    assert found["files compared"] > 40


def test_what_is_compared_is_what_matters(tmp_path):
    """A changed value is a fault, another time is none."""
    one, two = ({"a": {"started": time, "n": n}} for time, n in (("now", 1), ("later", 1)))
    assert kill_anywhere._lasting(one) == kill_anywhere._lasting(two)
    assert kill_anywhere._lasting({"a": {"n": 2}}) != kill_anywhere._lasting(one)
    for folder in (tmp_path / "a", tmp_path / "b"):
        for part in kill_anywhere.COMPARED:
            (folder / part).mkdir(parents=True)
            (folder / part / "metrics.json").write_text(f"{folder.name if part == 'runs' else ''}", encoding="utf-8")
        (folder / "results.json").write_text(
            json.dumps({"profile": "p", "runs": [folder.name], "wall_seconds": folder.name}), encoding="utf-8"
        )
    Path(tmp_path / "a" / "runs" / ".tmp-left").touch()
    assert kill_anywhere.compare(tmp_path / "a", tmp_path / "b") == [
        "runs/.tmp-left differs",
        "runs/metrics.json differs",
        "results.json differs in runs",
        "runs/.tmp-left is left",
    ]
