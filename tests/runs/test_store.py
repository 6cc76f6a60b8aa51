"""The store: runs are complete or absent, damaged runs are moved away, one process at a time trains a run."""

import contextlib
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from own_data import snapshot

from soi_lib import files
from soi_lib.dynamics import TrainingDynamics
from soi_lib.errors import OutputExistsError, SoiError, StoreError
from soi_lib.runs.store import MANIFEST, RunStore, open_run

IDENTITY = {"comparison": "source", "setting": ["tweets"], "seed": 0}


def fill(folder):
    (folder / "dynamics").mkdir()
    p = np.full((2, 3), 0.5, np.float32)
    dyn = TrainingDynamics(np.arange(3), np.zeros(3, np.int16), p, p > 0.4, {"member": "tweets"})
    dyn.save(folder / "dynamics" / "tweets.parquet")
    files.write_json(folder / "metrics.json", {"tweets": {"n": 3}})


@pytest.fixture
def stored(tmp_path):
    store = RunStore(tmp_path / "runs")
    store.write("abc", {"identity": IDENTITY}, fill)
    return store


def test_a_stored_run_reads_back(stored):
    run = stored.get("abc")
    assert (run.key, run.comparison, run.setting, run.seed) == ("abc", "source", ("tweets",), 0)
    assert run.metrics == {"tweets": {"n": 3}}
    assert len(run.dynamics("tweets")) == 3
    with pytest.raises(StoreError, match=r"no such dataset.*found 'fr'"):
        run.dynamics("fr")
    assert [r.key for r in stored] == ["abc"]
    assert stored.get("none") is None
    assert not list(stored.root.rglob(f"{files.PREFIX}*"))


def test_reading_a_damaged_run_changes_nothing_and_writing_it_again_moves_it_away(stored, caplog):
    path = stored.path("abc") / MANIFEST
    path.write_bytes(path.read_bytes().replace(b'"seed": 0', b'"seed": 1'))
    before = snapshot(stored.root)
    assert stored.get("abc") is None
    assert list(stored) == []
    assert f"{path}: " in caplog.text
    assert snapshot(stored.root) == before
    stored.write("abc", {"identity": IDENTITY}, fill)
    assert stored.get("abc").key == "abc"
    assert "was moved to" in caplog.text
    assert len(list((stored.root / "quarantine").iterdir())) == 1


def test_extra_files_links_and_runs_under_another_key_are_rejected(stored, tmp_path):
    run = stored.path("abc")
    shutil.copytree(run, stored.path("another"))
    assert stored.get("another") is None
    (run / "extra").write_text("x", encoding="utf-8")
    with pytest.raises(StoreError, match=r"extra: this file was not written by the run"):
        open_run(run)
    (run / "extra").unlink()
    (run / "metrics.json").rename(tmp_path / "elsewhere.json")
    (run / "metrics.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(StoreError, match=r"metrics.json: a file of the run is missing"):
        open_run(run)
    run.rename(tmp_path / "elsewhere")
    run.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=r"runs/abc: the run is a link, not a folder"):
        stored.get("abc")


def test_atomic_writes(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "one")
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        files.write_text(path, "two", overwrite=False)
    with contextlib.suppress(RuntimeError), files.replacing(path) as tmp:
        tmp.write_text("half", encoding="utf-8")
        raise RuntimeError
    assert path.read_text(encoding="utf-8") == "one"
    with pytest.raises(SoiError, match=tmp_path.name):
        files.write_text(tmp_path, "x")


def test_sweeping_spares_files_that_are_being_written(tmp_path):
    code = "import os, sys; from soi_lib import files\nwith files.building(sys.argv[1]): os._exit(1)"
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and its number is still taken
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(files.PREFIX)
    (tmp_path / "below").mkdir()
    left = left.rename(tmp_path / "below" / left.name)
    (tmp_path / ".tmp-of-somebody-else").touch()
    with files.replacing(tmp_path / "a.txt") as mine:
        mine.write_text("one", encoding="utf-8")
        (mine.parent / "made by a library").touch()
        assert files.sweep(tmp_path) == [left]
        assert mine.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == [".tmp-of-somebody-else", "a.txt", "below"]
    assert list((tmp_path / "below").iterdir()) == []
    child.wait()
