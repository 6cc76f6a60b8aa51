"""multilingual-e5-small out of a 4-bit file, as weights that every tool can load.

What is special: the reader trusts nothing. Sizes, offsets, names, counts and text are checked before a weight is
taken, so that a cut or altered file is an `EncoderError` and not a strange model. Dequantising is a few array
operations: a block of 32 weights is a float16 scale and 16 bytes, byte j holds weight j in its low and weight j + 16
in its high nibble, and a weight is (nibble - 8) * scale. The products need 14 bits of mantissa, so they are exact in
float32 and would not be in float16: float32 is what is stored.

The layout was read from the C engine that comes with the file; all numbers are little-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from soi_lib.errors import EncoderError

BLOCK = 32
_BLOCK_TYPE = np.dtype([("scale", "<f2"), ("nibbles", "u1", BLOCK // 2)])
_F32, _Q4 = 0, 1
_DAMAGED = "run `soi fetch --verify`, then try again"


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
    directory: dict[str, tuple[int, int, int, int]]  # name: dtype, count, offset, bytes
    data: memoryview
    where: str

    def tensor(self, name: str) -> np.ndarray:
        """One tensor as float32, in the shape that BERT gives it (rows are output features)."""
        dtype, _, offset, size = self.directory[name]
        raw = self.data[offset : offset + size]
        if dtype == _F32:
            values = np.frombuffer(raw, "<f4").astype(np.float32, copy=False)
        else:
            values = dequantise(raw)
        if not np.isfinite(values).all():
            raise EncoderError("a tensor holds infinite values", where=f"{self.where}, {name}", hint=_DAMAGED)
        return values.reshape(tensors(self.shape)[name])


def dequantise(raw: bytes | memoryview) -> np.ndarray:
    """Q4_0 blocks of 18 bytes to float32 weights, 32 a block, exactly."""
    blocks = np.frombuffer(raw, _BLOCK_TYPE)
    weights = np.empty((len(blocks), BLOCK), np.float32)
    half = BLOCK // 2
    np.subtract(blocks["nibbles"] & 0x0F, 8, out=weights[:, :half], dtype=np.float32)
    np.subtract(blocks["nibbles"] >> 4, 8, out=weights[:, half:], dtype=np.float32)
    with np.errstate(invalid="ignore"):  # a damaged scale is reported by whoever asked for the tensor
        weights *= blocks["scale"].astype(np.float32)[:, None]
    return weights.reshape(-1)


def tensors(shape: Shape) -> dict[str, tuple[int, ...]]:
    """The names that a file of this architecture must hold, with the shape of each."""
    hidden, inner = shape.hidden, shape.intermediate
    expected: dict[str, tuple[int, ...]] = {
        "emb.word": (shape.vocabulary, hidden),
        "emb.pos": (shape.positions, hidden),
        "emb.type": (shape.types, hidden),
        "emb.ln.w": (hidden,),
        "emb.ln.b": (hidden,),
    }
    for layer in range(shape.layers):
        for part, (rows, columns) in {
            "q": (hidden, hidden),
            "k": (hidden, hidden),
            "v": (hidden, hidden),
            "ao": (hidden, hidden),
            "fi": (inner, hidden),
            "fo": (hidden, inner),
        }.items():
            expected |= {f"l{layer}.{part}.w": (rows, columns), f"l{layer}.{part}.b": (rows,)}
        for part in ("aln", "oln"):
            expected |= {f"l{layer}.{part}.w": (hidden,), f"l{layer}.{part}.b": (hidden,)}
    return expected


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
    return {bert_name(name): model.tensor(name) for name in tensors(model.shape)}


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
    """Reads numbers one after the other and refuses to read past the end."""

    def __init__(self, data: memoryview, where: str) -> None:
        self.data, self.where, self.at = data, where, 0

    def take(self, size: int) -> memoryview:
        if size < 0 or self.at + size > len(self.data):
            raise EncoderError(
                "the file is cut short",
                where=self.where,
                found=f"{len(self.data):,} bytes",
                expected=f"at least {self.at + max(size, 0):,}",
                hint=_DAMAGED,
            )
        self.at += size
        return self.data[self.at - size : self.at]

    def read(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))

    def array(self, dtype: str, count: int) -> np.ndarray:
        return np.frombuffer(self.take(np.dtype(dtype).itemsize * count), dtype)


def parse(data: bytes | memoryview, where: str | Path = "e5-small-q4.bin") -> Model:
    """Check a file and read all of it but the weights. Raises EncoderError that says what is wrong, and where."""
    cursor = _Cursor(memoryview(data), str(where))

    def refuse(what: str, found: object = None, expected: object = None) -> EncoderError:
        return EncoderError(what, where=where, found=found, expected=expected, hint=_DAMAGED)

    magic = bytes(cursor.take(4))
    if magic != b"E5S1":
        raise refuse("not a 4-bit e5 file", repr(magic), "E5S1")
    (file_version,) = cursor.read("I")
    if file_version != 1:
        raise refuse("unknown version of the file", file_version, 1)
    hidden, layers, heads, intermediate, vocabulary, positions, types, epsilon, block = cursor.read("7ifi")
    shape = Shape(hidden, layers, heads, intermediate, vocabulary, positions, types, epsilon)
    sizes = (hidden, layers, heads, intermediate, vocabulary, positions, types)
    if min(sizes) < 1 or max(sizes) > 1 << 20 or layers > 1000 or not 0 < epsilon < 1e-2:
        raise refuse("sizes in the header make no sense", shape)
    if block != BLOCK or shape.hidden % BLOCK or shape.intermediate % BLOCK or shape.hidden % shape.heads:
        raise refuse("sizes in the header do not divide", f"{shape}, blocks of {block}", f"blocks of {BLOCK}")
    pieces = _pieces(cursor, shape, refuse)

    (entries,) = cursor.read("i")
    expected = tensors(shape)
    directory: dict[str, tuple[int, int, int, int]] = {}
    if entries != len(expected):
        raise refuse("another number of tensors", entries, len(expected))
    for _ in range(entries):
        (length,) = cursor.read("H")
        name = bytes(cursor.take(length)).decode("utf-8", "replace")
        dtype, count, offset, size = cursor.read("BIQQ")
        if name not in expected or name in directory:
            raise refuse("unexpected tensor", repr(name[:40]))
        rows = expected[name]
        right = {_F32: 4 * count, _Q4: count // BLOCK * _BLOCK_TYPE.itemsize}.get(dtype)
        if count != int(np.prod(rows)) or right is None or size != right or (dtype == _Q4 and rows[-1] % BLOCK):
            raise refuse(f"tensor {name} has another size", f"{count:,} values in {size:,} bytes", f"shape {rows}")
        if offset + size > len(cursor.data):
            raise refuse("the file is cut short", f"{len(cursor.data):,} bytes", f"{offset + size:,}")
        directory[name] = (dtype, count, offset, size)
    return Model(shape, pieces, directory, cursor.data, str(where))


def _pieces(cursor: _Cursor, shape: Shape, refuse: Any) -> Pieces:
    """The tokenizer section: pieces, scores, special ids, and the map of characters."""
    count, *special = cursor.read("5i")
    if not 0 < count <= shape.vocabulary or not all(0 <= token < count for token in special):
        raise refuse("the tokenizer does not fit the model", f"{count} pieces, special {special}", shape.vocabulary)
    (blob_bytes,) = cursor.read("Q")
    offsets = cursor.array("<u4", count + 1).astype(np.int64)
    scores = cursor.array("<f4", count)
    blob = bytes(cursor.take(blob_bytes))
    if offsets[0] != 0 or offsets[-1] != blob_bytes or (np.diff(offsets) < 1).any() or not np.isfinite(scores).all():
        raise refuse("the table of pieces is damaged")
    try:
        texts = [blob[start:end].decode("utf-8") for start, end in pairwise(offsets.tolist())]
    except UnicodeDecodeError as error:
        raise refuse("a piece is not UTF-8", error) from error
    if len(set(texts)) != count:
        raise refuse("pieces repeat", f"{count - len(set(texts))} of them")

    entries, size = cursor.read("iI")
    end = cursor.at + size
    normalisation: dict[str, str] = {}
    for _ in range(max(entries, 0)):
        code, length = cursor.read("IB")
        replacement = cursor.read(f"{length}I")
        try:
            key, text = chr(code), "".join(map(chr, replacement))
            (key + text).encode("utf-8")  # refuses halves of surrogate pairs
            normalisation[key] = text
        except (ValueError, OverflowError) as error:
            raise refuse("the map of characters is damaged", error) from error
    if cursor.at != end or len(normalisation) != entries:
        raise refuse("the map of characters is damaged", f"{len(normalisation)} entries", entries)
    bos, eos, pad, unk = special
    return Pieces(texts, scores, bos, eos, pad, unk, normalisation)
