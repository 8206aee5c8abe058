"""Linear layers whose weight does not train: the product, and its gradient for the input, at the machine's own rate.

On a CPU with native bfloat16, oneDNN multiplies faster by a matrix that was brought into its blocked order beforehand,
and by up to a factor of two where the number of tokens does not divide well (1,189 tokens through 384 x 1536: 950 GFLOP/s
against 490; 2,048 tokens: 1,030 against 950). A weight that never changes is reordered once, for both directions.
"""

from __future__ import annotations

import platform
from functools import cache
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn import functional as F

from featherfit.models.mapped import files_hold, give_up, state_of

Layer = TypeVar("Layer", bound="FrozenLinear")

REORDER_LIMIT = 256_000_000
"""Numbers in all of a model's linear layers above which memory is worth more than reordered copies."""

_TYPICAL_TOKENS = 1024  # oneDNN picks the blocked order for a number of rows; any large one gives the same


class FrozenLinear(nn.Linear):
    """`nn.Linear` with a frozen weight: no gradient for it, no input kept for it.

    A drop-in: the same parameters under the same names. A weight that trains after all is computed as `nn.Linear` does.

    Attributes:
        reorders: Whether oneDNN's copies of the weight may be kept.
    """

    reorders: bool
    _dtype: torch.dtype | None  # of the products, where the weight is not kept in that type
    _copies: dict[str, tuple[tuple[int, int], torch.Tensor]]
    _in_file: tuple[int, int] | None

    @classmethod
    def of(cls: type[Layer], linear: nn.Linear, *, reorders: bool) -> Layer:
        """The frozen layer that shares the parameters of `linear`."""
        own = cls(linear.in_features, linear.out_features, bias=False, device="meta")
        own.weight, own.bias = linear.weight, linear.bias
        own.reorders, own._dtype, own._copies, own._in_file = reorders, None, {}, None
        return own.train(linear.training)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the products."""
        return self._dtype or self.weight.dtype

    def dense(self, dtype: torch.dtype) -> torch.Tensor:
        """The weight as numbers of a type, (out, in)."""
        return self.weight.to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out), in the type of the products."""
        return self.times(x, self.bias)

    def times(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """x W^T + b with a bias, or none, that is not the layer's own; gradients for both."""
        if self.weight.requires_grad:
            return F.linear(x, self.weight, bias)
        if torch.is_grad_enabled() and (x.requires_grad or (bias is not None and bias.requires_grad)):
            return _Product.apply(x, bias, self)
        return self.product(x, bias)

    def product(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """x W^T + b, (..., in) to (..., out), outside autograd."""
        dtype = self.dtype
        x = x.to(dtype)
        bias = None if bias is None else bias.to(dtype)
        if not self._reordered(x):
            return F.linear(x, self.dense(dtype), bias)
        flat = torch.ops.mkldnn._linear_pointwise(
            x.reshape(-1, self.in_features), self._copy("forward", self.weight), bias, "none", [], ""
        )
        return flat.view(*x.shape[:-1], self.out_features)

    def input_gradient(self, gradient: torch.Tensor) -> torch.Tensor:
        """g W, (..., out) to (..., in), outside autograd."""
        dtype = self.dtype
        gradient = gradient.to(dtype)
        if not self._reordered(gradient):
            return gradient @ self.dense(dtype)
        flat = torch.ops.mkldnn._linear_pointwise(
            gradient.reshape(-1, self.out_features), self._copy("backward", self.weight.t()), None, "none", [], ""
        )
        return flat.view(*gradient.shape[:-1], self.in_features)

    def _reordered(self, x: torch.Tensor) -> bool:
        return self.reorders and x.device.type == "cpu" and x.dtype == torch.bfloat16 and cpu_reorders()

    def _copy(self, direction: str, matrix: torch.Tensor) -> torch.Tensor:
        """oneDNN's copy of `matrix`, made anew when the weight has changed."""
        state = state_of(self.weight)
        held = self._copies.get(direction)
        if held is None or held[0] != state:
            low = matrix.detach().to(self.dtype).contiguous()
            reordered = torch.ops.mkldnn._reorder_linear_weight(low, _TYPICAL_TOKENS)
            held = self._copies[direction] = (state, reordered)
            if state == self._in_file:
                give_up(self.weight)
        return held[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_copies": {}}  # oneDNN's tensors can be neither copied nor pickled


class _Product(torch.autograd.Function):
    """The product with gradients for input and bias only."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, bias: torch.Tensor | None, linear: FrozenLinear) -> torch.Tensor:
        ctx.linear, ctx.x_type = linear, x.dtype
        ctx.bias_type = None if bias is None else bias.dtype
        return linear.product(x, bias)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        for_x = ctx.linear.input_gradient(gradient).to(ctx.x_type) if ctx.needs_input_grad[0] else None
        for_bias = column_sums(gradient).to(ctx.bias_type) if ctx.needs_input_grad[1] else None
        return for_x, for_bias, None


def dense_weight(linear: nn.Linear) -> torch.Tensor:
    """The weight of a linear layer in float32, (out, in), however the layer keeps it."""
    return linear.dense(torch.float32) if isinstance(linear, FrozenLinear) else linear.weight.float()


def dtype_of(linear: nn.Linear) -> torch.dtype:
    """Type of a linear layer's products."""
    return linear.dtype if isinstance(linear, FrozenLinear) else linear.weight.dtype


def column_sums(x: torch.Tensor) -> torch.Tensor:
    """Sums over all but the last dimension, (..., n) to (n,), accumulated in float32."""
    return x.reshape(-1, x.shape[-1]).sum(dim=0)


def lower_precision(module: nn.Module, dtype: torch.dtype) -> None:
    """Lets linear layers with frozen weights compute in `dtype`, in place; everything else stays as it is.

    Weights are converted, but for those that lie in a file and of which reordered copies are kept: they stay there, since
    nothing reads them any more. Codes stay as they are.
    """
    frozen = [
        child
        for child in module.modules()
        if isinstance(child, nn.Linear) and not child.weight.requires_grad and child.weight.is_floating_point()
    ]
    in_file = files_hold([child.weight for child in frozen])
    for child, held in zip(frozen, in_file, strict=True):
        if held and isinstance(child, FrozenLinear) and child.reorders and dtype == torch.bfloat16 and cpu_reorders():
            child._dtype, child._in_file = dtype, state_of(child.weight)
        else:
            child.weight.data = child.weight.data.to(dtype)


def keeps_copies(module: nn.Module) -> bool:
    """Whether the layers that `freeze_linears` puts into this model keep reordered copies on this machine."""
    return _within_limit(module) and cpu_reorders()


def freeze_linears(module: nn.Module, *, copies: bool = True) -> None:
    """Puts a `FrozenLinear` in the place of every linear layer, in place; layers that are shared stay shared.

    Args:
        module: Any model.
        copies: Keep reordered copies of the weights, where the machine has a use for them.
    """
    linears = {id(child): child for child in module.modules() if type(child) is nn.Linear}
    reorders = copies and _within_limit(module)
    frozen = {key: FrozenLinear.of(linear, reorders=reorders) for key, linear in linears.items()}
    for path, child in list(module.named_modules(remove_duplicate=False)):
        if id(child) in frozen:
            module.set_submodule(path, frozen[id(child)])


def _within_limit(module: nn.Module) -> bool:
    """Whether there are few enough numbers in the model's linear layers for copies of them."""
    return sum(child.weight.numel() for child in module.modules() if type(child) is nn.Linear) <= REORDER_LIMIT


def forget_backward(module: nn.Module) -> None:
    """Drops the copies of frozen weights that only training needs; training again makes them again."""
    for child in module.modules():
        if isinstance(child, FrozenLinear):
            child._copies.pop("backward", None)


@cache
def cpu_reorders() -> bool:
    """Whether torch can keep bfloat16 weights in oneDNN's order on this machine."""
    if platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available():
        return False
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()  # bfloat16 may be asked for where it is emulated
