"""The same bits from any number of workers and whatever the environment says about threads, hashing and tokenizers."""

from __future__ import annotations

from dataclasses import replace

import tiny_grid
import torch
from kill_anywhere import digest_of
from tiny_grid import environment

from soi_lib.runs.config import load_profile
from soi_lib.runs.scheduler import do
from soi_lib.runs.spec import plan, plan_stages
from soi_lib.runs.store import RunStore

SMALL = {
    "seeds": [0, 1],
    "comparisons": {"source": {"encoder": "tiny", "members": ["twitter"], "settings": ["single"]}},
    "stages": {"subsets": ["ambiguous"], "controls": [], "epochs": 2, "balance": False},
}
ODD = {
    "OMP_NUM_THREADS": "3",
    "MKL_NUM_THREADS": "4",
    "OPENBLAS_NUM_THREADS": "2",
    "PYTHONHASHSEED": "77",
    "TOKENIZERS_PARALLELISM": "true",
    "RAYON_NUM_THREADS": "3",
}


def test_the_same_bits_from_any_number_of_workers_and_threads(tmp_path, monkeypatch):
    profile = tiny_grid.make(tmp_path, **SMALL)
    for name in ("SOI_CACHE", "ACCELERATE_USE_CPU"):
        monkeypatch.setenv(name, environment(tmp_path / "cache")[name])
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # no worker: this process, which had other threads before
    try:
        here = RunStore(tmp_path / "here")
        for spec in plan(load_profile(profile)):
            do(replace(spec, keep_weights=True), here)
        for stage in plan_stages(load_profile(profile)):
            do(stage, here)
    finally:
        torch.set_num_threads(threads)
    words = ("reproduce", "--profile", profile, "-q", "--runs")
    one = tiny_grid.soi(*words, "one", "--jobs", 1, cwd=tmp_path, env=environment(tmp_path / "cache", **ODD))
    assert one.returncode == 0, one.stderr
    nursery = tiny_grid.Nursery(environment(tmp_path / "cache"))
    code, said = nursery.soi(*words, "two", "--jobs", 2, cwd=tmp_path)
    nursery.close()
    assert code == 0, said
    whole = digest_of(tmp_path / "here")
    assert len(whole) == 2 * (6 + 1) + 2 * 5  # a run also keeps a digest of each row
    assert digest_of(tmp_path / "one") == digest_of(tmp_path / "two") == whole
