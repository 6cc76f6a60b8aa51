"""`soi doctor`: its findings are true, and whatever is missing comes with the command that helps."""

from __future__ import annotations

import importlib.metadata
import json
import os

import pytest
import torch

from soi_lib.cli.doctor import examine
from soi_lib.files import cache_dir
from soi_lib.packages import read_list
from soi_lib.training import device as devices


def test_no_problems_here(soi, wheels, tmp_path):
    code, out, err = soi("doctor", "--json", "--runs", tmp_path / "runs")
    found = json.loads(out)
    assert (code, err, found["problems"]) == (0, "", [])
    for purpose, name in (("training", "torch"), ("the core", "numpy"), ("figures and the book", "plotly")):
        assert found["packages"][purpose][name] == importlib.metadata.version(name)
    assert found["would train on"]["device"] == "cpu"
    assert found["cache"]["folder"] == str(cache_dir())
    assert found["data and weights"] == {p.name: "verified" for p in read_list()}
    assert not (tmp_path / "runs").exists()
    assert soi("doctor")[1].strip().endswith("no problems found")


def test_an_empty_cache_is_a_problem_and_stays_empty(soi, tmp_path, monkeypatch):
    monkeypatch.setenv("SOI_CACHE", str(tmp_path / "cache"))
    code, out, _ = soi("doctor", "--json")
    found = json.loads(out)
    assert code == 2
    assert set(found["data and weights"].values()) == {"missing"}
    (problem,) = found["problems"]
    assert problem.endswith("Next: `soi fetch`")
    assert found["variables"]["SOI_CACHE"] == str(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.fixture
def two_cards(monkeypatch, tmp_path):
    """A program `nvidia-smi` that lists two cards, and no device files."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "glob", lambda pattern: [])
    cards = "NVIDIA A100-SXM4-80GB, 81920 MiB, 580.65.06\nTesla T4, 15360 MiB, 580.65.06"
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{cards}\nEND\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


def test_a_cpu_build_of_torch_on_a_machine_with_a_gpu_is_a_note_with_the_remedy(soi, wheels, two_cards, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch, "__version__", "2.13.0+cpu")
    code, out, _ = soi("doctor")
    shown = " ".join(out.split())
    assert code == 0
    assert "NVIDIA A100-SXM4-80GB, 81920 MiB, driver 580.65.06, torch cannot use it, Tesla T4, 15360 MiB" in shown
    assert "note: torch cannot use NVIDIA A100-SXM4-80GB: torch 2.13.0+cpu is built for CPUs only." in shown
    assert "`pip uninstall torch`, then `pip install torch==2.13.0`" in shown


def test_a_gpu_that_torch_can_use(wheels, two_cards, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100-SXM4-80GB")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    card = type("Card", (), {"total_memory": 80 * 2**30})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda pid: set(range(16)))
    monkeypatch.delenv("SOI_JOBS", raising=False)
    monkeypatch.setenv("SOI_DEVICE", "cuda:1")
    found = examine()
    assert list(found["would train on"].values()) == ["cuda:1", "NVIDIA A100-SXM4-80GB", "bf16", 4]
    assert found["GPUs"][1] == "Tesla T4, 15360 MiB, driver 580.65.06, torch can use 2 (CUDA 13.0)"
    assert found["notes"] == []


def test_a_missing_device_is_a_problem(monkeypatch):
    monkeypatch.setenv("SOI_DEVICE", "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    found = examine()
    assert found["would train on"] == {}
    assert any(line.startswith("device cuda: this device is not available") for line in found["problems"])
