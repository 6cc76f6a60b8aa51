"""Where runs live: a folder a run, named by its key, that is either whole or not there.

`<root>/<key>/` holds manifest.json, metrics.json, dynamics/<member>.parquet (and dynamics-train/ where both modes were
recorded), predictions/<member>.parquet and log.jsonl. The folder is built beside and renamed when it is complete; the
manifest carries the sha256 of every other file and of itself. A run whose files do not match is reported and never
used. It stays where it is until it is done again; then it is moved to `<root>/quarantine/`.
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

from filelock import FileLock, Timeout

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
    """The sha256 of a manifest without its own seal."""
    body = {k: v for k, v in manifest.items() if k != "sha256"}
    return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


@dataclass(frozen=True)
class StoredRun:
    """A finished run on disk; what it holds is read when asked for."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def key(self) -> str:
        """The run's key."""
        return str(self.manifest["key"])

    @property
    def comparison(self) -> str:
        """task, source or lingual."""
        return str(self.manifest["identity"]["comparison"])

    @property
    def setting(self) -> Setting:
        """The datasets that were trained together, and their budget (full in runs that do not say it)."""
        identity = self.manifest["identity"]
        return Setting(identity["setting"], identity.get("budget", "full"))

    @property
    def record(self) -> Literal["train", "eval", "both"]:
        """Which modes were recorded; of both the evaluation mode is the primary one."""
        identity = self.manifest["identity"]
        training: dict[str, Any] = (self.stage or identity).get("training") or {}
        return training.get("record", "train")

    @property
    def seed(self) -> int:
        """The seed."""
        return int(self.manifest["identity"]["seed"])

    @property
    def stage(self) -> dict[str, Any] | None:
        """What of a stage it is (start, subset, control, training); None for a run of its own."""
        return self.manifest["identity"].get("stage")

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """metrics.json: per member its size, category counts, test and OOD metrics, baselines."""
        values: dict[str, Any] = json.loads((self.folder / "metrics.json").read_text(encoding="utf-8"))
        return values

    def dynamics(self, member: str, mode: Literal["train", "eval"] | None = None) -> TrainingDynamics:
        """The dynamics of one dataset, by default in the run's primary mode; a file is read once.

        Raises:
            StoreError: when the dataset was not part of the run, or `mode` was not recorded.
        """
        if mode is not None and self.record not in (mode, "both"):
            raise StoreError(f"{mode} mode was not recorded", where=self.folder, found=f"record: {self.record}")
        folder = "dynamics-train" if mode == "train" and self.record == "both" else "dynamics"
        path = self.folder / folder / f"{member}.parquet"
        if not path.exists():
            raise StoreError(
                "no such dataset in this run", where=self.folder, found=repr(member), expected=" or ".join(self.setting)
            )
        if path not in self._dynamics:
            self._dynamics[path] = TrainingDynamics.load(path)
        return self._dynamics[path]

    @cached_property
    def _dynamics(self) -> dict[Path, TrainingDynamics]:
        return {}

    def curves(self) -> pd.DataFrame:
        """A row per epoch (from 0) and dataset: train_loss, train_accuracy, validation_loss, validation_accuracy.

        Losses in nats. NaN where there were no validation examples; no rows for runs made before curves were kept.
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
        """Predictions at the end of the run: a DataFrame with split, id, gold, predicted, p_gold, or some of them."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.folder / "predictions" / f"{member}.parquet") as file:
            return file.read(columns, use_threads=False).to_pandas(use_threads=False)  # small: threads would cost more


class RunStore:
    """A folder of runs by key. Several processes may use it at once; `lock` keeps two from doing the same run."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def path(self, key: str) -> Path:
        """Where the run `key` is or will be."""
        return self.root / key

    def checkpoint_path(self, key: str) -> Path:
        """Where an unfinished run keeps its state."""
        return self.root / "unfinished" / f"{key}.safetensors"

    def weights_path(self, key: str) -> Path:
        """Where a run's final weights are kept if asked for: outside its folder, since they can be made again."""
        return self.root / "weights" / f"{key}.safetensors"

    @contextmanager
    def lock(self, key: str, timeout: float = -1) -> Iterator[None]:
        """Hold the run `key`. The lock is the operating system's, so it is gone when its owner is."""
        lock = FileLock(self.root / "locks" / f"{key}.lock", timeout=timeout)
        try:
            (self.root / "locks").mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout as error:
            raise StoreError(
                "the run is being done by another process",
                where=self.path(key),
                hint="wait for it, or stop that process",
            ) from error
        except OSError as error:
            raise StoreError(
                "the store cannot be written",
                where=self.root,
                found=error.strerror or error,
                hint="free some space, or choose another folder with --runs",
            ) from error
        try:
            yield
        finally:
            lock.release()

    def get(self, key: str) -> StoredRun | None:
        """The finished run `key`, verified; None when there is none, or a damaged one, of which a warning says what.

        Raises StoreError for a link in the place of a run: what it points to may change without the store.
        """
        folder = self.path(key)
        if folder.is_symlink():
            raise StoreError(
                "a link stands where a run should be",
                where=folder,
                hint="copy the run itself there, or remove the link",
            )
        if not folder.exists():
            return None
        try:
            return self._open(key)
        except StoreError as error:
            _warn_once(f"{error} The run counts as not done.")
            return None

    def _open(self, key: str) -> StoredRun:
        run = open_run(self.path(key))
        if run.key != key:
            raise StoreError("the run has another key", where=run.folder, found=run.key, expected=key)
        return run

    def __iter__(self) -> Iterator[StoredRun]:
        """All finished runs that verify, in the order of their keys."""
        for folder in sorted(self.root.glob("*/")):
            if (folder / MANIFEST).exists():
                run = self.get(folder.name)
                if run is not None:
                    yield run

    def write(self, key: str, manifest: dict[str, Any], fill: Callable[[Path], None]) -> StoredRun:
        """Make the folder of the run `key`: `fill` puts its files into a temporary folder that is then sealed.

        A damaged run in its place is moved away. Of several processes that trained it together the first one does
        this, and all of them open the run.
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
        """Remove what killed processes left: temporary files, and states of runs that were finished afterwards."""
        sweep(self.root)
        for state in sorted((self.root / "unfinished").glob("*.safetensors")):
            with suppress(OSError):  # no such run yet; a newer state is of weights that are being made again
                if state.stat().st_mtime_ns <= (self.path(state.stem) / MANIFEST).stat().st_mtime_ns:
                    state.unlink()

    def put_aside(self, key: str) -> None:
        """Move the run `key` to `quarantine/` if it is damaged. For whoever does it again. Raises StoreError."""
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
                raise StoreError(
                    "a damaged run cannot be moved away", where=folder, found=failure.strerror, hint="remove it by hand"
                ) from error
            logger.warning("%s The damaged run was moved to %s.", error, place)


@cache
def _warn_once(text: str) -> None:
    """One warning of a damage in a process, however often it is met."""
    logger.warning(text)


def seal(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of a complete run folder: its values, the sha256 of every file, its own seal."""
    files = checksums(folder)
    files.pop(MANIFEST, None)
    sealed = {**manifest, "files": files}
    sealed = json.loads(json.dumps(sealed))
    write_json(folder / MANIFEST, {**sealed, "sha256": _seal(sealed)})


def open_run(folder: str | os.PathLike[str]) -> StoredRun:
    """Open and verify one run folder, wherever it is. Raises StoreError that names the damaged file."""
    folder = Path(folder)
    path = folder / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
        manifest = json.loads(text)
        known = manifest["sha256"] == _seal(manifest) and text == json_text(manifest)
    except FileNotFoundError:
        raise StoreError(
            "is not a finished run: it has no manifest",
            where=folder,
            hint="give a folder that `python -m paper run` or `python -m paper reproduce` made",
        ) from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise StoreError("the manifest cannot be read", where=path, found=str(error) or type(error).__name__) from error
    if not known:
        raise StoreError("the manifest is not the one that was written", where=path, hint="do the run again")
    expected, home = manifest["files"], folder.resolve()
    for name, digest in expected.items():
        file = folder / name
        if file.resolve() != home / name or not file.is_file():  # missing, or a link to another place
            raise StoreError("a file of the run is missing", where=file, hint="do the run again")
        try:
            found = sha256_file(file)
        except OSError as error:
            raise StoreError("a file of the run cannot be read", where=file, found=error.strerror) from error
        if found != digest:
            raise StoreError(
                "a file of the run is not the one that was written",
                where=file,
                found="another sha256",
                expected=digest[:12],
                hint="do the run again",
            )
    extra = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - set(expected) - {MANIFEST}
    if extra:
        raise StoreError("a file that the run did not write", where=folder / min(extra), hint="remove it")
    return StoredRun(folder, manifest)
