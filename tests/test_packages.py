"""Fetching packages with the real pip from a small registry on this machine."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from fake_hub import serving

from soi_lib import files, packages
from soi_lib.errors import FetchError
from soi_lib.packages import Package


def make_wheel(folder: Path, name: str) -> Package:
    """Put a small wheel of random data where a registry serves it."""
    meta = f"{name}-1.0.dist-info"
    members = {
        f"{name}/data.bin": np.random.default_rng(len(name)).bytes(30_000),
        f"{meta}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{meta}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, body in members.items():
            archive.writestr(path, body)
    folder = folder / "simple" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}-1.0-py3-none-any.whl").write_bytes(buffer.getvalue())
    return Package(name, "1.0", hashlib.sha256(buffer.getvalue()).hexdigest())


class Registry(NamedTuple):
    """Its folder, its address, and the paths of all requests."""

    root: Path
    url: str
    requests: list[str]

    def downloads(self) -> list[str]:
        return [path for path in self.requests if path.endswith(".whl")]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """Start a registry of static files, with an empty cache and no other configuration of pip."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            asked.append(self.path)

    with serving(partial(Handler, directory=str(tmp_path / "registry"))) as url:
        for name in [name for name in os.environ if name.startswith("PIP_") or name.lower().endswith("_proxy")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", f"{url}/simple/")
        monkeypatch.setenv("SOI_CACHE", str(tmp_path / "cache"))
        yield Registry(tmp_path / "registry", f"{url}/simple/", asked)


def in_cache() -> list[str]:
    """List the folder of packages, without the lock."""
    folder = packages.cache_dir() / "packages"
    return sorted(path.name for path in folder.glob("*") if path.name != ".lock")


def test_packages_are_fetched_once(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [make_wheel(registry.root, "first"), make_wheel(registry.root, "second")]
    paths = packages.fetch(packages=wanted)
    assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths] == [one.sha256 for one in wanted]
    assert in_cache() == sorted(path.name for path in paths)
    assert len(registry.downloads()) == 2

    asked = len(registry.requests)
    monkeypatch.setattr(packages.subprocess, "run", lambda *_, **__: pytest.fail("pip was started"))
    assert packages.fetch(packages=wanted) == paths
    monkeypatch.setattr(files, "sha256_file", lambda *_: pytest.fail("hashed again despite the stamps"))
    assert packages.fetch(packages=wanted) == paths
    assert len(registry.requests) == asked


@pytest.mark.parametrize(
    ("version", "index", "named"),
    [("1.0", None, "first 1.0"), ("2.0", None, "first 2.0"), ("1.0", "http://127.0.0.1:9/", "PIP_INDEX_URL")],
)
def test_a_failed_fetch_names_the_package_and_leaves_nothing(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, version: str, index: str | None, named: str
) -> None:
    """A file with another hash, a missing version, a registry that does not answer."""
    make_wheel(registry.root, "first")
    monkeypatch.setenv("PIP_INDEX_URL", index or registry.url)
    with pytest.raises(FetchError, match=named) as caught:
        packages.fetch(progress=False, packages=[Package("first", version, "0" * 64)])
    assert "\n" not in str(caught.value)
    assert in_cache() == []


def test_damaged_wheel_is_put_aside_and_fetched_again(registry: Registry, caplog: pytest.LogCaptureFixture) -> None:
    wanted = make_wheel(registry.root, "first")
    (path,) = packages.fetch(progress=False, packages=[wanted])
    good = path.read_bytes()
    bad = good[:1000] + bytes([good[1000] ^ 1]) + good[1001:]

    path.write_bytes(bad)
    assert packages.fetch(progress=False, packages=[wanted]) == [path]
    assert path.read_bytes() == good
    assert path.with_name(path.name + ".damaged").read_bytes() == bad
    assert path.name in caplog.text

    before = path.stat()
    path.write_bytes(bad)  # with the size and time of the good one, so that only hashing shows it
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    packages.fetch(progress=False, packages=[wanted])
    assert path.read_bytes() == bad
    packages.fetch(progress=False, packages=[wanted], verify=True)
    assert path.read_bytes() == good


def test_two_processes_fetch_once(registry: Registry) -> None:
    wanted = make_wheel(registry.root, "first")
    script = (
        "from soi_lib.packages import Package, fetch\n"
        f"fetch(progress=False, packages=[Package('first', '1.0', '{wanted.sha256}')])"
    )
    both = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    assert [one.wait(timeout=60) for one in both] == [0, 0]
    assert len(registry.downloads()) == 1
    assert in_cache() == [wanted.path.name]
