"""The adapter contract: one frozen `nn.Linear` goes in, a module of the same shape with a few new parameters comes out.

A method is one file that defines a subclass of `Adapter`, files a builder under its name in `ADAPTERS`, and adds a row
to `methods.py`. Nothing else knows any method by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from featherfit.models.linear import dtype_of
from featherfit.registry import Registry

if TYPE_CHECKING:
    from featherfit.config.schema import LoraConfig


class Adapter(nn.Module):
    """Wraps one linear layer.

    Subclasses own float32 parameters of their own, start as the identity (outputs equal the base layer's), return the
    base layer's output type for inputs (..., in_features), and fold themselves into a plain layer in `merged`.

    Attributes:
        base: The frozen layer. Its bias may be set to train by whoever asks for biases.
        no_decay: Names of own parameters that weight decay must leave alone because they do not start around zero.
    """

    is_adapter: ClassVar[bool] = True  # what `models.build.model_size` counts, as it may not import this layer
    no_decay: ClassVar[tuple[str, ...]] = ()

    def __init__(self, base: nn.Linear):
        super().__init__()
        self.base = base.requires_grad_(False)

    @property
    def weight(self) -> torch.Tensor:
        """The frozen weight as its layer keeps it; some layers of `transformers` look at its type."""
        return self.base.weight

    @property
    def bias(self) -> torch.Tensor | None:
        """The bias (out,) of the frozen layer, if it has one."""
        return self.base.bias

    def merged(self) -> nn.Linear:
        """A plain layer with the same outputs, in the type the base layer computes in."""
        raise NotImplementedError


@dataclass(frozen=True)
class Target:
    """A linear layer that gets an adapter.

    Attributes:
        name: Its full name in the backbone.
        linear: The layer.
        scales_input: True for the feed-forward layer whose input, rather than output, the IA3 paper scales.
    """

    name: str
    linear: nn.Linear
    scales_input: bool = False


Builder = Callable[[Target, "LoraConfig", torch.Generator], Adapter]
ADAPTERS: Registry[Builder] = Registry("adapter")


def in_type_of(x: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """`x` in the type of `parameter`; untouched under autocast, which picks the type of every product itself."""
    return x if torch.is_autocast_enabled(x.device.type) else x.to(parameter.dtype)


def plain_linear(weight: torch.Tensor, bias: torch.Tensor | None, like: nn.Linear) -> nn.Linear:
    """A frozen `nn.Linear` of the given numbers, in the type that `like` computes in, and its mode."""
    out_features, in_features = weight.shape
    linear = nn.Linear(in_features, out_features, bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.detach().to(dtype_of(like)), requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().to(dtype_of(like)), requires_grad=False)
    return linear.train(like.training)
