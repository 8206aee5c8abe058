"""A module goes in; whether it is a normalisation comes out, found by what it does and not by its name."""

from __future__ import annotations

import copy
import functools

import torch
from torch import nn

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_VERDICTS: dict[type[nn.Module], bool] = {}


def is_norm(module: nn.Module) -> bool:
    """Whether `module` normalises: it has vectors for parameters, and does not care how large its input is.

    A module without children whose parameters are vectors of one size n is tried on random inputs (2, n), or (2, n, 1, 1) if
    it takes images: outputs have to differ between inputs, and stay the same when the inputs are four times as large. That
    holds for layer norm, group norm and every RMS norm. Batch norm is known by its class, since it keeps statistics. The
    verdict is kept per class.
    """
    if isinstance(module, _BATCH_NORMS):
        return True
    parameters = list(module.parameters())
    if not parameters or any(True for _ in module.children()):
        return False
    if any(parameter.dim() != 1 or parameter.shape != parameters[0].shape for parameter in parameters):
        return False
    if type(module) not in _VERDICTS:
        _VERDICTS[type(module)] = _ignores_scale(module, len(parameters[0]))
    return _VERDICTS[type(module)]


def norm_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """All parameters of norms in `model`, by name."""
    return {
        f"{name}.{own}" if name else own: parameter
        for name, module in model.named_modules()
        if is_norm(module)
        for own, parameter in module.named_parameters(recurse=False)
    }


@torch.no_grad()
def _ignores_scale(module: nn.Module, size: int) -> bool:
    probe = copy.deepcopy(module).to_empty(device="cpu").float().eval()
    for parameter in probe.parameters():
        parameter.copy_(torch.linspace(0.5, 1.5, size))
    # Large inputs, so that the epsilon under the root does not count.
    inputs = 100 * torch.randn(2, 2, size, generator=torch.Generator().manual_seed(0))
    same = functools.partial(torch.allclose, rtol=1e-3, atol=1e-3)
    for x, other in (inputs, inputs[..., None, None]):
        try:
            y, scaled, elsewhere = probe(x), probe(4 * x), probe(other)
        except (TypeError, ValueError, RuntimeError, IndexError, NotImplementedError):
            continue  # it does not take a single input of this form, as a norm of n features does
        return isinstance(y, torch.Tensor) and same(y, scaled) and not same(y, elsewhere)
    return False
