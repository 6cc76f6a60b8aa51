"""Encoders that a profile names: a model of the Hugging Face hub at one commit, or a folder.

What is special: only safetensors, configuration and tokenizer are brought, into a folder of their own in the cache
whose name holds the commit. So nothing that another program adds to a shared cache changes an encoder's fingerprint,
and a folder that is there needs no network.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from pydantic import Field

from soi_lib.data.places import Place, commit_of, unreachable
from soi_lib.errors import EncoderError, located
from soi_lib.files import cache_dir
from soi_lib.models.encoder import encoder_dir, made

_WANTED = (
    "config.json",
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)


class EncoderSource(Place):
    """Where an encoder is, and its `pooling`: "mean" over tokens, the state of the first ("cls"), or its "pooler".

    The pooling counts for every comparison that uses the encoder and does not set another.
    """

    pooling: Literal["mean", "cls", "pooler"] | None = Field(default=None)


def bring(name: str, source: EncoderSource) -> Path:
    """The folder of the encoder `name`, brought from the hub on first use.

    Raises EncoderError when the hub cannot be reached, or the model has no safetensors or tokenizer.json.
    """
    if source.path is not None:
        return encoder_dir(Path(source.path))
    hub = source.hub
    if hub is None:
        raise EncoderError(
            "nothing says where the encoder is", where=f"encoders.{name}", expected="hub and revision, or path"
        )
    stem = hub.replace("/", "--")
    there = [f for f in (cache_dir() / "encoders").glob(f"{stem}-{source.revision}*") if f.suffix != ".damaged"]
    commit = (
        there[0].name.removeprefix(f"{stem}-")
        if len(there) == 1
        else commit_of(hub, source.revision, "model", EncoderError)
    )

    def download(work: Path) -> None:
        try:
            from huggingface_hub import snapshot_download

            snapshot_download(hub, revision=commit, local_dir=work, allow_patterns=list(_WANTED))
        except Exception as failure:  # the library lets through whatever its own libraries raise
            raise unreachable(source, failure, EncoderError) from failure
        shutil.rmtree(work / ".cache", ignore_errors=True)
        with located(f"{hub} at {commit}"):
            encoder_dir(work)

    return made(cache_dir() / "encoders" / f"{stem}-{commit}", download)
