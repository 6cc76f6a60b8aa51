"""Two processes of `accelerate launch` train the same as one; all tests share one launch, on the CPU."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import together
import torch
from tiny_grid import make

from soi_lib.runs.store import open_run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The results of both processes, and the folder where they worked."""
    folder = tmp_path_factory.mktemp("together")
    make(folder)
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    environment |= {"SOI_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    environment["ACCELERATE_USE_CPU"] = "true"  # without it, this command trains on GPUs
    line = "-m accelerate.commands.launch --multi_gpu --num_processes 2 --main_process_port 0"
    command = [sys.executable, *line.split(), together.__file__, str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    assert (folder / "out0.npz").exists(), ended.stderr[-3000:]
    assert ended.returncode  # one of them was killed in the last training
    found = []
    for rank in range(2):
        with np.load(folder / f"out{rank}.npz") as file:
            found.append(dict(file))
    return found, folder


def part(found: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(f"{name}/"): value for key, value in found.items() if key.startswith(f"{name}/")}


def test_both_processes_have_the_same_results(two):
    (first, second), _ = two
    assert first.keys() == second.keys()
    for key in first.keys() - {"refused", "refused to record"}:
        assert first[key].tobytes() == second[key].tobytes(), key
    assert first["quiet/processes"] == 2


def test_two_processes_give_the_results_of_one_up_to_rounding(two):
    got = part(two[0][0], "quiet")
    torch.set_num_threads(1)
    one = together.values(together.done(together.QUIET, [together.made(60, 3, 0)]))
    assert one["processes"] == 1
    for key in ("m0/ids", "m0/gold", "m0/repeated"):
        assert np.array_equal(got[key], one[key])
    assert (int(one["m0/repeated"]), len(one["m0/ids"])) == (0, 60)
    assert got["m0/p"].shape == (2, 60)
    for key in ("m0/p", "m0/predictions", "losses"):
        assert np.allclose(got[key], one[key], atol=2e-5), np.abs(got[key] - one[key]).max()
    moved = 0.0
    for key in one:
        if key.startswith("weights/") and not key.endswith("key.bias"):  # whose gradient is only rounding
            assert np.allclose(got[key], one[key], atol=1e-4), (key, np.abs(got[key] - one[key]).max())
            moved = max(moved, float(np.abs(one[key]).max()))
    assert moved > 0.01


def test_each_process_has_its_own_dropout_masks(two):
    p = two[0][0]["twins/twins/p"]
    assert p[0, 0] != p[0, 1]


def test_a_stopped_training_continues_to_the_same_bits(two):
    (first, _), folder = two
    assert first["stopped"]
    assert first["seen"][0].tolist() == [1, 62]  # two epochs of 31 examples were not repeated
    assert {epoch for epoch, _ in first["seen"][1:].tolist()} == {2}
    noisy, resumed = part(first, "noisy"), part(first, "resumed")
    assert noisy.keys() == resumed.keys()
    for key, value in noisy.items():
        assert value.tobytes() == resumed[key].tobytes(), key
    assert (folder / "state.safetensors").exists()


def test_processes_with_different_examples_stop(two):
    for rank, found in enumerate(two[0]):
        message = str(found["refused"])
        assert f"process {rank}: the processes were not given the same configuration and members and texts" in message
        assert "were not given the same examples" in str(found["refused to record"])


def test_two_processes_record_what_one_does(two):
    got, one = part(two[0][0], "recorder"), together.recorded(None)
    for key, value in one.items():
        assert got[key].tobytes() == value.tobytes(), key
    _, repeated, *missing = one["report"]
    assert 17 in missing
    assert repeated > 40


def test_a_run_is_written_once_and_counts_its_processes(two):
    _, folder = two
    (run,) = [open_run(p.parent) for p in (folder / "runs").glob("*/manifest.json")]
    assert run.manifest["machine"]["processes"] == 2
    assert (folder / "runs" / "weights" / f"{run.key}.safetensors").exists()
    assert not list((folder / "runs").rglob(".tmp-*"))
    assert not list((folder / "runs").glob("quarantine/*"))


def test_if_one_process_is_killed_the_other_reports_it_and_ends(two):
    _, folder = two
    seconds, message = (folder / "left").read_text(encoding="utf-8").split("\n", 1)
    assert float(seconds) < 60
    assert message.startswith("process 0: another process has stopped")
    assert "resumes from the last checkpoint" in message
