"""Fetching packages with the real pip from a small registry on this machine."""

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


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Start a registry of static files, with an empty cache and no other configuration of pip; yield the requests."""
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
        yield asked


def in_cache() -> list[str]:
    folder = packages.cache_dir() / "packages"
    return sorted(path.name for path in folder.glob("*") if path.name != ".lock")


def wheels_in(requests: list[str]) -> list[str]:
    return [path for path in requests if path.endswith(".whl")]


def test_packages_are_fetched_once(registry: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [make_wheel(tmp_path / "registry", name) for name in ("first", "second")]
    paths = packages.fetch(packages=wanted)
    assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths] == [one.sha256 for one in wanted]
    assert in_cache() == sorted(path.name for path in paths)
    assert len(wheels_in(registry)) == 2

    asked = len(registry)
    monkeypatch.setattr(packages.subprocess, "run", lambda *_, **__: pytest.fail("pip was started"))
    assert packages.fetch(packages=wanted) == paths
    monkeypatch.setattr(files, "sha256_file", lambda *_: pytest.fail("hashed again despite the stamps"))
    assert packages.fetch(packages=wanted) == paths
    assert len(registry) == asked


@pytest.mark.parametrize(
    ("version", "index", "named"),
    [("1.0", None, "first 1.0"), ("2.0", None, "first 2.0"), ("1.0", "http://127.0.0.1:9/", "PIP_INDEX_URL")],
)
def test_a_failed_fetch_names_the_package_and_leaves_nothing(registry, tmp_path, monkeypatch, version, index, named):
    """A file with another hash, a missing version, a registry that does not answer."""
    make_wheel(tmp_path / "registry", "first")
    if index:
        monkeypatch.setenv("PIP_INDEX_URL", index)
    with pytest.raises(FetchError, match=named) as caught:
        packages.fetch(progress=False, packages=[Package("first", version, "0" * 64)])
    assert "\n" not in str(caught.value)
    assert in_cache() == []


def test_damaged_wheel_is_put_aside_and_fetched_again(registry, tmp_path, caplog):
    wanted = make_wheel(tmp_path / "registry", "first")
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


def test_two_processes_fetch_once_and_remove_what_a_killed_one_left(registry: list[str], tmp_path: Path) -> None:
    wanted = make_wheel(tmp_path / "registry", "first")
    killed = files.temporary().replace(str(os.getpid()), str(2**30))  # what a killed fetch has left
    (packages.cache_dir() / "packages" / killed / "out").mkdir(parents=True)
    script = (
        "from soi_lib.packages import Package, fetch\n"
        f"fetch(progress=False, packages=[Package('first', '1.0', '{wanted.sha256}')])"
    )
    both = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    assert [one.wait(timeout=60) for one in both] == [0, 0]
    assert len(wheels_in(registry)) == 1
    assert in_cache() == [wanted.path.name]
