"""The data map of dynamics that are larger than memory: a folder of dynamics files, through DuckDB.

Files are the shards. Each is checked like any dynamics file; then one query reads them all and writes
the map, within DuckDB's memory limit whatever their number. The rules are not written a second time in SQL: the query
calls `categorize_history` and `forgetting_events`. On a cluster each machine maps the files it holds: the maps lie side
by side, the counts add up, and only the cuts need one more pass over the confidence and variability of all maps.
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

_MEMORY = "640MB"  # for DuckDB; Python and Arrow need about 150 MB beside it


@dataclass(frozen=True)
class StreamedMap:
    """What `stream_data_map` found in all files together.

    `soi` counts the examples of each category by name. `cuts` bounds the regions of the map: easy examples have at
    least this confidence, hard ones at most, ambiguous ones at least this variability. The cuts are estimates (a
    t-digest): a region may hold about 0.1 % of all examples more or less than asked for.
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
    """Write the data map of all dynamics files of a folder to one Parquet file.

    Args:
        folder: Holds `*.parquet` files that `TrainingDynamics.save` wrote, all with equally many epochs.
        out: The file to write. Its columns are those of `data_map`, a row an example, in the order of the file names.
        early: As in `categorize`.
        fraction: The share of all examples that each region of the map holds.
        overwrite: Replace `out` if it exists.

    Returns:
        The number of examples, the counts of the categories, and where the regions end.

    Raises:
        SoiError, SchemaError, ChecksumError: As `TrainingDynamics.load`, for any of the files, or if there are none.
        FormatError: The files differ in the number of epochs or the kind of id.
        RangeError: `early` or `fraction` is not in (0, 1].
        OutputExistsError: `out` exists.

    That an id occurs in two files is not checked.
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
    """The dynamics files of a folder, each checked, and the number of epochs that all of them have."""
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise SoiError("the folder holds no dynamics files", where=folder, expected="*.parquet")
    columns = [check(file)[0] for file in files]
    for file, other in zip(files, columns, strict=True):
        if other != columns[0]:
            raise FormatError(
                "the files differ in their columns",
                where=file,
                found=other,
                expected=f"{columns[0]}, as in {files[0].name}",
                hint="keep files with other epochs or ids in a folder of their own",
            )
    return files, columns[0].field("p_gold").type.list_size


def _register(engine: Any, name: str, kind: str, rule: Callable[[npt.NDArray[np.uint64]], npt.NDArray[Any]]) -> None:
    """Make `rule`, from histories (n,) to numbers (n,), a function of the SQL that `engine` runs."""
    import pyarrow as pa

    engine.create_function(name, lambda history: pa.array(rule(history.to_numpy())), ["UBIGINT"], kind, type="arrow")
