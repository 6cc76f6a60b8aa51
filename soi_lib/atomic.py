"""Writing so that a reader never meets half a file: write beside, fsync, rename.

Everything the library leaves on disk goes through here. A killed process leaves at most a name that starts with
`.tmp-` and carries its number, which no reader opens and `sweep` removes once that process is gone.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from soi_lib.errors import OutputExistsError, SoiError

PREFIX = ".tmp-"


def _owner() -> str:
    """This process, as part of a temporary name: a hash of the host's name and the process number."""
    return f"{zlib.crc32(platform.node().encode()):08x}.{os.getpid()}-"


def _left_over(path: Path) -> bool:
    """Whether nobody is writing `path` any more: its process was on this machine and is gone."""
    host, _, rest = path.name.removeprefix(PREFIX).partition(".")
    number = rest.partition("-")[0]
    if not number.isdigit() or host != _owner().partition(".")[0]:
        return not number.isdigit()  # of another machine that shares the disk: not ours to judge
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
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
        hint="free some space, or choose a folder that you may write to",
    )


@contextmanager
def replacing(path: str | os.PathLike[str], *, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it becomes `path`, on any error it is removed.

    Raises OutputExistsError when `path` exists and `overwrite` is false, and SoiError when the disk or the
    permissions do not allow the write.
    """
    target = Path(path)
    if target.is_dir():
        raise SoiError(
            "a directory stands where a file should be written", where=target, hint="give the name of a file"
        )
    if target.exists() and not overwrite:
        raise OutputExistsError("the file is already there", where=target, hint="pass --force to replace it")
    tmp: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(prefix=PREFIX + _owner(), suffix=target.suffix, dir=target.parent)
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
def building(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder that becomes `folder` when the block ends without an error.

    When `folder` already exists (another process was quicker) the new one is dropped: whoever builds into a
    content-addressed place builds the same thing.
    """
    target = Path(folder)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        tmp = Path(tempfile.mkdtemp(prefix=PREFIX + _owner(), dir=target.parent))
    except OSError as error:
        raise _refused(target, error) from error
    try:
        yield tmp
        for file in sorted(tmp.rglob("*")):
            if file.is_file():
                with open(file, "rb+") as handle:
                    os.fsync(handle.fileno())
        os.chmod(tmp, 0o755)
        if not target.exists():
            os.rename(tmp, target)
            _fsync_dir(target.parent)
    except OSError as error:
        raise _refused(target, error) from error
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


def sweep(folder: str | os.PathLike[str]) -> list[Path]:
    """Remove what killed processes left under `folder`, not what living ones are writing; return what was removed."""
    removed = []
    for left in sorted(Path(folder).rglob(f"{PREFIX}*")):
        if not _left_over(left):
            continue
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
        removed.append(left)
    return removed
