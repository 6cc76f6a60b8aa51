"""The store of runs: one folder per run, named by its key, that is either complete or absent.

`<root>/<key>/` contains manifest.json, metrics.json, dynamics/<member>.parquet (and dynamics-train/ if both modes were
recorded), predictions/<member>.parquet and log.jsonl. The folder is built under a temporary name and renamed when it is
complete; the manifest has the sha256 of every other file and of itself. A run whose files do not match is reported and
never used. It stays in place until it is trained again; then it is moved to `<root>/quarantine/`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock

from soi_lib.dynamics import TrainingDynamics
from soi_lib.errors import StoreError
from soi_lib.files import building, checksums, json_text, sha256_file, sweep, write_json
from soi_lib.runs.config import Setting
from soi_lib.training.device import is_writer, meet

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"


def _seal(manifest: dict[str, Any]) -> str:
    """Return the sha256 of a manifest without its own sha256."""
    body = {k: v for k, v in manifest.items() if k != "sha256"}
    return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


@dataclass(frozen=True)
class StoredRun:
    """A finished run on disk; its files are read when they are needed."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def key(self) -> str:
        """The run's key."""
        return str(self.manifest["key"])

    @property
    def comparison(self) -> str:
        """The comparison: task, source, lingual or user."""
        return str(self.manifest["identity"]["comparison"])

    @property
    def setting(self) -> Setting:
        """The datasets that were trained together, and their budget (full if the run does not state one)."""
        identity = self.manifest["identity"]
        return Setting(identity["setting"], identity.get("budget", "full"))

    @property
    def record(self) -> Literal["train", "eval", "both"]:
        """Which modes were recorded; with both, evaluation mode is the primary one."""
        training: dict[str, Any] = (self.stage or self.manifest["identity"]).get("training") or {}
        return training.get("record", "train")

    @property
    def seed(self) -> int:
        """The seed."""
        return int(self.manifest["identity"]["seed"])

    @property
    def stage(self) -> dict[str, Any] | None:
        """The start, subset, control and training of a second stage; None for other runs."""
        return self.manifest["identity"].get("stage")

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """metrics.json: for each member its size, category counts, test and OOD metrics, and baselines."""
        return dict(json.loads((self.folder / "metrics.json").read_text(encoding="utf-8")))

    def dynamics(self, member: str, mode: Literal["train", "eval"] | None = None) -> TrainingDynamics:
        """Return the dynamics of one dataset, by default in the run's primary mode; each file is read once.

        Raises:
            StoreError: the dataset was not part of the run, or `mode` was not recorded.
        """
        if mode is not None and self.record not in (mode, "both"):
            raise StoreError(f"{mode} mode was not recorded", where=self.folder, found=f"record: {self.record}")
        folder = "dynamics-train" if mode == "train" and self.record == "both" else "dynamics"
        path = self.folder / folder / f"{member}.parquet"
        if not path.exists():
            what, expected = "no such dataset in this run", " or ".join(self.setting)
            raise StoreError(what, where=self.folder, found=repr(member), expected=expected)
        if path not in self._dynamics:
            self._dynamics[path] = TrainingDynamics.load(path)
        return self._dynamics[path]

    @cached_property
    def _dynamics(self) -> dict[Path, TrainingDynamics]:
        return {}

    def curves(self) -> pd.DataFrame:
        """Return train_loss, train_accuracy, validation_loss and validation_accuracy per epoch (from 0) and dataset.

        Losses in nats. NaN if there were no validation examples; no rows for runs made before curves were recorded.
        """
        import pandas as pd

        lines = (self.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [
            {"epoch": line["epoch"], "dataset": name, **values}
            for line in map(json.loads, lines)
            for name, values in line.get("datasets", {}).items()
        ]
        scores = [f"{split}_{what}" for split in ("train", "validation") for what in ("loss", "accuracy")]
        return pd.DataFrame(rows, columns=["epoch", "dataset", *scores]).astype(dict.fromkeys(scores, float))

    def predictions(self, member: str, columns: list[str] | None = None) -> Any:
        """Return the final predictions: a DataFrame with split, id, gold, predicted, p_gold, or some `columns`."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.folder / "predictions" / f"{member}.parquet") as file:
            return file.read(columns, use_threads=False).to_pandas(use_threads=False)  # too small for threads


class RunStore:
    """A folder of runs by key. Several processes may use it at once; `lock` keeps two from training the same run."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def path(self, key: str) -> Path:
        """Return the folder of the run `key`, which need not exist."""
        return self.root / key

    def checkpoint_path(self, key: str) -> Path:
        """Return the file with the state of an unfinished run."""
        return self.root / "unfinished" / f"{key}.safetensors"

    def weights_path(self, key: str) -> Path:
        """Return the file of a run's final weights, if kept: outside its folder, since they can be recreated."""
        return self.root / "weights" / f"{key}.safetensors"

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Lock the run `key`. The operating system releases the lock when its owner exits."""
        try:
            (self.root / "locks").mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / "locks" / f"{key}.lock").acquire()
        except OSError as error:
            what, hint = "the store cannot be written", "free some space, or choose another folder with --runs"
            raise StoreError(what, where=self.root, found=error.strerror or error, hint=hint) from error
        with lock:
            yield

    def get(self, key: str) -> StoredRun | None:
        """Return the finished run `key`, verified; None if it is missing or damaged (a warning says how).

        Raises StoreError if the run's folder is a link: its target may change without the store.
        """
        folder = self.path(key)
        if folder.is_symlink():
            hint = "copy the run itself there, or remove the link"
            raise StoreError("the run is a link, not a folder", where=folder, hint=hint)
        if not folder.exists():
            return None
        try:
            return self._open(key)
        except StoreError as error:
            _warn_once(f"{error} The run is treated as not done.")
            return None

    def _open(self, key: str) -> StoredRun:
        run = open_run(self.path(key))
        if run.key != key:
            raise StoreError("the manifest has another key", where=run.folder, found=run.key, expected=key)
        return run

    def __iter__(self) -> Iterator[StoredRun]:
        """Yield all finished runs that verify, in the order of their keys."""
        for manifest in sorted(self.root.glob(f"*/{MANIFEST}")):
            if (run := self.get(manifest.parent.name)) is not None:
                yield run

    def write(self, key: str, manifest: dict[str, Any], fill: Callable[[Path], None]) -> StoredRun:
        """Write the folder of the run `key`: `fill` writes its files to a temporary folder, which is then sealed.

        A damaged run in its place is moved away. If several processes trained it together, the first one does this,
        and all of them open the run.
        """

        if is_writer():
            self.put_aside(key)
            with building(self.path(key)) as folder:
                fill(folder)
                seal(folder, {**manifest, "key": key})
            self.checkpoint_path(key).unlink(missing_ok=True)
        meet()
        return open_run(self.path(key))

    def tidy(self) -> None:
        """Remove what killed processes left behind: temporary files, and states of runs that were finished later."""
        sweep(self.root)
        for state in sorted((self.root / "unfinished").glob("*.safetensors")):
            with suppress(OSError):  # no such run yet; a newer state is of weights being recreated
                if state.stat().st_mtime_ns <= (self.path(state.stem) / MANIFEST).stat().st_mtime_ns:
                    state.unlink()

    def put_aside(self, key: str) -> None:
        """Move the run `key` to `quarantine/` if it is damaged, before it is trained again. Raises StoreError."""
        folder = self.path(key)
        if not folder.exists():
            return
        try:
            self._open(key)
        except StoreError as error:
            places = (self.root / "quarantine" / f"{key}-{n}" for n in count(1))
            try:
                place = next(place for place in places if not place.exists())
                place.parent.mkdir(parents=True, exist_ok=True)
                os.rename(folder, place)
            except OSError as failure:
                what, hint = "a damaged run cannot be moved away", "remove it by hand"
                raise StoreError(what, where=folder, found=failure.strerror, hint=hint) from error
            logger.warning("%s The damaged run was moved to %s.", error, place)


@cache
def _warn_once(text: str) -> None:
    """Warn of each damage only once per process."""
    logger.warning(text)


def seal(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of a complete run folder: its values, the sha256 of every file, its own sha256."""
    files = {name: digest for name, digest in checksums(folder).items() if name != MANIFEST}
    sealed = json.loads(json.dumps({**manifest, "files": files}))
    write_json(folder / MANIFEST, {**sealed, "sha256": _seal(sealed)})


def open_run(folder: str | os.PathLike[str]) -> StoredRun:
    """Open and verify a run folder in any location. Raises StoreError with the name of a damaged file."""
    folder = Path(folder)
    path = folder / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
        manifest = json.loads(text)
        known = manifest["sha256"] == _seal(manifest) and text == json_text(manifest)
    except FileNotFoundError:
        hint = "give the folder of a finished run"
        raise StoreError("is not a finished run: it has no manifest", where=folder, hint=hint) from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise StoreError("the manifest cannot be read", where=path, found=str(error) or type(error).__name__) from error
    again = "train the run again"
    if not known:
        raise StoreError("the manifest was changed after it was written", where=path, hint=again)
    home = folder.resolve()
    for name, digest in manifest["files"].items():
        file = folder / name
        if file.resolve() != home / name or not file.is_file():  # missing, or a link to another place
            raise StoreError("a file of the run is missing", where=file, hint=again)
        try:
            found = sha256_file(file)
        except OSError as error:
            raise StoreError("a file of the run cannot be read", where=file, found=error.strerror) from error
        if found != digest:
            what, other = "a file of the run was changed after it was written", "another sha256"
            raise StoreError(what, where=file, found=other, expected=digest[:12], hint=again)
    there = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    if extra := there - set(manifest["files"]) - {MANIFEST}:
        raise StoreError("this file was not written by the run", where=folder / min(extra), hint="remove it")
    return StoredRun(folder, manifest)
