"""Write files atomically, so that readers never see a partial one, and hash them to detect changes.

Only this module knows where files live and how to write, replace folders, lock and hash. Everything that the library
keeps on disk is written next to its target, synced and renamed. A killed process leaves at most a file or folder whose
name starts with `.tmp-` and contains the process number; no reader opens it. The next writer to that folder removes it
if its process has ended; `sweep` does the same for a folder and everything below it.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import os
import platform
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from soi_lib.errors import OutputExistsError, SoiError

PREFIX = ".tmp-"
log = logging.getLogger("soi_lib")
_OLD = "old-"
_PACKAGE = Path(__file__).resolve().parent


def cache_dir() -> Path:
    """Return the root of the cache of packages, corpora and encoders: `$SOI_CACHE`, or the platform's user cache."""
    return Path(os.environ["SOI_CACHE"]).expanduser() if os.environ.get("SOI_CACHE") else user_cache_path("soi_lib")


def resource(name: str) -> Path:
    """Return the path of a shipped file, such as `packages.txt`: inside the wheel, or in `data` of a checkout."""
    inside = _PACKAGE / "resources" / name
    return inside if inside.exists() else _PACKAGE.parent / "data" / name


def temporary() -> str:
    """Return the prefix of this process's temporary names: a hash of the host name, and the process number."""
    return f"{PREFIX}{zlib.crc32(platform.node().encode()):08x}.{os.getpid()}-"


def _left_over(path: Path) -> bool:
    """Return whether `path` is a leftover: its process ran on this machine and has ended."""
    ours, _, _ = temporary().rpartition(".")
    found = re.match(rf"{re.escape(ours)}\.(\d+)-", path.name)
    if found is None:
        return False  # not our kind of name, or from another machine that shares the disk: it may be in use
    try:
        os.kill(int(found[1]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it is running, as another user
    with suppress(OSError, IndexError):  # a killed process keeps its number until its parent takes note of its end
        return Path(f"/proc/{found[1]}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    return False


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Yield a new folder next to `target`, in which to prepare it; remove what is left of it afterwards.

    Raises SoiError if the disk or the permissions do not allow a write in the block.
    """
    folder: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove(target.parent.glob(f"{PREFIX}*"))
        folder = Path(tempfile.mkdtemp(prefix=temporary(), dir=target.parent))
        yield folder
        with suppress(PermissionError):  # some systems cannot open a folder
            _fsync(target.parent)
    except OSError as error:
        hint = "free some space, or choose a folder that you may write to"
        if isinstance(error, NotADirectoryError | FileExistsError):
            hint = "part of this path is a file: choose another path"
        raise SoiError("could not write", where=target, found=error.strerror or error, hint=hint) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _fsync(path: Path) -> None:
    """Make the content of a file, or the renames in a folder, durable."""
    opened = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@contextmanager
def replacing(path: str | os.PathLike[str], *, overwrite: bool = True) -> Iterator[Path]:
    """Yield a path in a temporary folder next to `path`; on success it becomes `path`, on any error it is removed.

    Whatever a library writes beside the file is in that folder too, so it is removed even after a kill. Raises
    OutputExistsError if `path` exists and `overwrite` is false, and SoiError if the disk or the permissions do not
    allow the write.
    """
    target = Path(path)
    if target.is_dir():
        raise SoiError("this is a directory, not a file", where=target, hint="give the name of a file")
    if target.exists() and not overwrite:
        raise OutputExistsError("the file is already there", where=target, hint="pass overwrite=True to replace it")
    with _beside(target) as folder:
        tmp = folder / target.name
        yield tmp
        _fsync(tmp)
        os.chmod(tmp, 0o644)
        os.replace(tmp, target)


def write_bytes(path: str | os.PathLike[str], data: bytes, *, overwrite: bool = True) -> None:
    """Write `data` to `path` atomically: readers see all of it or none."""
    with replacing(path, overwrite=overwrite) as tmp:
        tmp.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str, *, overwrite: bool = True) -> None:
    """Write `text` as UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"), overwrite=overwrite)


def json_text(value: Any) -> str:
    """Return indented JSON with sorted keys, so that equal values give equal bytes."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def write_json(path: str | os.PathLike[str], value: Any, *, overwrite: bool = True) -> None:
    """Write `json_text(value)`; see `write_bytes`."""
    write_text(path, json_text(value), overwrite=overwrite)


@contextmanager
def building(folder: str | os.PathLike[str], *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that becomes `folder` if the block ends without an error.

    If `folder` already exists (another process was faster), the new one is discarded: for a content-addressed name,
    every process builds the same folder. With `replace`, the new folder replaces the existing one, atomically where the
    file system can swap two names. Elsewhere, a process killed between two renames leaves the old folder under a
    temporary name, and the next process restores it.
    """
    target = Path(folder)
    with _beside(target) as tmp:
        yield tmp
        for file in sorted(tmp.rglob("*")):
            if file.is_file():
                _fsync(file)
        os.chmod(tmp, 0o755)
        if replace and target.exists():
            _swap(tmp, target)
        elif not target.exists():
            os.rename(tmp, target)


def _swap(tmp: Path, target: Path) -> None:
    """Swap the names of two folders."""
    with suppress(OSError, AttributeError):  # not Linux, or an old kernel
        at_cwd, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of renameat2(2)
        if ctypes.CDLL(None).renameat2(at_cwd, os.fsencode(tmp), at_cwd, os.fsencode(target), exchange) == 0:
            return
    old = target.with_name(f"{temporary()}{_OLD}{target.name}")
    os.rename(target, old)
    os.rename(tmp, target)
    os.rename(old, tmp)


def sweep(folder: str | os.PathLike[str]) -> list[Path]:
    """Remove what ended processes left under `folder`, not what running ones are writing; return what was removed."""
    return _remove(Path(folder).rglob(f"{PREFIX}*"))


def _remove(found: Iterable[Path]) -> list[Path]:
    """Remove the temporary files and folders whose process has ended; return them."""
    removed = [left for left in sorted(found) if _left_over(left)]
    for left in removed:
        _, old, name = left.name.partition(f"-{_OLD}")
        with suppress(OSError):  # we may not be allowed to remove it; no reader opens it
            if old and not left.with_name(name).exists():  # killed between the first two renames of `_swap`
                os.rename(left, left.with_name(name))
            elif left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink(missing_ok=True)
    return removed


# --- locks and hashes ------------------------------------------------------------------------------------------------


@contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Hold the lock file `path`, one process at a time. The operating system releases it if its owner dies."""
    from filelock import FileLock

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def stamped_sha256(path: Path, *, verify: bool = False) -> str:
    """Return the hex sha256 of `path`: from its stamp in the cache if size and time match, else computed and stamped.

    `verify` always computes it.
    """
    stat = path.stat()
    name = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:20]
    stamp = cache_dir() / "stamps" / f"{name}.txt"
    text = ""
    with suppress(OSError):
        text = "" if verify else stamp.read_text(encoding="utf-8", errors="replace")
    size, time, digest, *_ = [*text.split(" "), "", "", ""]
    if text and text != _stamp(size, time, digest):
        log.warning("%s: the stamp is damaged; hashing its file again", stamp)
    elif (size, time) == (str(stat.st_size), str(stat.st_mtime_ns)):
        return digest
    digest = sha256_file(path)
    with suppress(SoiError):  # a read-only cache costs only time
        write_text(stamp, _stamp(stat.st_size, stat.st_mtime_ns, digest))
    return digest


def _stamp(size: object, mtime_ns: object, digest: str) -> str:
    """Return the line of a stamp: size, time and sha256 of a file, and the sha256 of these three."""
    body = f"{size} {mtime_ns} {digest}"
    return f"{body} {hashlib.sha256(body.encode()).hexdigest()}\n"


def checksums(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file below `folder`, by relative path, sorted."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): sha256_file(file) for file in files}


def write_checksums(folder: Path, name: str) -> None:
    """Write the sha256 of every file in `folder` to its new file `name`, in the format of sha256sum."""
    write_text(folder / name, "".join(f"{digest}  {file}\n" for file, digest in checksums(folder).items()))


def read_checksums(path: Path) -> dict[str, str]:
    """Read a file of `write_checksums`: sha256 by name. Raises ValueError for invalid lines, and OSError."""
    *lines, end = path.read_bytes().decode().split("\n")
    listed = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    if end or not listed or len(listed) != len(lines):
        raise ValueError("lines are missing or repeated")
    return listed
