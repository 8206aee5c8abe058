"""A `Fitted` and rows to measure go in; a faster `Fitted` that was seen to predict the same comes out, and its figures.

What runs faster is the encoder's linear layers, in 8-bit integers (see `int8.py`). Embeddings, norms, attention, pooling
and head are the trained model's own modules, so a second form of the model costs the memory of its int8 weights only,
and the trained one stays as it is.
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from featherfit.adapters.base import Adapter
from featherfit.artifact.fitted import Fitted
from featherfit.data.dataset import Dataset
from featherfit.data.load import load_table
from featherfit.errors import ConfigError, UnsupportedError
from featherfit.inference.int8 import Int8Down, Int8Linear, Int8Up, Quantizer, Range, multiplies_int8
from featherfit.inference.predict import outputs, table_rows
from featherfit.inference.quality import Optimized, compare, refuse_worse
from featherfit.models.linear import dense_weight

ROWS = 256
"""Most rows that ranges and quality are measured on."""

MOST_OUTLIERS = 32
"""Channels of a feed-forward layer that may count beyond the range of their codes."""

ROUNDING = 0.04
"""Most rounding error of feed-forward activations, as a share of the activations' own size (root mean square)."""

FORWARD_TOKENS = 6144
"""Tokens of a forward: what a forward costs whatever its size weighs more the quicker it is."""

_LIMITS = 13  # of the largest channels: down to a sixty-fourth


def optimize(
    fitted: Fitted, frame: pd.DataFrame | None, *, precision: str, max_loss: float
) -> tuple[Fitted, Optimized]:
    """A faster form of a predictor, if it predicts well enough.

    Args:
        fitted: The trained predictor; it is not changed.
        frame: Rows as they will come, with the label column or without; up to `ROWS` of them are used, evenly spaced.
            None takes the reviews of the demo.
        precision: `int8`.
        max_loss: How much of the predictor's metric may be lost; for errors, and metrics without an upper end, the
            relative growth. Without labels, `AGREEMENT_FACTOR * max_loss` is the share of rows whose label may differ.

    Raises:
        ConfigError: Wrong arguments.
        UnsupportedError: A device or an encoder on which it cannot be done.
        DataError: A table that cannot be used.
        QualityError: It predicts too differently.
    """
    _check(fitted, precision, max_loss)
    frame = _demo_rows(fitted) if frame is None else _spaced(frame)
    rows = table_rows(fitted, frame)
    seen = _ranges(fitted, rows)
    device = replace(fitted.device, most_tokens=FORWARD_TOKENS)
    faster = replace(fitted, model=int8_model(fitted, seen), device=device)
    outputs(faster, rows)  # the first pass compiles kernels
    before, slow = _timed(fitted, rows)
    after, fast = _timed(faster, rows)
    report = compare(fitted, faster, frame, (before, after), (slow, fast))
    refuse_worse(report, max_loss)
    return faster, report


def _timed(fitted: Fitted, rows: Dataset) -> tuple[np.ndarray, float]:
    """Outputs, and rows per second."""
    started = time.perf_counter()
    logits = outputs(fitted, rows)
    return logits, len(rows) / (time.perf_counter() - started)


# What may be asked for, and with which rows


def _check(fitted: Fitted, precision: str, max_loss: float) -> None:
    if precision != "int8":
        raise ConfigError(
            f"precision={precision!r} is unknown. Allowed: 'int8', or None to go back to the trained model."
        )
    if isinstance(max_loss, bool) or not isinstance(max_loss, int | float) or not 0 <= max_loss <= 1:
        raise ConfigError(f"max_loss={max_loss!r} has to be a number from 0 to 1, such as 0.003.")
    if fitted.model.encoder is None:
        raise UnsupportedError(
            "precision='int8' is for text encoders, and this predictor reads no text. Predict as it is."
        )
    if fitted.device.place.type != "cpu":
        raise UnsupportedError(
            f"precision='int8' is for CPUs, and this predictor runs on {fitted.device.place.type!r}. Predict as it is, or "
            "fit with env.accelerator='cpu'."
        )
    if not multiplies_int8():
        raise UnsupportedError(
            "precision='int8' needs PyTorch with oneDNN's int8 products (torch.ops.onednn.qlinear_pointwise), and this one "
            "lacks them. Install PyTorch 2.6 or later for x86-64, or predict as it is."
        )
    if not cpu_has_int8():
        warnings.warn(
            "This CPU has no instructions for 8-bit products (VNNI, AMX), so int8 may be no faster than before. Compare "
            "the rows per second.",
            stacklevel=3,
        )


def cpu_has_int8() -> bool:
    """Whether this CPU multiplies 8-bit integers natively (AVX512-VNNI, AVX-VNNI or AMX)."""
    flags = Path("/proc/cpuinfo")
    if not flags.is_file():
        return torch.backends.cpu.get_cpu_capability() == "AVX512"
    words = set(flags.read_text(errors="replace").split())
    return not words.isdisjoint({"avx512_vnni", "avx_vnni", "amx_int8"})


def _spaced(frame: pd.DataFrame) -> pd.DataFrame:
    if len(frame) == 0:
        raise ConfigError("data has no rows, so there is nothing to measure. Give rows such as will be predicted.")
    return frame.iloc[np.unique(np.linspace(0, len(frame) - 1, min(len(frame), ROWS)).round().astype(int))]


def _demo_rows(fitted: Fitted) -> pd.DataFrame:
    """Reviews in seven languages, each in every text column."""
    folder = Path(__file__).parents[1] / "demo" / "data"
    tables = [load_table(file)["text"] for file in sorted(folder.glob("*.csv"))]
    texts = _spaced(pd.concat(tables, ignore_index=True).to_frame())["text"]
    if fitted.parts:
        raise ConfigError(
            "This predictor reads columns besides text, and nobody but you has rows like yours. Give data=, a table such as "
            "will be predicted."
        )
    return pd.DataFrame({column: texts for column in fitted.text.columns})


# From ranges to the model


class _Seen:
    """What came into a module while it was watched, channel by channel.

    Attributes:
        lows, highs: Extremes, (in,).
        squares: Sums of squares, (in,), over `count` tokens.
    """

    def __init__(self) -> None:
        self.lows, self.highs = torch.tensor(math.inf), torch.tensor(-math.inf)
        self.squares, self.count = torch.tensor(0.0), 0

    def see(self, module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        x = args[0].flatten(0, -2).float()
        low, high = x.aminmax(dim=0)
        self.lows, self.highs = torch.minimum(self.lows, low), torch.maximum(self.highs, high)
        self.squares = self.squares + x.square().sum(dim=0)
        self.count += len(x)


def _ranges(fitted: Fitted, rows: Dataset) -> dict[str, _Seen]:
    """What comes into the linear layers of the trained model, by their path in the backbone."""
    backbone, seen, handles = fitted.model.text.backbone, {}, []
    for path in {path for layer in _layers(fitted) for path in layer.paths()}:
        seen[path] = _Seen()
        handles.append(backbone.get_submodule(path).register_forward_pre_hook(seen[path].see))
    try:
        outputs(fitted, rows)
    finally:
        for handle in handles:
            handle.remove()
    return seen


@dataclass(frozen=True)
class _Layer:
    """One transformer layer's linear layers, as paths in the backbone.

    Attributes:
        groups: Layers that read the same tensor together.
        up, activation, down: A feed-forward unit with exact GELU between two layers; None elsewhere.
    """

    groups: tuple[tuple[str, ...], ...]
    up: str | None
    activation: str | None
    down: str | None

    def paths(self) -> list[str]:
        return [path for group in self.groups for path in group] + ([] if self.down is None else [self.down])


def _layers(fitted: Fitted) -> list[_Layer]:
    encoder = fitted.model.text
    family, modules = encoder.family, dict(encoder.backbone.named_modules(remove_duplicate=False))
    found = []
    for at in encoder.layers():
        wanted = ((family.query, family.key, family.value), (family.out,), family.up)
        groups = [dict.fromkeys(f"{at}.{name}" for name in names if name) for names in wanted]
        linear = [
            tuple(path for path in group if isinstance(modules.get(path), nn.Linear | Adapter)) for group in groups
        ]
        up = activation = down = None
        if family.activation is not None and _is_exact_gelu(modules[f"{at}.{family.activation}"]):
            up, activation, down = (f"{at}.{name}" for name in (family.up[0], family.activation, family.down))
        found.append(_Layer(tuple(filter(None, linear)), up, activation, down))
    return found


def _is_exact_gelu(module: nn.Module) -> bool:
    from transformers.activations import GELUActivation

    return isinstance(module, GELUActivation) or (isinstance(module, nn.GELU) and module.approximate == "none")


def int8_model(fitted: Fitted, seen: Mapping[str, _Seen]) -> Any:
    """The model with int8 layers in the place of its linear ones; everything else is shared with the trained model.

    Raises:
        UnsupportedError: An encoder whose linear layers are not known by name.
    """
    encoder, dtype = fitted.model.text, fitted.device.frozen_dtype
    new: dict[str, nn.Module] = {}
    linear = partial(_float32_linear, encoder.backbone)
    with torch.no_grad():
        for layer in _layers(fitted):
            for group in layer.groups:
                quantizer = _quantizer(
                    [seen[path] for path in group], torch.cat([linear(path).weight for path in group])
                )
                unit = _feed_forward(layer, seen, quantizer, linear, dtype) if layer.up in group else None
                new.update(unit or {path: Int8Linear(linear(path), quantizer, dtype) for path in group})
    if not new:
        raise UnsupportedError(
            f"precision='int8' is not possible with {type(encoder.backbone).__name__}: its layers are not known by name."
        )
    return with_modules(fitted.model, {f"encoder.backbone.{path}": module for path, module in new.items()}).eval()


def _quantizer(inputs: list[_Seen], weight: torch.Tensor) -> Quantizer:
    """The quantiser of layers that read one tensor, whose weights (out, in) stand below each other in `weight`."""
    lows = torch.stack([seen.lows for seen in inputs]).amin(dim=0)
    highs = torch.stack([seen.highs for seen in inputs]).amax(dim=0)
    squares = inputs[0].squares / inputs[0].count
    factors = smoothing_factors(lows, highs, squares, weight)
    codes = Range.of((lows * factors).min().item(), (highs * factors).max().item())
    return Quantizer(codes, None if bool((factors == 1).all()) else factors)


def smoothing_factors(
    lows: torch.Tensor, highs: torch.Tensor, squares: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Factors for the channels of an input, (in,), at most 1, that make a product's rounding error smallest.

    Channels larger than a limit are multiplied down to it, which makes the steps of the input finer and those of the
    weight, whose columns grow by as much, coarser. Of limits half an octave apart the best is taken: the error of a step
    s has the variance s^2 / 12, and those of inputs and weights add up over the product.

    Args:
        lows, highs: Extremes of every channel, (in,).
        squares: Mean square of every channel, (in,).
        weight: (out, in).
    """
    sizes = torch.maximum(-lows, highs).clamp_min(1e-8)
    best, least = torch.ones_like(sizes), math.inf
    for halves in range(_LIMITS):
        factors = (sizes.max() * 2 ** (-halves / 2) / sizes).clamp_max(1.0)
        columns = weight / factors
        input_step = Range.of((lows * factors).min().item(), (highs * factors).max().item()).scale
        weight_steps = columns.abs().amax(dim=1) / 127
        error = input_step**2 * columns.square().sum() + weight_steps.square().sum() * (squares * factors**2).sum()
        if error.item() < least:
            best, least = factors, error.item()
    return best


def _feed_forward(
    layer: _Layer, seen: Mapping[str, _Seen], quantizer: Quantizer, linear: Any, dtype: torch.dtype
) -> dict[str, nn.Module] | None:
    """Both layers of the unit; None where its activations have more outliers than are worth computing apart."""
    assert layer.up is not None and layer.activation is not None and layer.down is not None
    activations = seen[layer.down]
    cut = outlying_channels(activations.highs, activations.squares / activations.count)
    if cut is None:
        return None
    high, outliers = cut
    up = Int8Up(linear(layer.up), quantizer, high, outliers, dtype)
    down = Int8Down(linear(layer.down), up, outliers, dtype)
    return {layer.up: up, layer.activation: nn.Identity(), layer.down: down}


def outlying_channels(highs: torch.Tensor, squares: torch.Tensor) -> tuple[float, torch.Tensor] | None:
    """Where the range of feed-forward activations ends, and the channels that exceed it.

    As few channels are left out as lets the others be rounded well enough: a step s of 255 gives an error of
    s / sqrt(12), which `ROUNDING` compares to the root mean square of the bulk, the channels that never leave.

    Args:
        highs: Maximum of every channel, (F,).
        squares: Mean square of every channel, (F,).

    Returns:
        The end of the range and the numbers of the channels, ascending; None if there were more than `MOST_OUTLIERS`.
    """
    order = highs.argsort(descending=True, stable=True)
    most = min(MOST_OUTLIERS, len(highs) // 2)
    size = squares[order[most:]].mean().sqrt().item()
    for left_out in range(most + 1):
        high = highs[order[left_out]].item()
        if Range.of(-0.17, high).scale / math.sqrt(12) <= ROUNDING * size:
            return high, order[:left_out].sort().values
    return None


def _float32_linear(backbone: nn.Module, path: str) -> nn.Linear:
    """The layer at `path` with its adapter folded in, in float32: nothing is rounded before the codes are chosen."""
    module = backbone.get_submodule(path)
    base = module.base if isinstance(module, Adapter) else module
    assert isinstance(base, nn.Linear)
    linear = nn.Linear(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
    linear.weight = nn.Parameter(dense_weight(base).detach(), requires_grad=False)
    if base.bias is not None:
        linear.bias = nn.Parameter(base.bias.detach().float(), requires_grad=False)
    return with_modules(module, {"base": linear}).merged() if isinstance(module, Adapter) else linear


def with_modules(module: nn.Module, new: Mapping[str, nn.Module]) -> Any:
    """A copy of `module` with other modules at the given paths, which shares everything else with it."""
    own = copy.copy(module)
    own._modules = dict(module._modules)
    inside: dict[str, dict[str, nn.Module]] = {}
    for path, replacement in new.items():
        name, _, rest = path.partition(".")
        if rest:
            inside.setdefault(name, {})[rest] = replacement
        else:
            own._modules[name] = replacement
    for name, replacements in inside.items():
        own._modules[name] = with_modules(module.get_submodule(name), replacements)
    return own
