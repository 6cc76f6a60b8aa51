"""A reproduction that is killed, or meets damaged files, other processes, full disks, wrong clocks and permissions.

`SOI_DAMAGES=200` damages 200 files instead of 12; kill_anywhere.py kills a hundred times.
"""

import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import kill_anywhere
import pytest
import tiny_grid
from kill_anywhere import PROFILE, digest_of
from tiny_grid import Nursery, environment

from paper import recorded as results
from soi_lib.errors import StoreError
from soi_lib.files import PREFIX
from soi_lib.runs.config import load_profile
from soi_lib.runs.scheduler import do
from soi_lib.runs.spec import plan, plan_stages
from soi_lib.runs.store import RunStore

DAMAGES = int(os.environ.get("SOI_DAMAGES", "12"))


@pytest.fixture(scope="module")
def place(workplace):
    """A folder with a profile, its cache, a store with all runs and stages, and a recorded folder."""
    profile = load_profile(tiny_grid.make(workplace, **PROFILE))
    runs, stages = reproduce_here(workplace, workplace / "runs")
    results.record(profile, runs, workplace / "recorded" / "tiny", stages=stages)
    return workplace


def reproduce_here(folder: Path, root: Path) -> tuple[list, list]:
    """Do what `python -m paper reproduce` does, in this process, which saves the time to start others."""
    profile, store = load_profile(folder / "tiny.yaml"), RunStore(root)
    store.tidy()
    runs = [do(replace(spec, keep_weights=True), store) for spec in plan(profile)]
    return runs, [do(stage, store) for stage in plan_stages(profile)]


def damage(path: Path, how: str, draw: random.Random) -> None:
    """Flip a bit of a file, cut it somewhere, or delete it."""
    body = path.read_bytes()
    at = draw.randrange(len(body))
    if how == "flip":
        path.write_bytes(body[:at] + bytes([body[at] ^ 1 << draw.randrange(8)]) + body[at + 1 :])
    elif how == "truncate":
        path.write_bytes(body[:at])
    else:
        path.unlink()


def damages(folder: Path, seed: int, n: int) -> list[tuple[Path, str, random.Random]]:
    """Draw `n` damages of files under `folder`; every file that is not empty has the same chance."""
    files = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file() and p.stat().st_size)
    draw = random.Random(seed)
    kinds = ("flip", "flip", "truncate", "delete")
    return [(draw.choice(files), draw.choice(kinds), random.Random(draw.random())) for _ in range(n)]


def test_damage_in_the_store_is_named_and_trained_again_to_the_same_bits(place, tmp_path, caplog):
    whole = digest_of(place / "runs")
    profile = load_profile(place / "tiny.yaml")
    for file, how, draw in damages(place / "runs", 1, max(1, DAMAGES // 2)):
        copy = tmp_path / "runs"
        shutil.copytree(place / "runs", copy)
        damage(copy / file, how, draw)
        caplog.clear()
        done = reproduce_here(place, copy)
        assert digest_of(copy) == whole, (file, how)
        assert [r.key for r in done[0] + done[1]] == [s.key for s in [*plan(profile), *plan_stages(profile)]]
        moved = list((copy / "quarantine").glob("*"))
        if file.parts[0] == "weights":
            assert how == "delete" or str(copy / file) in caplog.text, (file, how)
            assert moved == []
        else:
            at_fault = copy / file.parts[0] if file.name == "manifest.json" else copy / file
            assert str(at_fault) in caplog.text, (file, how)
            assert [place.name for place in moved] == [f"{file.parts[0]}-1"]
        shutil.rmtree(copy)


def test_damage_in_the_cache_is_named_and_made_again(place, tmp_path, caplog, monkeypatch):
    keys = [one.key for one in plan(load_profile(place / "tiny.yaml"))]
    copy = tmp_path / "cache"
    monkeypatch.setenv("SOI_CACHE", str(copy))
    caplog.set_level(logging.WARNING)
    for file, how, draw in damages(place / "cache", 2, max(1, DAMAGES // 4)):
        shutil.copytree(place / "cache", copy)
        damage(copy / file, how, draw)
        caplog.clear()
        assert [one.key for one in plan(load_profile(place / "tiny.yaml"))] == keys
        if how != "delete":
            harmless = file.suffix == ".parquet" and not caplog.text  # bytes that Parquet never reads
            assert harmless or file.name in caplog.text, (file, how)
        assert not list(copy.rglob(f"{PREFIX}*"))
        shutil.rmtree(copy)


def test_damage_in_a_recorded_folder_is_an_error_that_names_the_file(place, tmp_path):
    for file, how, draw in damages(place / "recorded", 3, max(1, DAMAGES // 4)):
        copy = tmp_path / "recorded"
        shutil.copytree(place / "recorded", copy)
        damage(copy / file, how, draw)
        with pytest.raises(StoreError) as raised:
            results.open_results("source", runs=copy / "tiny", stages=True)
        named = str(raised.value)
        assert str(copy / file) in named or (file.name == results.CHECKSUMS and results.CHECKSUMS in named), (file, how)
        assert "\n" not in named
        shutil.rmtree(copy)
    assert results.open_results("source", runs=place / "recorded" / "tiny", stages=True).stages


# --- several processes ---------------------------------------------------------------------------------------------

COUNTING = """
import os
from soi_lib.training import engine

def counted(*arguments, train=engine.train, **named):
    with open("LOG", "a") as log:
        log.write(named["checkpoint"].identity + "\\n")
    return train(*arguments, **named)

engine.train = counted
"""


@pytest.fixture(scope="module")
def nursery(place):
    """Runs commands in processes of their own that need not import anything."""
    nursery = Nursery(environment(place / "cache"))
    yield nursery
    nursery.close()


def test_two_reproductions_at_once_of_which_one_is_killed(place, nursery, tmp_path):
    """A third one finds what the second left: locks without an owner, an unfinished run."""
    counted = tmp_path / "counted"
    counted.touch()
    words = ("reproduce", "--profile", place / "tiny.yaml", "--runs", tmp_path / "runs", "--jobs", "2", "-q")
    start = partial(nursery.start, *words, cwd=tmp_path, before=COUNTING.replace("LOG", str(counted)))
    one, two = start(), start()
    deadline = time.monotonic() + 120
    while len(counted.read_text().split()) < 3 and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(two[0], signal.SIGKILL)
    assert nursery.wait(two)[0] == -signal.SIGKILL
    done = counted.read_text().split()
    three = start()
    for started in (one, three):
        code, said = nursery.wait(started)
        assert code == 0, said
    profile = load_profile(place / "tiny.yaml")
    keys = {spec.key for spec in [*plan(profile), *plan_stages(profile)]}
    trained = counted.read_text().split()
    assert set(trained) == keys
    again = [key for key in keys if trained.count(key) > 1]
    assert set(again) <= set(done)  # only the unfinished ones of the killed process
    assert len(again) <= 2
    assert len(trained) == len(keys) + len(again)
    assert digest_of(tmp_path / "runs") == digest_of(place / "runs")
    assert not list(tmp_path.rglob(f"{PREFIX}*"))


# --- machines ------------------------------------------------------------------------------------------------------


def one_run(place: Path, nursery: Nursery, root: Path, before: str = "", index: int = 0) -> tuple[int, str]:
    """Execute the statements `before`, then `python -m paper run` for one run of the tiny profile."""
    key = plan(load_profile(place / "tiny.yaml"))[index].key
    words = ("run", key, "--profile", place / "tiny.yaml", "--runs", root, "-q")
    return nursery.soi(*words, cwd=place, before=before)


def one_line(done: tuple[int, str]) -> str:
    """Return the error of a command that failed as expected."""
    code, said = done
    assert code == 2, said
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("error:")]
    return line


LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))"


@pytest.mark.parametrize(
    "more",
    [
        "",
        # safetensors raises an error of its own if the disk is full
        "; from soi_lib.training.checkpoint import Checkpoint; Checkpoint.every = 0.0",
    ],
)
def test_a_full_disk(place, nursery, tmp_path, more):
    """A limit on the size of files causes the same errors in the same places."""
    line = one_line(one_run(place, nursery, tmp_path / "runs", LIMIT + more))
    assert str(tmp_path / "runs") in line
    assert ("unfinished" in line) == bool(more)
    assert not list(tmp_path.rglob(f"{PREFIX}*"))
    assert list(RunStore(tmp_path / "runs")) == []


# Root can write anything because of one capability (CAP_DAC_OVERRIDE). Without it, root can still read what it owns;
# another user could not read an environment in a private home.
NO_OVERRIDE = """
import ctypes, os
if os.geteuid() == 0:
    libc, header, sets = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    sets[0] &= ~2
    assert libc.capset(header, sets) == 0
"""


def test_a_read_only_store(place, nursery, tmp_path):
    root = tmp_path / "runs"
    shutil.copytree(place / "runs", root)
    missing = plan(load_profile(place / "tiny.yaml"))[1].key
    shutil.move(root / missing, tmp_path / "away")
    before = digest_of(root)
    assert place.parent.stat().st_mode & 0o077 == 0  # private, like many homes
    for path in [root, *root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        code, said = one_run(place, nursery, root, NO_OVERRIDE)  # finished runs can be read
        assert code == 0, said
        line = one_line(one_run(place, nursery, root, NO_OVERRIDE, index=1))
        assert f"{root}: " in line
        assert "Permission denied" in line
        assert digest_of(root) == before
    finally:
        for path in [root, *root.rglob("*")]:
            path.chmod(0o755)


CLOCK = """
import datetime, itertools, time
from soi_lib.runs import run
from soi_lib.runs import second_stage as stages
hours, now, now_ns = itertools.count(1), time.time, time.time_ns
class Jumping(datetime.datetime):
    @classmethod
    def now(cls, tz=None): return datetime.datetime.now(tz) - datetime.timedelta(hours=next(hours))
time.time = lambda: now() - 3600 * next(hours)
time.time_ns = lambda: now_ns() - 3600 * 10**9 * next(hours)
run.datetime = Jumping
"""


def test_a_clock_that_jumps(place, nursery, tmp_path):
    """Every reading of the clock is an hour before the last one; only the times in the manifest depend on it."""
    code, said = one_run(place, nursery, tmp_path / "runs", CLOCK)
    assert code == 0, said
    (run,) = RunStore(tmp_path / "runs")
    there = RunStore(place / "runs").get(run.key)
    assert run.manifest["started"] < there.manifest["started"]
    assert run.manifest["seconds"]["total"] > 0
    assert digest_of(run.folder) == digest_of(there.folder)


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
