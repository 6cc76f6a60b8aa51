"""The data map of a folder of files equals that of the same examples in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import learn

from soi_lib import TrainingDynamics, categorize, data_map
from soi_lib.analysis.soi import soi_counts
from soi_lib.analysis.stream import stream_data_map
from soi_lib.errors import ChecksumError, FormatError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files, in a folder whose name a glob pattern would misread."""
    folder = tmp_path / "runs[1]"
    folder.mkdir()
    for k in range(3):
        learn(700, 9, member=f"part{k}", corpus=k).save(folder / f"{k}.parquet")
    return folder


def test_the_map_is_that_of_all_files_in_memory(folder: Path, tmp_path: Path) -> None:
    parts = [TrainingDynamics.load(folder / f"{k}.parquet") for k in range(3)]
    wanted = pd.concat([data_map(dyn, 0.3) for dyn in parts], ignore_index=True)
    found = stream_data_map(folder, tmp_path / "map.parquet", early=0.3, fraction=0.25)
    written = pd.read_parquet(tmp_path / "map.parquet")
    pd.testing.assert_frame_equal(written, wanted, check_exact=False, rtol=0, atol=1e-12)
    assert found.examples == 2100
    assert found.soi == soi_counts(np.concatenate([categorize(dyn, 0.3) for dyn in parts]))
    for name, inside in {
        "easy": written["confidence"] >= found.cuts["easy"],
        "ambiguous": written["variability"] >= found.cuts["ambiguous"],
        "hard": written["confidence"] <= found.cuts["hard"],
    }.items():
        assert inside.mean() == pytest.approx(0.25, abs=0.01), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.parquet", "runs[1]"]


def test_nothing_is_written_if_a_file_is_damaged_or_has_other_epochs(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "map.parquet"
    learn(10, 8).save(folder / "3.parquet")
    with pytest.raises(FormatError, match=r"3\.parquet"):
        stream_data_map(folder, out)
    raw = bytearray((folder / "1.parquet").read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / "1.parquet").write_bytes(raw)
    with pytest.raises(ChecksumError, match=r"1\.parquet"):
        stream_data_map(folder, out)
    assert not out.exists()
