"""The RO-Crate as a program reads it: every file is listed with its size and hash."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from rocrate.rocrate import ROCrate

from paper import ROOT
from paper.crate import write_crate
from soi_lib.errors import SoiError
from soi_lib.files import sha256_file, write_text


def test_the_crate_lists_every_file_with_size_and_hash(tmp_path: Path) -> None:
    with pytest.raises(SoiError, match="no book here"):
        write_crate(tmp_path)
    shutil.copy(ROOT / "CITATION.cff", tmp_path)
    for name in ("html/index.html", "html/book/index.html", "results.json"):
        write_text(tmp_path / "_build" / name, name)
    one = next((ROOT / "data" / "recorded" / "quick").glob("*/manifest.json")).parent
    shutil.copytree(one, tmp_path / "data" / "recorded" / "quick" / one.name)
    for _ in range(2):  # written again over itself
        build = write_crate(tmp_path).parent
    crate = ROCrate(build)
    files = {e.id: e for e in crate.data_entities if e.type == "File"}
    assert {"html/book/index.html", "results.json", f"recorded/quick/{one.name}/manifest.json"} <= set(files)
    assert len(files) == 3 + sum(path.is_file() for path in one.rglob("*"))
    for name, entity in files.items():
        assert int(entity["contentSize"]) == (build / name).stat().st_size
        assert entity["sha256"] == sha256_file(build / name)
    assert "Vassef" in crate.root_dataset["isBasedOn"]["author"]
    assert crate.license == "https://spdx.org/licenses/MIT"
