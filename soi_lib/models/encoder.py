"""Pretrained encoders as plain `save_pretrained` folders: packaged ones, models from the hub, and your own.

An encoder is just a folder. A packaged one is made in the cache on first use. A hub model is downloaded there at one
commit (only safetensors, configuration and tokenizer), so other programs that write to a shared cache cannot change it,
and later uses need no network. A fingerprint of the folder's files is part of the key of every run that uses it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal

from soi_lib import packages
from soi_lib.data.places import Place, commit_of, hub_name, unreachable
from soi_lib.errors import EncoderError, SoiError, located, nearest
from soi_lib.files import building, cache_dir, locked, read_checksums, stamped_sha256, write_checksums
from soi_lib.models.packaged import PACKAGED

ENCODERS = tuple(PACKAGED)
log = logging.getLogger("soi_lib")

_LIST = "sha256.list"
_CONVERSION = 2  # part of a folder's name: increase it when the output of `packaged` changes
_FILES = (".safetensors", ".json", ".txt", ".model")  # suffixes of the files that determine an encoder's behaviour


@dataclass(frozen=True)
class EncoderCard:
    """What training needs to know about an encoder."""

    sha256: str  # of the wheel; for your own encoder, of the files
    parameters: int  # without the pooler, which is not used
    embedding_parameters: int  # those of `parameters` in the token embeddings
    prefix: str = ""  # put before every first text


def encoder_dir(name: str | Path) -> Path:
    """Return the folder of an encoder: one of `ENCODERS` (made on first use), or any `save_pretrained` folder.

    Raises EncoderError for an unknown name or a folder without config, tokenizer or safetensors, and FetchError if the
    package has not been fetched.
    """
    if name in PACKAGED:
        key = hashlib.sha256(f"{_wheel_sha256(str(name))} {_CONVERSION}".encode()).hexdigest()[:12]
        return _made(cache_dir() / "encoders" / f"{name}-{key}", PACKAGED[str(name)].build)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        hint = f"{nearest(str(name), ENCODERS)}; or give the path of a model folder"
        raise EncoderError("unknown encoder", where=name, hint=hint)
    return _complete(folder.resolve())


def _wheel_sha256(name: str) -> str:
    return next(one.sha256 for one in packages.read_list() if one.name == PACKAGED[name].wheel)


def _made(folder: Path, build: Callable[[Path], None]) -> Path:
    """Return an encoder folder of the cache; `build` fills it if it is missing or has changed since it was written.

    A damaged one is renamed to `*.damaged`, replacing an earlier one, and the reason is logged. Raises EncoderError if
    the folder cannot be written, and whatever `build` raises.
    """
    if _fault(folder) is None:
        return folder
    try:
        with locked(folder.parent / f".{folder.name}.lock"):  # parallel runs make it only once
            if (fault := _fault(folder)) is None:
                return folder
            if folder.is_dir():
                log.warning("%s: missing or changed since it was written; making the encoder again", fault)
                damaged = folder.with_name(f"{folder.name}.damaged")
                shutil.rmtree(damaged, ignore_errors=True)
                os.rename(folder, damaged)
            log.info("making %s", folder.name)
            with building(folder) as work:
                build(work)
                write_checksums(work, _LIST)
    except SoiError:
        raise
    except Exception as error:  # the libraries that write report a full disk with errors of their own
        what, hint = "the encoder could not be written", "free some space, or set SOI_CACHE"
        raise EncoderError(what, where=folder, found=error, hint=hint) from error
    return folder


def encoder_card(name: str | Path) -> EncoderCard:
    """Return the card of an encoder, by name or path. The files of an encoder that is not packaged are hashed."""
    from safetensors import safe_open

    folder = encoder_dir(name)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    parameters = 0
    for file in weight_files(folder):
        with safe_open(file, framework="np") as tensors:
            for key in tensors.keys():  # noqa: SIM118 (not a dict)
                part = tensors.get_slice(key)
                if "pooler" not in key and "F" in part.get_dtype():  # position ids are not parameters
                    parameters += prod(part.get_shape())
    embeddings = int(config.get("vocab_size", 0)) * int(config.get("hidden_size", 0))
    if name in PACKAGED:
        return EncoderCard(_wheel_sha256(str(name)), parameters, embeddings, PACKAGED[str(name)].prefix)
    return EncoderCard(fingerprint(folder), parameters, embeddings)


def fingerprint(folder: str | Path) -> str:
    """Return the sha256, in hex, over the sorted (name, sha256) of a folder's files; unchanged ones are hashed once."""
    files = sorted(file for file in Path(folder).iterdir() if file.suffix in _FILES and file.is_file())
    lines = "".join(f"{file.name} {stamped_sha256(file)}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def _fault(folder: Path) -> Path | None:
    """Return the first file of an encoder folder that does not match its list; None if all do."""
    try:
        listed = read_checksums(folder / _LIST)
        extra = {file.name for file in folder.iterdir() if file.suffix in _FILES} - set(listed)
        wrong = (name for name, digest in listed.items() if stamped_sha256(folder / name) != digest)
        name = min(extra) if extra else next(wrong, None)
        return None if name is None else folder / name
    except (OSError, ValueError) as error:
        return Path(getattr(error, "filename", None) or folder / _LIST)


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of an encoder folder, one or several shards, sorted."""
    single = folder / "model.safetensors"
    return [single] if single.is_file() else sorted(folder.glob("model-*.safetensors"))


def _complete(folder: Path) -> Path:
    """Return `folder` if it holds everything that a run needs; raise EncoderError otherwise."""
    there = {name: (folder / name).is_file() for name in ("config.json", "tokenizer.json")}
    there["model.safetensors"] = bool(weight_files(folder))
    for name in [name for name, found in there.items() if not found]:
        found = ", ".join(sorted(file.name for file in folder.iterdir())[:8]) or "an empty folder"
        hint = "save model and tokenizer with save_pretrained"
        raise EncoderError(f"the encoder has no {name}", where=folder, found=found, hint=hint)
    return folder


# --- models from the hub ---------------------------------------------------------------------------------------------

_WANTED = [
    "config.json", "model.safetensors", "model-*.safetensors", "model.safetensors.index.json",
    "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt",
]  # fmt: skip


class EncoderSource(Place):
    """Where an encoder is, and its `pooling`: "mean" over tokens, the first token's state ("cls"), or its "pooler".

    The pooling applies to every comparison that uses the encoder and does not set another.
    """

    pooling: Literal["mean", "cls", "pooler"] | None = None


def download(name: str, source: EncoderSource) -> Path:
    """Return the folder of the encoder `name`, downloaded from the hub on first use.

    Raises EncoderError if the hub cannot be reached, or if the model has no safetensors or tokenizer.json.
    """
    if source.path is not None:
        return encoder_dir(Path(source.path))
    if (hub := source.hub) is None:
        where = f"encoders.{name}"
        raise EncoderError("neither hub nor path is given", where=where, expected="hub and revision, or path")
    stem, folder = hub.replace("/", "--"), cache_dir() / "encoders"
    known = [f.name for f in folder.glob(f"{stem}-{source.revision}*") if f.suffix != ".damaged"]
    commit = known[0].removeprefix(f"{stem}-") if len(known) == 1 else None
    commit = commit or commit_of(hub, source.revision, "model", EncoderError)

    def fill(work: Path) -> None:
        try:
            from huggingface_hub import snapshot_download

            snapshot_download(hub, revision=commit, local_dir=work, allow_patterns=_WANTED)
        except Exception as failure:  # huggingface_hub passes on whatever its dependencies raise
            raise unreachable(source, failure, EncoderError) from failure
        shutil.rmtree(work / ".cache", ignore_errors=True)
        with located(f"{hub} at {commit}"):
            _complete(work)

    return _made(folder / f"{stem}-{commit}", fill)


def find_encoder(model: str, commits: Mapping[str | None, str | None]) -> tuple[str, EncoderSource | None, Path]:
    """Find an encoder that a user asks for.

    Args:
        model: one of `ENCODERS`, a model folder, or a name on the hub, with or without `@COMMIT`.
        commits: the commits used before, by name on the hub; for other names the newest commit is used.

    Returns:
        Its name, its source (None for one of `ENCODERS`) and its folder.

    Raises:
        EncoderError: there is no such encoder.
    """
    if model in ENCODERS:
        return model, None, encoder_dir(model)
    path = Path(model).expanduser()
    if path.is_file():
        raise EncoderError("this is a file", where=path, expected="the folder of a model", hint="give the folder")
    if path.exists():
        source = EncoderSource(path=str(path.resolve()))
    else:
        hub, commit = hub_name(model) or (model if re.fullmatch(r"[A-Za-z0-9][\w-]+", model) else None, None)
        if hub is None:
            hint = f"{nearest(model, ENCODERS)}; or a path"
            raise EncoderError("there is no such model folder", where=model, hint=hint)
        try:
            commit = commit or commits.get(hub) or commit_of(hub, None, "model", EncoderError)
        except EncoderError as error:
            hint = f"{error.hint}; {nearest(hub, ENCODERS)}"
            raise EncoderError(error.what, where=hub, found=error.found, hint=hint) from error
        if not re.fullmatch(r"[0-9a-f]{7,40}", commit):
            raise EncoderError("a commit has 7 to 40 hex digits", where=hub, found=repr(commit))
        source = EncoderSource(hub=hub, revision=commit)
    name = re.sub(r"[^\w.-]", "-", (source.hub or path.resolve().name).rpartition("/")[2]).lstrip(".-_") or "model"
    name = f"own-{name}" if name in ENCODERS else name
    return name, source, download(name, source)
