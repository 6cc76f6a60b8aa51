"""The tokenizer of the 4-bit encoder, rebuilt from the pieces in its file with the `tokenizers` library.

What is special: the file's character map becomes a SentencePiece "precompiled" map, a double-array trie,
because five thousand single replacements would be a thousand times slower.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from soi_lib.models.q4 import Pieces


def unigram(pieces: Pieces) -> Tokenizer:
    """The tokenizer of the 4-bit encoder: pair form `<s> A </s> </s> B </s>`, all segments 0.

    As trained: canonical composition, the file's character map (a zero-width non-joiner becomes a space), runs of
    spaces as one, none at the ends, a metaspace before every word.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(
        models.Unigram(list(zip(pieces.texts, pieces.scores.astype(float).tolist(), strict=True)), pieces.unk, False)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Precompiled(character_map(pieces.normalisation)),
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    bos, eos = pieces.texts[pieces.bos], pieces.texts[pieces.eos]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}",
        pair=f"{bos} $A {eos} {eos} $B:0 {eos}",
        special_tokens=[(bos, pieces.bos), (eos, pieces.eos)],
    )
    plain = [pieces.texts[token] for token in sorted({pieces.bos, pieces.eos, pieces.pad, pieces.unk})]
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in plain])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False, special=True)])
    return tokenizer


def unigram_config(pieces: Pieces, max_length: int) -> str:
    """The `tokenizer_config.json` that goes with `unigram`."""
    bos, eos = pieces.texts[pieces.bos], pieces.texts[pieces.eos]
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bos,
        "cls_token": bos,
        "eos_token": eos,
        "sep_token": eos,
        "pad_token": pieces.texts[pieces.pad],
        "unk_token": pieces.texts[pieces.unk],
        "mask_token": "<mask>",
        "model_max_length": max_length,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    return json.dumps(settings, indent=1, sort_keys=True) + "\n"


def character_map(replacements: dict[str, str]) -> bytes:
    """A SentencePiece precompiled map (a Darts double-array trie, then the replacements) of single characters.

    No character's UTF-8 bytes begin another's, so a node either has children or a value. That makes the array
    simple: every inner node gets 256 cells of its own, every value one cell behind them.
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
