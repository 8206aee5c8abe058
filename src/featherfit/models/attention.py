"""Attention over packed rows, as an attention implementation of `transformers`.

A backbone is told its name once, and `packing=` travels to it through the forward's keyword arguments; without it the
implementation is PyTorch's own (SDPA).

Which kernel computes it follows from measurements (`benchmarks/attention.py`, 2,048 tokens in 12 heads of 32, bfloat16, on
2 cores; milliseconds forward, and forward with backward, for rows of 32, 128 and 512 tokens):

| | 32 | 128 | 512 |
|---|---|---|---|
| products and softmax | 1.0, 2.7 | 2.1, 8.8 | 7.4, 39 |
| SDPA | 1.7, 22 | 3.7, 25 | 11, 36 |

In float32, where SDPA's backward pass is as quick as its forward, products win up to 256 tokens (1.9 and 5.9 against 2.1 and
8.8 at 32) and lose at 512 (33 and 61 against 12 and 44).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from featherfit.models.packing import Group, Packing

IMPLEMENTATION = "featherfit_packed"
_PRODUCTS_WIDTH = 256
"""Widest rows of a batch for which products are the quicker ones in float32 on a CPU."""
_LOG2_E = math.log2(math.e)
_KEPT_WIDTH = 256
"""Widest rows whose probabilities are kept for the backward pass; beyond, the square of the width is worth recomputing."""


def register_attention() -> None:
    """Makes the implementation known to `transformers`."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(IMPLEMENTATION, packed_attention)
    AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packing: Packing | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Every row attends within itself.

    Args:
        module: The attention module; its `is_causal` counts.
        query: (1, H, T, d).
        key: (1, K, T, d), with K a divisor of H.
        value: (1, K, T, d).
        attention_mask: Not read when packed.
        packing: The rows; None for a padded forward.
        scaling: Factor of the scores; d^-0.5 by default.
        dropout: Rate of dropout on the probabilities.
        sliding_window: What the backbone calls so: tokens seen, its own included, on one side.

    Returns:
        (1, T, H, d), and None in place of the probabilities.
    """
    if packing is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        given = {"scaling": scaling, "dropout": dropout, "sliding_window": sliding_window, **others}
        return sdpa_attention_forward(module, query, key, value, attention_mask, **given)
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    settings = _Settings(
        packing,
        query.shape[-1] ** -0.5 if scaling is None else scaling,
        dropout,
        bool(getattr(module, "is_causal", False)),
        None if sliding_window is None else sliding_window - 1,
    )
    # Values come straight from a product; queries and keys may have met float32 on the way (rotations, norms).
    q, k, v = (_head_states(x.to(value.dtype)) for x in (query, key, value))
    fused = query.device.type != "cpu" or (q.dtype == torch.float32 and packing.widest > _PRODUCTS_WIDTH)
    attend = _by_sdpa if fused else _by_products
    with torch.autocast(query.device.type, enabled=False):
        out = attend(q, k, v, settings)
    return out.view(1, query.shape[2], query.shape[1], -1), None


@dataclass(frozen=True)
class _Settings:
    packing: Packing
    scale: float
    dropout: float
    causal: bool
    window: int | None

    @property
    def heads(self) -> int:
        return len(self.packing.put) // len(self.packing.tokens)

    def mask(self, group: Group, dtype: torch.dtype) -> torch.Tensor | None:
        return group.mask(self.heads, dtype, causal=self.causal, window=self.window)

    def of(self, group: Group, states: torch.Tensor) -> torch.Tensor:
        """The group's part of (..., places, d) as (..., n * H, P, d), without a copy."""
        shape = (group.rows * self.heads, group.width)
        return states.narrow(-2, group.start, shape[0] * shape[1]).unflatten(-2, shape)


def _head_states(x: torch.Tensor) -> torch.Tensor:
    """(1, H, T, d) to (T * H, d), without a copy where the heads of a token lie side by side."""
    return x.transpose(1, 2).reshape(-1, x.shape[-1])


def _by_products(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, settings: _Settings) -> torch.Tensor:
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        return _Products.apply(q, k, v, settings)
    return _forward(q, k, v, settings, keep=False)[0]


def _forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, settings: _Settings, *, keep: bool
) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
    """(T * H, d), and what a backward pass reads: all inputs, then per group probabilities and the dropout's factors."""
    packing = settings.packing
    inputs = q.new_empty(3, len(packing.take), q.shape[-1])
    for own, x in zip(inputs, (q, k, v), strict=True):
        torch.index_select(x, 0, packing.take, out=own)
    if not keep and q.dtype == torch.bfloat16 and settings.dropout == 0 and settings.window is None:
        return _attended_in_powers(inputs, settings).index_select(0, packing.put), []
    attended = q.new_empty(inputs.shape[1:])
    kept: list[torch.Tensor | None] = [inputs]
    for group in packing.groups:
        own, target = settings.of(group, inputs), settings.of(group, attended)
        probabilities = _probabilities(own, settings.mask(group, q.dtype), settings.scale)
        factors, weights = None, probabilities
        if settings.dropout > 0:
            factors = torch.empty_like(probabilities).bernoulli_(1 - settings.dropout).div_(1 - settings.dropout)
            weights = probabilities * factors
        torch.bmm(weights, own[2], out=target)
        kept += [probabilities if group.width <= _KEPT_WIDTH else None, factors]
    return attended.index_select(0, packing.put), kept


class _Products(torch.autograd.Function):
    """softmax(q k^T) v for every group, with the textbook gradients."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, settings: _Settings) -> torch.Tensor:
        out, kept = _forward(q, k, v, settings, keep=True)
        ctx.settings = settings
        ctx.save_for_backward(*kept)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        settings, (inputs, *saved) = ctx.settings, ctx.saved_tensors
        packing = settings.packing
        above = gradient.index_select(0, packing.take).index_fill_(0, packing.padding, 0)
        gradients = torch.empty_like(inputs)
        nothing = above.new_zeros(())
        for index, group in enumerate(packing.groups):
            q, k, v = own = settings.of(group, inputs)
            for_q, for_k, for_v = settings.of(group, gradients)
            probabilities, factors = saved[2 * index : 2 * index + 2]
            if probabilities is None:
                probabilities = _probabilities(own, settings.mask(group, q.dtype), settings.scale)
            group_above = settings.of(group, above)
            weights = probabilities if factors is None else probabilities * factors
            torch.bmm(weights.transpose(1, 2), group_above, out=for_v)
            for_weights = torch.bmm(group_above, v.transpose(1, 2))
            if factors is not None:
                for_weights.mul_(factors)
            scores = _softmax_gradient(for_weights, probabilities)
            torch.baddbmm(nothing, scores, k, beta=0, alpha=settings.scale, out=for_q)
            torch.baddbmm(nothing, scores.transpose(1, 2), q, beta=0, alpha=settings.scale, out=for_k)
        found = [x.index_select(0, packing.put) for x in gradients]
        for x in found:
            x[packing.real * settings.heads :] = 0  # repeated tokens are no one's keys
        return *found, None


def _attended_in_powers(inputs: torch.Tensor, settings: _Settings) -> torch.Tensor:
    """softmax(scale q k^T + mask) v for every group, by powers of two, whose sums (in float32, rounded once) divide at the end.

    Attention takes 10 to 25 % less time so than by a softmax, which looks for every row's greatest score first so that no
    power is out of range. Bfloat16 reaches from 2^-126 to 2^127, which scores rarely leave; groups where one does are
    computed by a softmax.
    """
    attended, sums = inputs.new_empty(inputs.shape[1:]), inputs.new_empty(inputs.shape[1], 1)
    for group in settings.packing.groups:
        q, k, v = settings.of(group, inputs)
        powers = _scores(q, k, settings.mask(group, q.dtype), settings.scale * _LOG2_E).exp2_()
        torch.sum(powers, -1, keepdim=True, out=settings.of(group, sums))
        torch.bmm(powers, v, out=settings.of(group, attended))
    attended.div_(sums)
    if not _within_reach(sums):
        for group in settings.packing.groups:
            if not _within_reach(settings.of(group, sums)):
                own = settings.of(group, inputs)
                probabilities = _probabilities(own, settings.mask(group, inputs.dtype), settings.scale)
                torch.bmm(probabilities, own[2], out=settings.of(group, attended))
    return attended


def _within_reach(sums: torch.Tensor) -> bool:
    """Whether no sum comes near the ends of what bfloat16 holds."""
    least, most = sums.aminmax()
    return bool(least > 1e-20 and most < 1e30)  # neither holds of NaN


def _probabilities(inputs: torch.Tensor, mask: torch.Tensor | None, scale: float) -> torch.Tensor:
    """softmax(scale q k^T + mask), (n * H, P, P), with the softmax in float32."""
    q, k, _ = inputs
    scores = _scores(q, k, mask, scale)
    if q.dtype == torch.float32 or q.shape[1] % 32 == 0:
        return scores.softmax(-1)  # the kernel sums in float32 by itself
    # Its bfloat16 path takes 32 numbers at a time and falls to a scalar loop for the rest.
    return scores.float().softmax(-1).to(q.dtype)


def _scores(q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None, scale: float) -> torch.Tensor:
    """scale q k^T + mask, (n * H, P, P)."""
    if mask is None:
        return torch.baddbmm(q.new_zeros(()), q, k.transpose(1, 2), beta=0, alpha=scale)
    return torch.baddbmm(mask, q, k.transpose(1, 2), alpha=scale)


def _softmax_gradient(gradient: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    dtype = gradient.dtype
    if dtype != torch.float32 and gradient.shape[-1] < 32:
        gradient, probabilities = gradient.float(), probabilities.float()
    return torch._softmax_backward_data(gradient, probabilities, -1, gradient.dtype).to(dtype)


def _by_sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, settings: _Settings) -> torch.Tensor:
    """The same through PyTorch's fused attention, one call a group; for devices whose fused kernels are good."""
    packing, heads = settings.packing, settings.heads
    taken = [x.index_select(0, packing.take) for x in (q, k, v)]
    parts = []
    for group in packing.groups:
        own_q, own_k, own_v = (settings.of(group, x).unflatten(0, (group.rows, heads)) for x in taken)
        mask = settings.mask(group, q.dtype)
        if mask is not None:
            mask = mask.unflatten(0, (-1, heads if len(mask) > 1 else 1))
        attended = F.scaled_dot_product_attention(
            own_q, own_k, own_v, attn_mask=mask, dropout_p=settings.dropout, scale=settings.scale
        )
        parts.append(attended.reshape(-1, q.shape[-1]))
    return torch.cat(parts).index_select(0, packing.put)
