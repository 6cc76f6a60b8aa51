"""The data map of dynamics that are larger than memory: a folder of dynamics files, through DuckDB.

The files are the shards. Each is checked like any dynamics file; then one query reads them all and writes the map,
within DuckDB's memory limit whatever their number. The rules are not repeated in SQL: the query calls
`categorize_history` and `forgetting_events`. On a cluster, each machine maps its own files: together their maps form
the whole map, the counts add up, and only the cuts need another pass over the confidence and variability of all maps.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from soi_lib.analysis.soi import SOI, categorize_history, forgetting_events
from soi_lib.errors import FormatError, RangeError, SoiError
from soi_lib.files import replacing
from soi_lib.io import check

_MEMORY = "640MB"  # for DuckDB; Python and Arrow need about 150 MB in addition


@dataclass(frozen=True)
class StreamedMap:
    """The result of `stream_data_map` over all files.

    `soi` counts the examples of each category by name. `cuts` are the bounds of the map's regions: easy examples have
    at least this confidence, hard ones at most this confidence, ambiguous ones at least this variability. The cuts are
    estimates (a t-digest): a region may have about 0.1 % of all examples more or fewer than requested.
    """

    examples: int
    soi: dict[str, int]
    cuts: dict[str, float]


def stream_data_map(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    early: float = 0.5,
    fraction: float = 1 / 3,
    *,
    overwrite: bool = False,
) -> StreamedMap:
    """Write the data map of all dynamics files in a folder to one Parquet file.

    Args:
        folder: Contains `*.parquet` files that `TrainingDynamics.save` wrote, all with the same number of epochs.
        out: The file to write. Its columns are those of `data_map`, one row per example, in order of the file names.
        early: As in `categorize`.
        fraction: The share of all examples in each region of the map.
        overwrite: Replace `out` if it exists.

    Returns:
        The number of examples, the counts of the categories, and where the regions end.

    Raises:
        SoiError, SchemaError, ChecksumError: As in `TrainingDynamics.load`, for any file, or if there are none.
        FormatError: The files differ in the number of epochs or the kind of id.
        RangeError: `early` or `fraction` is not in (0, 1].
        OutputExistsError: `out` exists.

    Ids that occur in more than one file are not detected.
    """
    import duckdb

    if not (0 < fraction <= 1 and 0 < early <= 1):
        raise RangeError("early or fraction is out of range", found=f"{early} and {fraction}", expected="(0, 1]")
    files, epochs = _checked(Path(folder))
    options: Any = {"memory_limit": _MEMORY, "temp_directory": str(Path(out).absolute().parent)}
    with replacing(out, overwrite=overwrite) as tmp, duckdb.connect(config=options) as engine:
        _register(engine, "soi_of", "TINYINT", lambda history: categorize_history(history, epochs, early))
        _register(engine, "events_of", "SMALLINT", lambda history: forgetting_events(history, epochs))
        engine.read_parquet([glob.escape(str(file)) for file in files]).project(
            "id, list_avg(p_gold) AS confidence, list_stddev_pop(p_gold) AS variability, "
            f"bit_count(history) / {epochs} AS correctness, events_of(history) AS forgetfulness, "
            "history = 0 AS never_learned, soi_of(history) AS soi"
        ).write_parquet(str(tmp), compression="zstd")
        mapped = engine.read_parquet(glob.escape(str(tmp)))
        counts = dict(mapped.aggregate("soi, count(*)").fetchall())
        low, high, spread = mapped.aggregate(
            f"approx_quantile(confidence, {fraction}), approx_quantile(confidence, {1 - fraction}), "
            f"approx_quantile(variability, {1 - fraction})"
        ).fetchall()[0]
    soi = {one.name: counts.get(int(one), 0) for one in SOI}
    return StreamedMap(sum(soi.values()), soi, {"easy": high, "ambiguous": spread, "hard": low})


def _checked(folder: Path) -> tuple[list[Path], int]:
    """Return the checked dynamics files of a folder and the number of epochs in each."""
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise SoiError("the folder contains no dynamics files", where=folder, expected="*.parquet")
    first, *others = (check(file)[0] for file in files)
    for file, columns in zip(files[1:], others, strict=True):
        if columns != first:
            raise FormatError(
                "the files differ in their columns",
                where=file,
                found=columns,
                expected=f"{first}, as in {files[0].name}",
                hint="keep files with other epochs or ids in a folder of their own",
            )
    return files, first.field("p_gold").type.list_size


def _register(engine: Any, name: str, kind: str, rule: Callable[[npt.NDArray[np.uint64]], npt.NDArray[Any]]) -> None:
    """Register `rule`, from histories (n,) to numbers (n,), as an SQL function of `engine`."""
    import pyarrow as pa

    engine.create_function(name, lambda history: pa.array(rule(history.to_numpy())), ["UBIGINT"], kind, type="arrow")
