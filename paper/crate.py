"""Describe the recorded runs, the results and the book as an RO-Crate (1.2): one JSON file that lists every file.

The crate is the folder `_build`. The recorded runs appear in it through a link to `data/recorded`, so that every path
lies inside the crate; `zip -r` or `cp -rL` makes a self-contained copy.
"""

from __future__ import annotations

import os
from mimetypes import guess_type
from pathlib import Path

import yaml

from soi_lib.errors import SoiError
from soi_lib.files import sha256_file

METADATA = "ro-crate-metadata.json"
_TYPES = {".parquet": "application/vnd.apache.parquet", ".jsonl": "application/jsonl", ".yaml": "application/yaml"}
_PARTS = {
    "html": "The rendered book; it starts at html/index.html.",
    "recorded": "The recorded runs by profile: the training dynamics of every example, predictions on the held-out"
    " sets, scores, and a manifest that describes how each run was made. No texts.",
}
_RESULTS = {
    "results.json": "Scores and category shares of every run.",
    "claims.json": "Each claim of the paper with its rule, verdict, values, intervals and runs.",
    "reproduced.json": "This machine's numbers compared with those of the recorded runs.",
}


def write_crate(root: Path) -> Path:
    """Write `_build/ro-crate-metadata.json`: every file of the book and the recorded runs, with its size and sha256.

    Raises SoiError if the book has not been made.
    """
    from rocrate.model.contextentity import ContextEntity
    from rocrate.rocrate import ROCrate

    build = root / "_build"
    if not (build / "html" / "index.html").is_file():
        raise SoiError("there is no book here to describe", where=build / "html", hint="run `make book` first")
    link = build / "recorded"
    if not link.is_symlink():
        link.symlink_to(os.path.relpath(root / "data" / "recorded", build), target_is_directory=True)
    cited = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    crate = ROCrate(version="1.2")
    crate.name, crate.license = cited["title"], f"https://spdx.org/licenses/{cited['license']}"
    crate.description = f"{cited['title']}, version {cited['version']}: recorded runs, results and the rendered book."
    (paper,) = cited["references"]
    about = {"@type": "ScholarlyArticle", "name": paper["title"], "datePublished": str(paper["year"])}
    about["author"] = "; ".join(f"{a['given-names']} {a['family-names']}" for a in paper["authors"])
    crate.root_dataset["isBasedOn"] = crate.add(ContextEntity(crate, "https://arxiv.org/abs/2507.15236", about))

    def add(path: Path, description: str = "") -> None:
        kind = _TYPES.get(path.suffix) or guess_type(path.name)[0] or "application/octet-stream"
        facts = {"contentSize": str(path.stat().st_size), "sha256": sha256_file(path), "encodingFormat": kind}
        facts |= {"description": description} if description else {}
        crate.add_file(path, path.relative_to(build).as_posix(), properties={"name": path.name, **facts})

    for name, description in _PARTS.items():
        crate.add_dataset(dest_path=f"{name}/", properties={"name": name, "description": description})
        for folder, _, files in sorted(os.walk(build / name)):
            for file in sorted(files):
                add(Path(folder, file))
    for name, description in _RESULTS.items():
        if (build / name).is_file():
            add(build / name, description)
    crate.metadata.write(build)
    return build / METADATA
