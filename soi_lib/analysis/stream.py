"""Metrics, categories and regions of dynamics that are larger than memory, a row group at a time.

Special about it: the results are bit for bit those of the whole file in memory, the cuts of the map's regions
included. These are order statistics of all examples; they are found exactly by radix selection: the bits of a
non-negative double rise with its value, so a histogram of 16 bits a pass leads to the k-th value in four passes over a
scratch file of 16 bytes an example. Counts and histograms of several files add up, so files are the natural shards.
Memory is a few row groups (131,072 examples each) a thread, whatever the length of the file.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

from soi_lib import atomic
from soi_lib.analysis.cartography import REGIONS, history_metrics, metrics
from soi_lib.analysis.categories import SOI, soi_counts
from soi_lib.dynamics import TrainingDynamics
from soi_lib.dynamics_file import Groups, workers
from soi_lib.errors import RangeError

if TYPE_CHECKING:
    import pyarrow as pa

_T = TypeVar("_T")
_U = TypeVar("_U")
Array = npt.NDArray[Any]
_BITS = 16  # of a key, decided in one pass
_ROWS = 1 << 20  # of the scratch file, read at once: 8 MB a column
_SLOW = 64  # row groups from which on a progress bar is shown: some two seconds


@dataclass(frozen=True)
class Cut:
    """Where a region of the data map ends: exact, ties included.

    In are all examples beyond `value` (above it for easy and ambiguous, below it for hard). Of those with just this
    value all are in where `tied_below` is None; else those whose variability is below it, and of those with just that
    variability (for ambiguous: of all tied) the first `first` in the order of the file. `size` examples are in.
    """

    size: int
    value: float
    tied_below: float | None = None
    first: int = 0


@dataclass(frozen=True)
class Summary:
    """What a whole file amounts to.

    `soi` counts examples by category; `correct` (E,) counts them by epoch; `events` is the number of forgetting events.
    `confidence` and `variability` are means over examples, and `regions` the cuts of the map by name; they are None
    where only histories were read.
    """

    examples: int
    epochs: int
    soi: dict[str, int]
    correct: list[int]
    events: int
    never_learned: int
    confidence: float | None = None
    variability: float | None = None
    regions: dict[str, Cut] | None = None


def read_parts(path: str | os.PathLike[str], *, jobs: int | None = None) -> Iterator[TrainingDynamics]:
    """The dynamics of `path` in parts, a row group (131,072 examples) each, read ahead on `jobs` threads (one a core).

    The whole file is read once beforehand for its seal. Raises what `TrainingDynamics.load` raises; that no id
    occurs in two parts is not checked.
    """
    groups = Groups(path)
    return _in_order(groups.dynamics, range(len(groups)), jobs)


def stream_counts(
    path: str | os.PathLike[str], early: float = 0.5, *, jobs: int | None = None, progress: bool = True
) -> Summary:
    """Categories, correctness by epoch and forgetting of a dynamics file of any length.

    Reads the seal over all bytes, and of the columns only the histories. Raises what `TrainingDynamics.load` raises.
    """
    groups = Groups(path)
    epochs = groups.meta.epochs

    def one(group: int) -> Summary:
        history = groups.columns(group, ["history"])["history"]
        return _summary(history, epochs, history_metrics(history, epochs, early))

    parts = _in_order(one, range(len(groups)), jobs)
    return _total(list(_bar(parts, len(groups), "counts", progress)))


def stream_data_map(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    early: float = 0.5,
    fraction: float = 1 / 3,
    *,
    overwrite: bool = False,
    jobs: int | None = None,
    progress: bool = True,
) -> Summary:
    """Write the data map of a dynamics file of any length to the Parquet file `out`; return its summary.

    Columns: those of `cartography.data_map`, and easy, ambiguous and hard, the masks of `cartography.regions` for
    `fraction`, all bit for bit as there. Needs 16 bytes of disk an example beside `out` while it works. Raises what
    `TrainingDynamics.load` raises, RangeError when `fraction` is not in (0, 1], OutputExistsError or SoiError.
    """
    if not 0 < fraction <= 1:
        raise RangeError("fraction is out of range", found=fraction, expected="more than 0 and at most 1")
    out, groups = Path(out), Groups(path)
    epochs, numbers = groups.meta.epochs, range(len(groups))

    def measure(group: int) -> tuple[Summary, Array, Array]:
        dyn = groups.dynamics(group)
        found = metrics(dyn.p_gold, dyn.history, epochs, early)
        return _summary(dyn.history, epochs, found), found["confidence"], found["variability"]

    def describe(group: int) -> dict[str, Array]:
        columns = groups.columns(group, ["id", "history"])
        return {"id": columns["id"], **history_metrics(columns["history"], epochs, early)}

    with atomic.replacing(out, overwrite=overwrite) as tmp, tempfile.TemporaryFile(dir=out.parent) as scratch:
        parts = []
        for part, confidence, variability in _bar(_in_order(measure, numbers, jobs), len(groups), "map 1/2", progress):
            parts.append(part)
            scratch.write(np.stack([confidence, variability]).data)
        total = _total(parts)
        kept = _Scratch(scratch, groups.sizes)
        total = replace(total, regions=region_cuts(kept.blocks, total.examples, fraction))
        assert total.regions is not None
        choosers = {name: _Chooser(name, cut) for name, cut in total.regions.items()}
        about = {"early": early, "fraction": fraction, "meta": groups.meta.to_dict(), "summary": asdict(total)}
        described = _in_order(describe, numbers, jobs)
        with _Writer(tmp, groups, json.dumps(about)) as writer:
            for (confidence, variability), columns in zip(
                kept.groups(), _bar(described, len(groups), "map 2/2", progress), strict=True
            ):
                columns |= {"confidence": confidence, "variability": variability}
                writer.add(columns | {name: choose(confidence, variability) for name, choose in choosers.items()})
    return total


# --- exact order statistics -------------------------------------------------------------------------------------------


Blocks = Callable[[], Iterable[tuple[Array, Array]]]
"""Gives pairs of confidence and variability (n,) float64, in order, as often as it is called."""


def region_cuts(blocks: Blocks, examples: int, fraction: float = 1 / 3) -> dict[str, Cut]:
    """The cuts of the regions easy, ambiguous and hard of all examples in `blocks`, by name.

    The same examples are in as in `cartography.regions` of the whole, with the same rule for ties.
    """
    size = max(1, round(fraction * examples))
    cuts = {}
    for name in REGIONS:
        value, left, tied = _kth(lambda name=name: (_key(name, c, v) for c, v in blocks()), size)  # type: ignore[misc]
        cut = Cut(size, float(_value(name, value)))
        if left < tied and name == "ambiguous":
            cut = replace(cut, tied_below=cut.value, first=left)
        elif left < tied:

            def among(name: str = name, value: np.uint64 = value) -> Iterator[Array]:
                return (_bits(v[_key(name, c, v) == value]) for c, v in blocks())

            below, first, _ = _kth(among, left)
            cut = replace(cut, tied_below=float(below.view(np.float64)), first=first)
        cuts[name] = cut
    return cuts


class _Chooser:
    """Says which examples are in a region, group after group in the order of the file."""

    def __init__(self, name: str, cut: Cut) -> None:
        self.name, self.cut, self.left = name, cut, cut.first

    def __call__(self, confidence: Array, variability: Array) -> npt.NDArray[np.bool_]:
        keys, edge = _key(self.name, confidence, variability), _key(self.name, *[np.array([self.cut.value])] * 2)[0]
        inside, tied = keys < edge, keys == edge
        below = self.cut.tied_below
        if below is None:
            return inside | tied
        if self.name != "ambiguous":
            inside |= tied & (variability < below)
            tied &= variability == below
        if self.left:
            rows = np.flatnonzero(tied)[: self.left]
            inside[rows] = True
            self.left -= len(rows)
        return inside


def _bits(values: Array) -> npt.NDArray[np.uint64]:
    """Doubles from 0 on as whole numbers in the same order (a negative zero is a zero)."""
    return (values + 0.0).view(np.uint64)


def _key(name: str, confidence: Array, variability: Array) -> npt.NDArray[np.uint64]:
    """Whole numbers that are the smaller the deeper an example lies in a region."""
    if name == "hard":
        return _bits(confidence)
    return ~_bits(confidence if name == "easy" else variability)


def _value(name: str, key: np.uint64) -> np.float64:
    """The double behind a key."""
    value: np.float64 = (key if name == "hard" else ~key).view(np.float64)
    return value


def _kth(blocks: Callable[[], Iterable[npt.NDArray[np.uint64]]], k: int) -> tuple[np.uint64, int, int]:
    """The k-th smallest key (from 1) of all blocks; how many equal to it are among the k smallest; and in all."""
    prefix, found = 0, 0
    for shift in range(64 - _BITS, -1, -_BITS):
        counts = np.zeros(1 << _BITS, dtype=np.int64)
        for keys in blocks():
            if shift < 64 - _BITS:
                keys = keys[keys >> np.uint64(shift + _BITS) == np.uint64(prefix)]
            digits = (keys >> np.uint64(shift)).astype(np.int64) & ((1 << _BITS) - 1)
            counts += np.bincount(digits, minlength=1 << _BITS)
        digit = int(np.searchsorted(counts.cumsum(), k))
        k -= int(counts[:digit].sum())
        prefix, found = prefix << _BITS | digit, int(counts[digit])
    return np.uint64(prefix), k, found


# --- files and threads ------------------------------------------------------------------------------------------------


class _Scratch:
    """Confidence and variability of all examples on disk: the two of a row group behind each other, then the next."""

    def __init__(self, handle: BinaryIO, sizes: list[int]) -> None:
        self.handle, self.sizes = handle, sizes

    def groups(self) -> Iterator[tuple[Array, Array]]:
        """The two columns of every row group."""
        self.handle.seek(0)
        for n in self.sizes:
            pair = np.frombuffer(self.handle.read(16 * n), dtype=np.float64)
            yield pair[:n], pair[n:]

    def blocks(self) -> Iterator[tuple[Array, Array]]:
        """The two columns of several row groups together."""
        held: list[tuple[Array, Array]] = []
        for pair in self.groups():
            held.append(pair)
            if sum(len(c) for c, _ in held) >= _ROWS:
                yield np.concatenate([c for c, _ in held]), np.concatenate([v for _, v in held])
                held = []
        if held:
            yield np.concatenate([c for c, _ in held]), np.concatenate([v for _, v in held])


class _Writer:
    """Writes a data map in row groups."""

    def __init__(self, path: Path, groups: Groups, about: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.schema: pa.Schema = pa.schema(
            [
                pa.field("id", pa.string() if groups.text_ids else pa.int64(), nullable=False),
                *(pa.field(n, pa.float64(), nullable=False) for n in ("confidence", "variability", "correctness")),
                pa.field("forgetfulness", pa.int16(), nullable=False),
                pa.field("never_learned", pa.bool_(), nullable=False),
                pa.field("soi", pa.int8(), nullable=False),
                *(pa.field(name, pa.bool_(), nullable=False) for name in REGIONS),
            ],
            metadata={"soi_map": about},
        )
        self.writer = pq.ParquetWriter(
            path,
            self.schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=["correctness", "forgetfulness", "soi"],
            write_statistics=False,
            use_byte_stream_split=["confidence", "variability"],
        )

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()

    def add(self, columns: dict[str, Array]) -> None:
        """Append a row group."""
        import pyarrow as pa

        arrays = [pa.array(columns[field.name], type=field.type) for field in self.schema]
        self.writer.write_table(pa.table(arrays, schema=self.schema), row_group_size=len(columns["soi"]))


def _in_order(function: Callable[[_T], _U], items: Iterable[_T], jobs: int | None) -> Iterator[_U]:
    """`function` of every item on `jobs` threads, in order; no more than two results a thread wait to be taken."""
    jobs = jobs or workers(8)
    waiting: deque[Future[_U]] = deque()
    pool = ThreadPoolExecutor(max_workers=jobs)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= 2 * jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _bar(parts: Iterator[_U], total: int, what: str, progress: bool) -> Iterator[_U]:
    from tqdm.auto import tqdm

    return iter(tqdm(parts, total=total, desc=what, unit=" groups", disable=not progress or total < _SLOW))


def _summary(history: npt.NDArray[np.uint64], epochs: int, found: dict[str, Array]) -> Summary:
    """The summary of one part."""
    confidence, variability = found.get("confidence"), found.get("variability")
    return Summary(
        examples=len(history),
        epochs=epochs,
        soi=soi_counts(found["soi"]),
        correct=[int(np.count_nonzero(history & np.uint64(1 << epoch))) for epoch in range(epochs)],
        events=int(found["forgetfulness"].sum(dtype=np.int64)),
        never_learned=int(np.count_nonzero(found["never_learned"])),
        confidence=None if confidence is None else float(confidence.mean()),
        variability=None if variability is None else float(variability.mean()),
    )


def _total(parts: list[Summary]) -> Summary:
    """Several summaries as one; means weighted by their examples."""
    examples = sum(part.examples for part in parts)

    def mean(values: list[float | None]) -> float | None:
        known = [(v, part.examples) for v, part in zip(values, parts, strict=True) if v is not None]
        return sum(v * n for v, n in known) / examples if known else None

    return Summary(
        examples=examples,
        epochs=parts[0].epochs,
        soi={soi.name: sum(part.soi[soi.name] for part in parts) for soi in SOI},
        correct=[sum(counts) for counts in zip(*(part.correct for part in parts), strict=True)],
        events=sum(part.events for part in parts),
        never_learned=sum(part.never_learned for part in parts),
        confidence=mean([part.confidence for part in parts]),
        variability=mean([part.variability for part in parts]),
    )
