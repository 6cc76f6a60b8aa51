"""A shared encoder with one head per member, all heads in one matrix.

All heads are one linear layer whose columns are divided into blocks, one block per head. A row of a batch is routed to
its head by adding minus infinity to the columns of the others. So a batch may mix members freely, there is no loop over
heads, and softmax, loss and argmax over the masked row match those over the head's own columns bit for bit.
Members with equal label names share one block.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from soi_lib.errors import EncoderError
from soi_lib.models.encoder import weight_files
from soi_lib.models.vocabulary import shell_of


def derived_seed(seed: int, *names: object) -> int:
    """Return a 63-bit seed for one named use of randomness, so that one seed drives independent random streams."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


class Heads(nn.Module):
    """Classification heads of several members as column blocks of one linear layer.

    `labels` holds the label names of each member, in order. Members with equal names share a block. A block is
    initialised from the seed and its label names alone, so a member starts from the same head in every setting.
    """

    def __init__(self, hidden: int, labels: Sequence[tuple[str, ...]], *, dropout: float, seed: int) -> None:
        super().__init__()
        width, block_of = 0, {}
        for names in dict.fromkeys(labels):
            block_of[names] = slice(width, width + len(names))
            width += len(names)
        self.columns = [block_of[names] for names in labels]
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden, width)
        with torch.no_grad():
            self.linear.bias.zero_()
            for names, columns in block_of.items():
                generator = torch.Generator().manual_seed(derived_seed(seed, "head", *names))
                self.linear.weight[columns] = torch.randn(len(names), hidden, generator=generator) * 0.02
        outside = torch.full((len(labels), width), float("-inf"))
        for member, columns in enumerate(self.columns):
            outside[member, columns] = 0.0
        self.register_buffer("outside", outside, persistent=False)
        self.register_buffer("offset", torch.tensor([c.start for c in self.columns]), persistent=False)

    outside: Tensor
    offset: Tensor

    def forward(self, pooled: Tensor, member: Tensor) -> Tensor:
        """Return logits (B, all columns) float32 for `pooled` (B, hidden); other heads' columns are minus infinity."""
        logits = self.linear(self.dropout(pooled.float()))
        return logits if len(self.columns) == 1 else logits + self.outside[member]


def _kind(encoder: nn.Module) -> str:
    """Return the type of a model. Raises EncoderError for a decoder."""
    kind = str(getattr(encoder.config, "model_type", ""))
    only_causal = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if only_causal or any(getattr(module, "is_causal", False) is True for module in encoder.modules()):
        raise EncoderError(
            "this model is a decoder: each of its tokens sees only those before it",
            where=type(encoder).__name__,
            expected="an encoder, such as BERT, RoBERTa, DistilBERT, ELECTRA or ModernBERT",
            hint="choose another model",
        )
    return kind


def check_encoder(folder: Path, *, pooling: str, max_length: int) -> None:
    """Raise EncoderError for a model that cannot be trained: a decoder, too few positions, no pooler.

    Reads only the configuration and the names of the weights.
    """
    from safetensors import safe_open

    _, shell = shell_of(folder)
    _kind(shell)
    for name, module in shell.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            first = 0 if module.padding_idx is None else module.padding_idx + 1  # RoBERTa positions start after it
            if module.num_embeddings - first < max_length:
                found, hint = f"{module.num_embeddings - first} positions", "give a smaller --max-length"
                what = "the model has fewer positions than a text may have tokens"
                raise EncoderError(what, where=folder, found=found, expected=f"at least {max_length}", hint=hint)
    if pooling == "pooler":
        names: set[str] = set()
        for file in weight_files(folder):
            with safe_open(file, framework="np") as tensors:
                names |= set(tensors.keys())
        if not any(".pooler." in f".{name}" for name in names):
            raise EncoderError("the model has no pooler", where=folder, hint="give --pooling mean or cls")


class MultiTaskModel(nn.Module):
    """An encoder that returns `last_hidden_state`, a pooling (mean, cls or pooler), and the heads of the members."""

    def __init__(self, encoder: nn.Module, heads: Heads, *, pooling: str = "mean") -> None:
        super().__init__()
        kind = _kind(encoder)
        if pooling != "pooler" and getattr(encoder, "pooler", None) is not None:
            setattr(encoder, "pooler", None)  # noqa: B010 - unused weights would only cost optimizer time
        self.encoder, self.heads, self.pooling = encoder, heads, pooling
        # DeBERTa multiplies its embeddings by the mask, so the mask cannot be additive
        self._plain_mask = kind.startswith("deberta")
        self._inner = next(n for n, _ in encoder.named_parameters() if n.endswith("weight") and "embed" not in n)
        if isinstance(embeddings := getattr(encoder, "embeddings", None), nn.Module):
            embeddings.register_forward_hook(lambda module, inputs, output: output.to(self.dtype))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which the encoder's layers compute."""
        return self.encoder.get_parameter(self._inner).dtype

    def forward(self, inputs: dict[str, Tensor], member: Tensor) -> Tensor:
        """Return logits (B, all columns) float32 for a batch made by `training.batching.collate`."""
        keep = inputs["keep"]  # (B, T) float32: 1 for a token, 0 for padding
        padded = bool(inputs["padded"])
        extra = {"token_type_ids": inputs["segment"]} if "segment" in inputs else {}
        mask = None
        if padded and self._plain_mask:
            mask = keep.long()
        elif padded:
            bias = ((1.0 - keep) * torch.finfo(self.dtype).min).to(self.dtype)[:, None, None, :]
            mask = bias.expand(-1, 1, keep.shape[1], -1)
        output = self.encoder(input_ids=inputs["token"], attention_mask=mask, **extra)
        if self.pooling == "pooler":
            return self.heads(output.pooler_output, member)
        states = output.last_hidden_state.float()
        if self.pooling == "cls":
            return self.heads(states[:, 0], member)
        summed = torch.einsum("bth,bt->bh", states, keep)
        return self.heads(summed / keep.sum(1, keepdim=True), member)
