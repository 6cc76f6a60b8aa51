"""Devices, precision, and parallel runs, on machines with and without GPUs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from soi_lib.errors import SoiError
from soi_lib.training import device as devices
from soi_lib.training.device import (
    cards,
    default_jobs,
    kind_of,
    resolve_device,
    resolve_precision,
    torch_device,
    visible_cards,
)

GIB = 2**30


@pytest.fixture
def machine(monkeypatch):
    """Simulate a machine with this many GPUs, GiB of GPU memory and cores."""
    for name in ("ACCELERATE_USE_CPU", "CUDA_VISIBLE_DEVICES", "SOI_DEVICE", "SOI_JOBS"):
        monkeypatch.delenv(name, raising=False)

    def make(gpus: int, memory: int = 80, cores: int = 16) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        found = SimpleNamespace(total_memory=memory * GIB)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda card: found)
        monkeypatch.setattr(devices.os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)

    return make


def test_auto_is_a_gpu_if_torch_sees_one(machine, monkeypatch):
    machine(0)
    assert (resolve_device(), resolve_device("cpu"), resolve_device("cuda:1")) == ("cpu", "cpu", "cuda:1")
    machine(2)
    assert (resolve_device("auto"), kind_of("cuda:1")) == ("cuda", "cuda")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert (resolve_device(), resolve_device("cuda")) == ("cpu", "cuda")
    monkeypatch.setenv("SOI_DEVICE", "cuda:1")
    assert (resolve_device(), resolve_device("cpu")) == ("cuda:1", "cpu")


@pytest.mark.parametrize("name", ["cuda:x", "mps"])
def test_an_unknown_name_is_rejected_with_the_choices(machine, name):
    machine(1)
    with pytest.raises(SoiError, match="auto, cpu, cuda, cuda:N"):
        resolve_device(name)


def test_a_missing_gpu_is_reported_with_the_next_step(machine):
    machine(0)
    with pytest.raises(SoiError, match=r"device cuda: .*no GPU.*--device cpu"):
        torch_device("cuda")
    machine(2)
    assert cards("cuda") == (0, 1)
    assert torch_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(SoiError, match=r"device cuda:2: .*2 GPUs"):
        cards("cuda:2")


def test_precision_follows_the_device(machine, monkeypatch):
    machine(1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert (resolve_precision("auto", "cpu"), resolve_precision("auto", "cuda")) == ("bf16", "fp32")
    assert (resolve_precision("fp32", "cpu"), resolve_precision("bf16", "cuda")) == ("fp32", "bf16")
    with pytest.raises(SoiError, match="auto, fp32, bf16"):
        resolve_precision("fp16", "cpu")
    machine(0)
    with pytest.raises(SoiError, match="--precision bf16 or fp32"):
        resolve_precision("auto", "cuda")


def test_the_number_of_parallel_runs(machine, monkeypatch):
    machine(0, cores=6)
    assert default_jobs("cpu") == 6
    machine(1, memory=80)
    assert (default_jobs("cuda"), default_jobs("cpu")) == (4, 16)
    machine(1, memory=16)
    assert default_jobs("cuda") == 2
    machine(4, memory=80, cores=8)
    assert (default_jobs("cuda"), default_jobs("cuda:3")) == (8, 4)
    monkeypatch.setenv("SOI_JOBS", "3")
    assert default_jobs("cuda") == 3


def test_workers_share_the_visible_gpus_evenly(machine, monkeypatch):
    machine(2)
    assert visible_cards("cuda", 3) == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-ab")
    assert visible_cards("cuda", 3) == ["5", "GPU-ab", "5"]
    assert visible_cards("cuda:1", 2) == [None, None]
    assert visible_cards("cpu", 2) == [None, None]
