"""Tokenize texts, and load encoders with only the token rows that those texts use.

A split becomes one flat int32 array with offsets, not a list of lists, so batching is slicing and a million tokens take
four megabytes. A token that occurs in no split gets no gradient and is never read, so its embedding row can stay on
disk: `load_trimmed` reads only the used rows from the memory-mapped file, and the forward pass matches that of the full
model bit for bit, because a lookup copies rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from inspect import signature
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from soi_lib.data.dataset import is_text
from soi_lib.errors import EncoderError
from soi_lib.models.encoder import encoder_dir, weight_files

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import nn

_CHUNK = 10_000
_CHARACTERS = 32  # of a text that are read per token of max_length; the overflow of long pairs grows quadratically
# RoBERTa-like encoders count positions from the padding id, so a small padding id must keep its number.
_FIXED_PADDING = 16


@dataclass(frozen=True)
class Tokens:
    """A split as token ids, including special tokens. Text i is `ids[offsets[i]:offsets[i + 1]]`."""

    ids: np.ndarray  # (T,) int32
    offsets: np.ndarray  # (N + 1,) int64
    segments: np.ndarray | None  # (T,) uint8, 1 in the second text of a pair; None if the tokenizer gives only 0
    truncated: int  # how many of the N texts were longer than max_length

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """The number of tokens in each text, (N,) int64."""
        return np.diff(self.offsets)


def tokenize(
    directory: str | Path,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    max_length: int = 128,
    prefix: str = "",
) -> Tokens:
    """Tokenize texts, or pairs of texts, with the tokenizer of an encoder (a name or a folder).

    `prefix` (from the encoder card) is put before every first text. A text longer than `max_length` tokens is truncated
    (the longer one of a pair first) and counted, as is a text of more than 32 characters per token. Raises EncoderError
    for a value that is not text, for `pairs` of another length, and for a tokenizer.json that cannot be read.
    """
    from tqdm.auto import tqdm

    if pairs is not None and len(pairs) != len(texts):
        raise EncoderError("every text needs its pair", found=f"{len(pairs)} pairs", expected=len(texts))
    for row, text in chain(enumerate(texts), enumerate(pairs or [])):
        if not is_text(text):
            what, found, hint = "not a valid Unicode text", repr(text)[:60], "drop the row or fill it in"
            raise EncoderError(what, where=f"row {row}", found=found, expected="a string", hint=hint)
    tokenizer = _tokenizer(directory)
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    limit = _CHARACTERS * max_length
    ids, segments, lengths, truncated = [], [], [], 0
    with tqdm(total=len(texts), desc="tokenize", disable=len(texts) < 50_000) as bar:
        for start in range(0, len(texts), _CHUNK):
            first = [prefix + text for text in texts[start : start + _CHUNK]]
            second = [""] * len(first) if pairs is None else pairs[start : start + _CHUNK]
            long = [len(a) > limit or len(b) > limit for a, b in zip(first, second, strict=True)]
            short = [(a[:limit], b[:limit]) for a, b in zip(first, second, strict=True)]
            encoded = tokenizer.encode_batch([a for a, _ in short] if pairs is None else short)
            counts = [len(one) for one in encoded]
            ids.append(np.fromiter(chain.from_iterable(one.ids for one in encoded), np.int32, sum(counts)))
            segments.append(np.fromiter(chain.from_iterable(one.type_ids for one in encoded), np.uint8, sum(counts)))
            lengths += counts
            truncated += sum(cut or bool(one.overflowing) for cut, one in zip(long, encoded, strict=True))
            bar.update(len(first))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    segment = np.concatenate([*segments, np.empty(0, np.uint8)])
    return Tokens(np.concatenate([*ids, np.empty(0, np.int32)]), offsets, segment if segment.any() else None, truncated)


def _tokenizer(directory: str | Path) -> Tokenizer:
    """Return the tokenizer of an encoder; its file is read again only if it changes (the large one takes a second)."""
    path = encoder_dir(directory) / "tokenizer.json"
    return _load(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _load(path: Path, _modified: int) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for anything wrong in the file
        raise EncoderError("the tokenizer cannot be read", where=path, found=error, hint="save it again") from error


def remap(ids: np.ndarray, id_map: np.ndarray) -> np.ndarray:
    """Map token ids of the full vocabulary to ids of the trimmed one: any shape, int64.

    Raises EncoderError for a token that was trimmed away.
    """
    mapped = id_map[ids]
    if (mapped < 0).any():
        found, hint = f"token {ids[mapped < 0][0]}", "trim with the texts of every split"
        raise EncoderError("a token is not in the trimmed vocabulary", found=found, hint=hint)
    return mapped


def shell_of(folder: Path) -> tuple[Any, nn.Module]:
    """Return the configuration of an encoder folder, and its model without weights. Raises EncoderError."""
    import torch
    from transformers import AutoConfig, AutoModel

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            return config, AutoModel.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        what = str(error).strip().partition("\n")[0]
        raise EncoderError("the encoder cannot be loaded", where=folder, found=what, hint="save it again") from error


def load_trimmed(
    directory: str | Path, token_ids: Iterable[np.ndarray] | None, *, pooler: bool = False
) -> tuple[nn.Module, np.ndarray]:
    """Load an encoder with only the rows of the tokens in `token_ids`, and of the special ones.

    Args:
        directory: name or folder of the encoder.
        token_ids: token ids of any shape; None loads every row.
        pooler: load the pretrained pooler too.

    Returns:
        The model, float32 in evaluation mode, whose `config` (vocab_size, pad_token_id) refers to the new ids; and the
        map from old ids to new ones, (old vocabulary,) int64, -1 for omitted rows, which are never read.

    Raises:
        EncoderError: the folder is damaged or lacks weights, or the encoder has no pooler.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = encoder_dir(directory)
    config, shell = shell_of(folder)
    extra = {"add_pooling_layer": pooler} if "add_pooling_layer" in signature(type(shell)).parameters else {}
    embedding: Any = shell.get_input_embeddings()  # type: ignore[operator]
    try:
        weights = {name: tensor for file in weight_files(folder) for name, tensor in load_file(file).items()}
        key = next(name for name, parameter in shell.named_parameters() if parameter is embedding.weight)
        kept, id_map, padding = _kept(folder, token_ids, embedding, config)
        # Copies, so that training does not depend on the memory-mapped file. Names in the file may have a prefix.
        weights = {
            name: tensor[torch.from_numpy(kept)] if f".{name}".endswith(f".{key}") else tensor.clone()
            for name, tensor in weights.items()
            if pooler or ".pooler." not in f".{name}"
        }
        config.vocab_size, config.pad_token_id = len(kept), padding
        with quiet_transformers():
            model, report = type(shell).from_pretrained(  # type: ignore[attr-defined]
                None, config=config, state_dict=weights, dtype=torch.float32, output_loading_info=True, **extra
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise EncoderError("the encoder cannot be loaded", where=folder, found=error, hint="save it again") from error
    if pooler and getattr(model, "pooler", None) is None:
        what, found = "the encoder has no pooler", type(model).__name__
        raise EncoderError(what, where=folder, found=found, hint="set pooling to mean or cls")
    if missing := sorted(name for name in report["missing_keys"] if pooler or "pooler" not in name):
        found, hint = f"no {', '.join(missing[:3])} ({len(missing)} in all)", "save the model with save_pretrained"
        raise EncoderError("the encoder's file lacks weights", where=folder, found=found, hint=hint)
    return model.eval(), id_map


def _kept(
    folder: Path, token_ids: Iterable[np.ndarray] | None, embedding: Any, config: Any
) -> tuple[np.ndarray, np.ndarray, int | None]:
    """Return the rows to keep, sorted, the map from old to new ids (-1 for omitted rows), and the new padding id."""
    size = embedding.num_embeddings
    padding = embedding.padding_idx if embedding.padding_idx is not None else config.pad_token_id
    kept = np.arange(size)
    if token_ids is not None:
        special = [token for token, text in _tokenizer(folder).get_added_tokens_decoder().items() if text.special]
        if padding is not None:
            special += range(padding) if padding < _FIXED_PADDING else ()
            special.append(padding)
        kept = np.unique(np.concatenate([np.array(special, np.int64), *map(np.ravel, token_ids)]))
    if kept[0] < 0 or kept[-1] >= size:
        what, found = "token ids do not fit the encoder", f"{kept[0]} to {kept[-1]}"
        hint = "tokenize with this encoder's own tokenizer"
        raise EncoderError(what, found=found, expected=f"0 to {size - 1}", hint=hint)
    id_map = np.full(size, -1, np.int64)
    id_map[kept] = np.arange(len(kept))
    return kept, id_map, None if padding is None else int(id_map[padding])


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Turn off the progress bars and load reports of transformers: missing weights raise an error here."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
