"""Files: written so that a reader never meets half of one, and known to be the ones that were written.

The only place that knows where things are, how to write in one step, replace a folder, hold a lock and hash.
Everything the library leaves on disk goes through here: written beside, synced, renamed. A killed process leaves at
most a name that starts with `.tmp-` and carries its number, which no reader opens. Whoever writes into that folder next
removes it, once that process is gone; `sweep` does so in all folders below.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import os
import platform
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
    """The root of the cache, `$SOI_CACHE` or the platform's user cache (not created here).

    It holds fetched packages, built corpora and converted encoders, each under a name that contains its hash, so that
    nothing in it ever has to be invalidated.
    """
    return Path(os.environ["SOI_CACHE"]).expanduser() if os.environ.get("SOI_CACHE") else user_cache_path("soi_lib")


def resource(name: str) -> Path:
    """A file that ships with the library, such as `packages.txt`: inside the wheel, or in `data` of a checkout."""
    inside = _PACKAGE / "resources" / name
    return inside if inside.exists() else _PACKAGE.parent / "data" / name


def temporary() -> str:
    """How a temporary name of this process begins: a hash of the host's name, and the process number."""
    return f"{PREFIX}{zlib.crc32(platform.node().encode()):08x}.{os.getpid()}-"


def _left_over(path: Path) -> bool:
    """Whether nobody is writing `path` any more: its process was on this machine and is gone."""
    host, _, rest = path.name.removeprefix(PREFIX).partition(".")
    number = rest.partition("-")[0]
    if not number.isdigit() or not temporary().startswith(f"{PREFIX}{host}."):
        return False  # not one of ours, or of another machine that shares the disk: not ours to judge
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it lives, and is another user's
    return False


def _fsync_dir(folder: Path) -> None:
    """Make a rename in `folder` durable (a no-op where directories cannot be opened)."""
    try:
        fd = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _refused(target: Path, error: OSError) -> SoiError:
    """What to tell a person when the disk or the permissions do not allow the write."""
    return SoiError(
        "could not write",
        where=target,
        found=error.strerror or error,
        hint="a part of this path is a file: choose another"
        if isinstance(error, (NotADirectoryError, FileExistsError))
        else "free some space, or choose a folder that you may write to",
    )


@contextmanager
def replacing(path: str | os.PathLike[str], *, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it becomes `path`, on any error it is removed.

    Raises OutputExistsError when `path` exists and `overwrite` is false, and SoiError when the disk or the
    permissions do not allow the write.
    """
    target = Path(path)
    if target.is_dir():
        raise SoiError("this is a directory, not a file", where=target, hint="give the name of a file")
    if target.exists() and not overwrite:
        raise OutputExistsError("the file is already there", where=target, hint="pass overwrite=True to replace it")
    tmp: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove(target.parent.glob(f"{PREFIX}*"))
        fd, name = tempfile.mkstemp(prefix=temporary(), suffix=target.suffix, dir=target.parent)
        os.close(fd)
        tmp = Path(name)
        yield tmp
        with open(tmp, "rb+") as handle:
            os.fsync(handle.fileno())
        os.chmod(tmp, 0o644)
        os.replace(tmp, target)
        _fsync_dir(target.parent)
    except OSError as error:
        raise _refused(target, error) from error
    finally:
        if tmp is not None and tmp.exists():
            tmp.unlink()


def write_bytes(path: str | os.PathLike[str], data: bytes, *, overwrite: bool = True) -> None:
    """Write `data` to `path` in one step that a reader sees whole or not at all."""
    with replacing(path, overwrite=overwrite) as tmp:
        tmp.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str, *, overwrite: bool = True) -> None:
    """Write `text` as UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"), overwrite=overwrite)


def json_text(value: Any) -> str:
    """Indented JSON with sorted keys: equal values are equal bytes."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def write_json(path: str | os.PathLike[str], value: Any, *, overwrite: bool = True) -> None:
    """Write `json_text(value)`; see `write_bytes`."""
    write_text(path, json_text(value), overwrite=overwrite)


@contextmanager
def building(folder: str | os.PathLike[str], *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that becomes `folder` when the block ends without an error.

    When `folder` already exists (another process was quicker) the new one is dropped: whoever builds into a
    content-addressed place builds the same thing. With `replace` the new one takes its place, in one step where the
    file system can swap two names. Where it cannot, a process that is killed between two renames leaves the old
    folder under a temporary name, and the next one brings it back.
    """
    target = Path(folder)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove(target.parent.glob(f"{PREFIX}*"))
        tmp = Path(tempfile.mkdtemp(prefix=temporary(), dir=target.parent))
    except OSError as error:
        raise _refused(target, error) from error
    try:
        yield tmp
        for file in sorted(tmp.rglob("*")):
            if file.is_file():
                with open(file, "rb+") as handle:
                    os.fsync(handle.fileno())
        os.chmod(tmp, 0o755)
        if replace and target.exists():
            _swap(tmp, target)
        elif not target.exists():
            os.rename(tmp, target)
        _fsync_dir(target.parent)
    except OSError as error:
        raise _refused(target, error) from error
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


def _swap(tmp: Path, target: Path) -> None:
    """Exchange the names of two folders."""
    with suppress(OSError, AttributeError):  # not Linux, or an old one
        at_cwd, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of renameat2(2)
        if ctypes.CDLL(None).renameat2(at_cwd, os.fsencode(tmp), at_cwd, os.fsencode(target), exchange) == 0:
            return
    old = target.with_name(f"{temporary()}{_OLD}{target.name}")
    os.rename(target, old)
    os.rename(tmp, target)
    os.rename(old, tmp)


def sweep(folder: str | os.PathLike[str]) -> list[Path]:
    """Remove what killed processes left under `folder`, not what living ones are writing; return what was removed."""
    return _remove(Path(folder).rglob(f"{PREFIX}*"))


def _remove(found: Iterable[Path]) -> list[Path]:
    """Remove those temporary files and folders that nobody is writing any more; return them."""
    removed = [left for left in sorted(found) if _left_over(left)]
    for left in removed:
        _, old, name = left.name.partition(f"-{_OLD}")
        with suppress(OSError):  # not ours to remove; no reader opens it
            if old and not left.with_name(name).exists():  # killed when the old was away and the new not yet there
                os.rename(left, left.with_name(name))
            elif left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink(missing_ok=True)
    return removed


# --- locks and hashes ------------------------------------------------------------------------------------------------


@contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Hold the lock file `path`, one process at a time. The operating system frees it when its owner is gone."""
    from filelock import FileLock

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield


def sha256_file(path: str | os.PathLike[str]) -> str:
    """The sha256 of a file's bytes, in hex."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def stamped_sha256(path: Path, *, verify: bool = False) -> str:
    """The hex sha256 of `path`: from its stamp in the cache when size and time still agree, else computed and stamped.

    `verify` computes it anyway. A stamp that cannot be written (a read-only cache) only costs time.
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
    with suppress(SoiError):
        write_text(stamp, _stamp(stat.st_size, stat.st_mtime_ns, digest))
    return digest


def _stamp(size: object, mtime_ns: object, digest: str) -> str:
    """A stamp's one line: size, time and sha256 of a file, and the sha256 of these."""
    body = f"{size} {mtime_ns} {digest}"
    return f"{body} {hashlib.sha256(body.encode()).hexdigest()}\n"


def checksums(folder: Path) -> dict[str, str]:
    """The sha256 of every file below `folder` by its relative path, sorted."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): sha256_file(file) for file in files}


def write_checksums(folder: Path, name: str) -> None:
    """Write the file `name` into `folder`: the sha256 of every other file, in the format of sha256sum."""
    write_text(folder / name, "".join(f"{digest}  {file}\n" for file, digest in checksums(folder).items()))


def read_checksums(path: Path) -> dict[str, str]:
    """What `write_checksums` wrote, sha256 by name. Raises ValueError for other lines, OSError."""
    *lines, end = path.read_bytes().decode().split("\n")
    listed = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    if end or not listed or len(listed) != len(lines):
        raise ValueError("lines are missing or repeated")
    return listed
