"""`soi doctor`: what it finds is so, and what is needed and missing is said with the command that helps."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from own_data import run_main

import soi_lib
from soi_lib.cli.doctor import examine
from soi_lib.files import cache_dir
from soi_lib.packages import read_list
from soi_lib.training import device as devices


@pytest.fixture
def soi(monkeypatch, capsys):
    return lambda *words: run_main(monkeypatch, capsys, *words)


def test_all_is_well_here(soi, wheels, tmp_path):
    code, out, err = soi("doctor", "--json", "--runs", tmp_path / "runs")
    found = json.loads(out, parse_constant=pytest.fail)
    assert (code, err, found["problems"], found["well"]) == (0, "", [], True)
    assert found["soi_lib"] == soi_lib.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    versions = {p["name"]: p["version"] for p in found["packages"]}
    for name in ("torch", "transformers", "numpy", "typer", "plotly"):
        assert versions[name] == importlib.metadata.version(name)
    assert found["cores"] == len(os.sched_getaffinity(0))
    assert found["memory"]["total"] > found["memory"]["available"] > 0
    assert found["device"]["kind"] in ("cpu", "cuda")
    assert found["device"]["precision"] in ("bf16", "fp32")
    assert found["cache"]["folder"] == str(cache_dir())
    assert found["cache"]["packages"] == {p.name: "verified" for p in read_list()}
    assert found["cache"]["size"] > sum(p.path.stat().st_size for p in read_list())
    assert found["runs"] == {"folder": str(tmp_path / "runs"), "writable": True, "free": found["runs"]["free"]}
    assert not (tmp_path / "runs").exists()
    assert any(found["device"]["precision"] in line for line in found["would_run"])


def test_for_people(soi, wheels):
    code, out, err = soi("doctor")
    assert (code, err) == (0, "")
    assert f"{len(wheels)} of {len(wheels)} there and verified" in out
    assert out.strip().endswith("all is well")
    assert "\x1b" not in out


def test_an_empty_cache_is_a_problem_with_its_remedy(soi, tmp_path, monkeypatch):
    monkeypatch.setenv("SOI_CACHE", str(tmp_path / "cache"))
    code, out, _ = soi("doctor", "--json")
    found = json.loads(out)
    assert (code, found["well"]) == (2, False)
    assert set(found["cache"]["packages"].values()) == {"missing"}
    assert found["cache"]["size"] == 0
    (problem,) = found["problems"]
    assert problem.endswith("Next: `soi fetch`")
    assert found["variables"]["SOI_CACHE"] == str(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()  # it only looks


def test_a_damaged_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SOI_CACHE", str(tmp_path))
    package = read_list()[0]
    package.path.parent.mkdir()
    package.path.write_bytes(b"PK")
    found = examine(tmp_path)
    assert found["cache"]["packages"][package.name] == "damaged"
    assert any(f"{package.name} (damaged)" in line for line in found["problems"])


def hide(monkeypatch, *names: str) -> None:
    """As if these packages were not installed: no metadata, and an import fails."""
    version = importlib.metadata.version

    def without(name: str) -> str:
        if name in names:
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr("soi_lib.cli.doctor.version", without)
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


def test_without_torch_it_says_so(soi, wheels, monkeypatch):
    hide(monkeypatch, "torch", "transformers")
    code, out, _ = soi("doctor", "--json")
    found = json.loads(out)
    assert code == 2
    assert found["device"]["kind"] is None
    (problem,) = found["problems"]
    assert problem == "training needs torch, transformers. Next: `pip install 'soi_lib[train]'`"
    assert any("training" in line and "not here" in line for line in found["would_run"])
    code, out, _ = soi("doctor")
    assert code == 2
    assert "none: torch is not installed" in out


def test_a_book_that_cannot_be_made_is_only_a_note(wheels, monkeypatch):
    hide(monkeypatch, "plotly")
    found = examine()
    assert found["problems"] == []
    assert found["notes"] == ["figures and the book needs plotly. Next: `pip install 'soi_lib[book]'`"]


def test_an_old_or_broken_torch(wheels, monkeypatch):
    monkeypatch.setattr(
        "soi_lib.cli.doctor.version", lambda name: "1.0" if name == "torch" else importlib.metadata.version(name)
    )
    monkeypatch.setitem(sys.modules, "torch", None)
    found = examine()
    assert any("training needs torch>=" in line for line in found["problems"])
    assert any(line.startswith("torch cannot be used; found") for line in found["problems"])
    assert found["device"]["name"] == "none: torch cannot be used"


def test_a_folder_that_cannot_be_written(wheels, monkeypatch, tmp_path):
    monkeypatch.setattr("os.access", lambda path, mode: not Path(path).is_relative_to(tmp_path))
    found = examine(tmp_path / "runs")
    assert found["runs"]["writable"] is False
    assert found["problems"] == [
        f"{tmp_path}: may not be written to. Next: change that, or choose another folder with --runs"
    ]
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    assert "is no folder" in examine(tmp_path / "file" / "runs")["problems"][0]


def test_a_disk_without_room(monkeypatch, tmp_path):
    monkeypatch.setenv("SOI_CACHE", str(tmp_path))
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 5 * 10**7})())
    assert any("the disk has 50.0 MB free" in line for line in examine(tmp_path)["problems"])


@pytest.fixture
def driver(monkeypatch, tmp_path):
    """A program `nvidia-smi` on the path that says this and ends so, and no device files."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "glob", lambda pattern: [])

    def say(text: str, code: int = 0) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {code}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return say


TWO = "NVIDIA A100-SXM4-80GB, 81920 MiB, 580.65.06\nTesla T4, 15360 MiB, 580.65.06"


def test_a_cpu_build_of_torch_beside_a_gpu_is_a_note_with_the_remedy(soi, wheels, driver, monkeypatch):
    driver(TWO)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch, "__version__", "2.13.0+cpu")
    code, out, _ = soi("doctor", "--json")
    found = json.loads(out)
    assert (code, found["device"]["kind"]) == (0, "cpu")
    assert found["gpu"]["seen"][1] == {"name": "Tesla T4", "memory": "15360 MiB", "driver": "580.65.06"}
    assert found["gpu"]["why_not"] == "torch 2.13.0+cpu is built for CPUs only"
    (note,) = found["notes"]
    assert "A100" in note
    assert "`pip uninstall torch`, then `pip install torch==2.13.0`" in note
    _, out, _ = soi("doctor")
    shown = " ".join(out.split())
    assert "NVIDIA A100-SXM4-80GB, 81920 MiB, driver 580.65.06, torch cannot use it" in shown
    assert f"note: {note}" in out


def test_a_gpu_that_is_hidden_or_whose_driver_fails(driver, monkeypatch):
    def init():
        raise RuntimeError("The NVIDIA driver on your system is too old\n(found version 11040).")

    driver(TWO)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", init)
    assert examine()["gpu"]["why_not"] == "The NVIDIA driver on your system is too old (found version 11040)."
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = examine()
    assert found["gpu"]["why_not"] == "CUDA_VISIBLE_DEVICES is ''"
    assert found["variables"]["CUDA_VISIBLE_DEVICES"] == ""


def test_a_driver_that_does_not_answer_leaves_the_device_files(driver, monkeypatch):
    driver("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", code=9)
    assert devices.nvidia_gpus() == []
    monkeypatch.setattr(devices, "glob", lambda pattern: ["/dev/nvidia3"])
    assert devices.nvidia_gpus() == [{"name": "an NVIDIA GPU"}]


def test_a_gpu_that_torch_can_use(soi, wheels, driver, monkeypatch):
    driver(TWO)
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
    assert (found["device"]["kind"], found["device"]["device"], found["device"]["count"]) == ("cuda", "cuda:1", 1)
    assert (found["gpu"]["usable"], found["gpu"]["cuda"], found["notes"]) == (2, "13.0", [])
    assert any("on NVIDIA A100-SXM4-80GB in bf16, 4 runs side by side" in line for line in found["would_run"])
    shown = " ".join(soi("doctor")[1].split())
    assert "Tesla T4, 15360 MiB, driver 580.65.06, torch can use 2 (CUDA 13.0)" in shown
    assert devices.describe_device(torch.device("cuda")) == {
        "device": "NVIDIA A100-SXM4-80GB", "cuda": "13.0", "driver": "580.65.06",
    }  # fmt: skip


def test_other_makers_gpus_are_seen_and_not_used(soi, wheels, driver, monkeypatch):
    driver("", code=6)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    found = examine()
    assert (found["gpu"]["others"], found["device"]["kind"], found["notes"]) == (["MPS (Apple)"], "cpu", [])
    assert "MPS (Apple): seen, but not supported" in " ".join(soi("doctor")[1].split())


def test_a_device_that_is_asked_for_and_not_there_is_a_problem(monkeypatch):
    monkeypatch.setenv("SOI_DEVICE", "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    found = examine()
    assert found["device"]["kind"] is None
    assert any(line.startswith("--device cuda: this device is not there") for line in found["problems"])
