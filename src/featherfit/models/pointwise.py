"""A network of convolutions goes in; the same one, its convolutions of a single pixel written as linear layers, comes out.

A convolution with a kernel of 1 x 1 multiplies the channels of every pixel by one matrix, which is what a linear layer does. As
one, it is kept, multiplied and adapted like every other linear layer.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


class Pointwise(nn.Module):
    """A linear layer over channels.

    Attributes:
        linear: (in) to (out) channels; its weight is the convolution's, without the two dimensions of its kernel.
        kernel_size, stride, dilation: The convolution's, which some models work out their padding from.
    """

    kernel_size = stride = dilation = (1, 1)

    def __init__(self, convolution: nn.Conv2d):
        super().__init__()
        self.linear = nn.Linear(
            convolution.in_channels, convolution.out_channels, bias=convolution.bias is not None, device="meta"
        )
        weight = convolution.weight
        self.linear.weight = nn.Parameter(weight.detach().flatten(1), requires_grad=weight.requires_grad)
        if convolution.bias is not None:
            self.linear.bias = nn.Parameter(convolution.bias.detach(), requires_grad=convolution.bias.requires_grad)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in, H, W) to (B, out, H, W), channels last in memory."""
        return self.linear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def with_linears(model: Model) -> Model:
    """Puts a `Pointwise` in the place of every convolution that is one, in place."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Conv2d and _is_pointwise(child):
                setattr(module, name, Pointwise(child))
    return model


def _is_pointwise(convolution: nn.Conv2d) -> bool:
    unpadded = convolution.padding in ((0, 0), "same", "valid")  # a kernel of one pixel needs no padding to be the same
    shape = convolution.kernel_size, convolution.stride
    return shape == ((1, 1), (1, 1)) and unpadded and convolution.groups == 1
