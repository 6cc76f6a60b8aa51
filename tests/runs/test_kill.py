"""A reproduction that is killed and restarted gives the same bits. For a hundred kills: kill_anywhere.py."""

from __future__ import annotations

import json
import subprocess
import sys

import kill_anywhere


def test_a_killed_reproduction_ends_with_the_same_bits():
    """Also with one worker or two, whatever the environment says about threads and hashing."""
    command = [sys.executable, kill_anywhere.__file__, "--kills", "6", "--seed", "0"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] == sum(found["kills aimed at"].values()) == 6
    assert found["rounds finished and compared"] >= 1
    assert found["faults"] == []
    assert len([n for n in found["kills aimed at"].values() if n]) >= 4
    assert found["files compared"] > 40
