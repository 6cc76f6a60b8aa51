"""Make a transformer's training step cheap on a CPU without changing what it computes.

Two operations are slower than they need to be: dropout, whose masks come from a slow Bernoulli sampler (a tenth of
the step), and attention with dropout, which cannot use the fused kernel. Both are replaced: masks are cut from 64-bit
random words, four per word (the probability is accurate to 1/65536), and attention is written out. The masks come
from their own generator, seeded for every epoch, so a resumed run draws the same masks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from soi_lib.errors import EncoderError

ATTENTION = "soi_cpu"
_generator = torch.Generator()


def seed_dropout(seed: int) -> None:
    """Restart the sequence of dropout masks from `seed`."""
    _generator.manual_seed(seed)


def keep_mask(shape: torch.Size, p: float) -> Tensor:
    """Return a bool tensor that is True with probability 1 - p (to 1/65536), with four entries per random word."""
    n = shape.numel()
    words = torch.empty((n + 3) // 4, dtype=torch.int64).random_(-(2**63), None, generator=_generator)
    return words.view(torch.int16)[:n].view(shape) >= round(p * 65536) - 32768


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        scale = keep_mask(x.shape, p).to(x.dtype).mul_(1.0 / (1.0 - p))
        ctx.save_for_backward(scale)
        return x * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (scale,) = ctx.saved_tensors
        return gradient * scale, None


class FastDropout(nn.Dropout):
    """Inverted dropout with cheap masks."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply dropout in training; return `x` unchanged in evaluation."""
        return _Dropout.apply(x, self.p) if self.training and self.p > 0 else x  # type: ignore[no-untyped-call]


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Compute scaled dot-product attention; the mask is additive or bool (True: attend), (B, 1, T, T), or None.

    Raises EncoderError for causal attention without a mask.
    """
    causal = getattr(module, "is_causal", False) if is_causal is None else is_causal
    if causal and attention_mask is None and query.shape[2] > 1:
        raise EncoderError("causal attention without a mask", where=type(module).__name__, expected="an encoder")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query * scale, key.transpose(2, 3))
    if attention_mask is not None:
        if attention_mask.dtype == torch.bool:
            attention_mask = torch.zeros_like(scores).masked_fill_(~attention_mask, torch.finfo(scores.dtype).min)
        scores = scores + attention_mask
    weights = scores.softmax(-1)
    if dropout > 0.0 and module.training:
        weights = _Dropout.apply(weights, dropout)  # type: ignore[no-untyped-call]
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


def make_fast(model: nn.Module) -> nn.Module:
    """Replace the dropout modules of `model`, and its attention if the model allows it."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Dropout:
                setattr(module, name, FastDropout(child.p).train(child.training))
        config: Any = getattr(module, "config", None)
        if getattr(config, "_attn_implementation", None) == "sdpa":
            config._attn_implementation = ATTENTION
    return model
