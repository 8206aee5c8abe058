"""A model and `optim` settings go in; the same model, adapters in place and everything else frozen, comes out.

Weights of lower precision: adapters compute with float32 parameters on a bfloat16 or float16 encoder as it is. Biases
and norms that train are float32 as well, and PyTorch's layers mix the two types under autocast only; a note says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn

from featherfit.adapters.base import ADAPTERS, Adapter, Target
from featherfit.adapters.methods import METHODS, Method
from featherfit.adapters.norms import norm_parameters
from featherfit.adapters.targets import compiled, depths, find_targets, layers_on_top
from featherfit.config.schema import LoraConfig
from featherfit.errors import TargetError, did_you_mean
from featherfit.models.quantized import extra_numbers

if TYPE_CHECKING:
    from featherfit.config.schema import OptimConfig
    from featherfit.models.build import MultiModalModel
    from featherfit.models.text import TextEncoder

MOST_TRAINABLE = 0.5
"""Share of the encoder above which a parameter-efficient method is refused as a mistake."""


@dataclass(frozen=True)
class AdapterReport:
    """What `apply_adapters` did.

    Attributes:
        adapters: Number of adapters placed.
        targets: Names, in the Hugging Face model, of the layers they wrap.
        trainable: Parameters that train, the head's included.
        notes: Plain sentences about what is unusual; each was warned of as well.
    """

    adapters: int
    targets: list[str]
    trainable: int
    notes: list[str] = field(default_factory=list)


def apply_adapters(model: MultiModalModel, optim: OptimConfig, *, seed: int) -> AdapterReport:
    """Places adapters and decides, once and for all, what trains. Learning rates have no say in it.

    Without `optim.peft` everything trains. With it every pretrained encoder is frozen except for: the adapters; biases and norms if
    the method asks for them, both of the topmost layers only where `optim.top_layers` says how many; the norm after the last
    layer, which belongs to the head (AutoMM's depth 0); and whatever `optim.extra_trainable_params` names, as parameters are
    called in the Hugging Face model. The head always trains. All that trains is float32.

    Args:
        model: Changed in place.
        optim: `peft`, `lora`, `top_layers` and `extra_trainable_params` are read.
        seed: Seed of the adapters' initial weights; torch's global generator is left alone.

    Raises:
        TargetError: No target found, nothing for the method to train, an encoder of fewer layers than `top_layers`, or more than
            half of the encoder would train.
    """
    encoders = model.pretrained()
    extra = _extra_parameters(encoders, optim.extra_trainable_params)
    if optim.peft is None:
        model.requires_grad_(True)
        _to_float32(model)
        return AdapterReport(0, [], _count(model))
    method = METHODS[optim.peft]
    _check_top(encoders, optim.top_layers)
    notes, placed = (_unused_settings(optim, method) if encoders else []), []
    found = {name: _targets(encoder, name, encoders, optim, method) for name, encoder in encoders.items()}
    chosen = {
        name: _method_parameters(encoder, optim.peft, method, optim.top_layers) for name, encoder in encoders.items()
    }
    _freeze_pretrained(model)
    for name, encoder in encoders.items():
        targets, said = found[name]
        if method.adapter is not None and targets:
            _inject(encoder, targets, method.adapter, optim.lora, seed)
        placed += [target.name if len(encoders) == 1 else f"{name}: {target.name}" for target in targets]
        own, more = chosen[name]
        trained = [*own, *_final_norm(encoder), *_new(encoder), *extra[name]]
        for parameter in trained:
            parameter.requires_grad_(True)
        _refuse_most(encoder, optim.peft)
        notes += said + more + _precision_note(encoder, trained)
    _to_float32(model)
    for note in notes:
        warnings.warn(note, stacklevel=2)
    return AdapterReport(len(placed), placed, _count(model), notes)


def _freeze_pretrained(model: MultiModalModel) -> None:
    pretrained = model.from_checkpoints()
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) not in pretrained)


def _targets(
    encoder: TextEncoder, name: str, encoders: Mapping[str, TextEncoder], optim: OptimConfig, method: Method
) -> tuple[list[Target], list[str]]:
    """Layers of one encoder that get adapters. Of several encoders one may be without, which is noted."""
    if method.adapter is None:
        return [], []
    try:
        return find_targets(encoder, optim.lora, optim.top_layers), []
    except TargetError as error:
        if all(_has_no_targets(other, optim) for key, other in encoders.items() if key != name):
            raise
        return [], [f"No adapter finds a place in {name}: {error}"]


def _has_no_targets(encoder: TextEncoder, optim: OptimConfig) -> bool:
    try:
        return not find_targets(encoder, optim.lora, optim.top_layers)
    except TargetError:
        return True


def merge_adapters(model: nn.Module) -> None:
    """Folds every adapter into a plain linear layer, in place; outputs stay the same up to rounding."""
    plain: dict[Adapter, nn.Linear] = {}
    with torch.no_grad():
        for module in list(model.modules()):
            for name, child in module.named_children():
                if isinstance(child, Adapter):
                    plain[child] = plain.get(child) or child.merged()
                    setattr(module, name, plain[child])


def no_decay(model: MultiModalModel) -> set[str]:
    """Names, in `model`, of the parameters weight decay must not touch.

    Biases and relative position tables, norms, and what an adapter says starts away from zero (IA3's factors, DoRA's
    magnitudes), which decay would pull towards zero rather than towards the pretrained model.
    """
    tables = {id(parameter) for encoder in model.pretrained().values() for parameter in _bias_tables(encoder)}
    names = set(norm_parameters(model))
    for name, module in model.named_modules():
        own = module.no_decay if isinstance(module, Adapter) else ()
        for key, parameter in module.named_parameters(recurse=False):
            if key == "bias" or key in own or id(parameter) in tables:
                names.add(f"{name}.{key}" if name else key)
    return names


def _check_top(encoders: Mapping[str, TextEncoder], top: float | None) -> None:
    layers = {name: len(encoder.layers()) for name, encoder in encoders.items()}
    least = min(layers.values(), default=0)
    if isinstance(top, int) and layers and top > least:
        counted = " and ".join(f"{name} has {count}" for name, count in layers.items())
        raise TargetError(
            f"optim.top_layers={top}: there are not so many layers with weights of their own; {counted}. Allowed: 1 to {least}, a "
            "share of each encoder's such as 0.5, or null for all of them and what they are fed from."
        )


def _method_parameters(
    encoder: TextEncoder, peft: str, method: Method, top: float | None
) -> tuple[list[nn.Parameter], list[str]]:
    """Biases and norms that the method trains, and notes where there are none."""
    biases = [p for name, p in encoder.named_parameters() if name.rpartition(".")[2] == "bias"]
    biases = [*biases, *_bias_tables(encoder)] if method.biases else []
    norms = list(norm_parameters(encoder).values()) if method.norms else []
    wanted = "biases or norms" if method.norms else "biases"
    if top is not None:
        depth, least = depths(encoder), layers_on_top(encoder, top)
        biases, norms = ([p for p in found if depth[id(p)] <= least] for found in (biases, norms))
        wanted += f" in the topmost {least} layers (optim.top_layers)"
    if not method.biases or biases or norms:
        return [*biases, *norms], []
    if method.adapter is None:
        raise TargetError(
            f"optim.peft={peft!r} trains {wanted}, and this model has none. Choose one with adapters, such as 'ia3'."
        )
    return [], [f"optim.peft={peft!r} asks for {wanted}, but this model has none; it trains as {method.adapter!r}."]


def _inject(encoder: TextEncoder, targets: list[Target], adapter: str, config: LoraConfig, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    wrapped = {
        target.linear: ADAPTERS[adapter](target, config, generator).train(target.linear.training) for target in targets
    }
    # A layer that several modules share is replaced in all of them; the list keeps us out of the adapters themselves.
    for module in list(encoder.modules()):
        for name, child in module.named_children():
            if child in wrapped:
                setattr(module, name, wrapped[child])


def _final_norm(encoder: TextEncoder) -> list[nn.Parameter]:
    path = encoder.family.final_norm
    return [] if path is None else list(encoder.backbone.get_submodule(path).parameters())


def _new(encoder: TextEncoder) -> list[nn.Parameter]:
    """What the encoder has beside its backbone, which begins untrained, as the vector of rows without images does."""
    return [parameter for name, parameter in encoder.named_parameters() if not name.startswith("backbone.")]


def _bias_tables(encoder: TextEncoder) -> list[nn.Parameter]:
    """Embedding tables the family counts as biases, whether they stand in the encoder or in its layers."""
    modules = dict(encoder.backbone.named_modules())
    paths = [
        path for table in encoder.family.bias_tables for path in (table, *(f"{at}.{table}" for at in encoder.layers()))
    ]
    return [parameter for path in paths if path in modules for parameter in modules[path].parameters()]


def _extra_parameters(encoders: Mapping[str, TextEncoder], patterns: list[str]) -> dict[str, list[nn.Parameter]]:
    """What the patterns name in each encoder; each pattern has to name something in one of them."""
    named = {name: dict(encoder.backbone.named_parameters()) for name, encoder in encoders.items()}
    found: dict[str, list[nn.Parameter]] = {name: [] for name in encoders}
    for expression in compiled("optim.extra_trainable_params", patterns):
        matches = {
            encoder: [parameter for name, parameter in own.items() if expression.match(name)]
            for encoder, own in named.items()
        }
        if not any(matches.values()):
            every = [name for own in named.values() for name in own]
            raise TargetError(
                f"optim.extra_trainable_params: {expression.pattern!r} matches no parameter."
                f"{did_you_mean(expression.pattern, every)} Names look like {next(iter(every), 'none at all')!r}; start an "
                "expression with '.*' to match anywhere."
            )
        for encoder, some in matches.items():
            _refuse_codes(expression.pattern, some, {id(p): name for name, p in named[encoder].items()})
            found[encoder] += some
    return found


def _refuse_codes(pattern: str, parameters: list[nn.Parameter], names: dict[int, str]) -> None:
    """Codes of a low `base_precision` are no numbers to be trained."""
    codes = [names[id(parameter)] for parameter in parameters if not parameter.is_floating_point()]
    if codes:
        raise TargetError(
            f"optim.extra_trainable_params: {pattern!r} names {len(codes)} matrices, such as {codes[0]!r}, which "
            "model.hf_text.base_precision keeps in a form that cannot train. Name other parameters, or set "
            "model.hf_text.base_precision to 'auto'."
        )


def _unused_settings(optim: OptimConfig, method: Method) -> list[str]:
    default = LoraConfig()
    return [
        f"optim.lora.{key} has no effect with optim.peft={optim.peft!r}."
        for key, value in vars(optim.lora).items()
        if key not in method.settings and value != getattr(default, key)
    ]


def _refuse_most(encoder: TextEncoder, peft: str) -> None:
    training = {name: p.numel() for name, p in encoder.backbone.named_parameters() if p.requires_grad}
    total = sum(parameter.numel() for parameter in encoder.parameters()) + extra_numbers(encoder)[0]
    trainable = sum(training.values())
    if trainable <= MOST_TRAINABLE * total:
        return
    largest = sorted(training, key=training.__getitem__, reverse=True)[:3]
    raise TargetError(
        f"optim.peft={peft!r} would train {trainable:,} of the encoder's {total:,} parameters "
        f"({trainable / total:.0%}), more than half. The largest: "
        f"{', '.join(f'{name} ({training[name]:,})' for name in largest)}. Narrow optim.lora.filter or "
        "optim.extra_trainable_params, lower optim.lora.r, or set optim.peft to null to train everything."
    )


def _precision_note(encoder: TextEncoder, parameters: list[nn.Parameter]) -> list[str]:
    low = sorted({str(parameter.dtype) for parameter in parameters if parameter.dtype != torch.float32})
    if not low:
        return []
    return [f"The encoder is {', '.join(low)} and some of its own parameters train in float32: run it under autocast."]


def _to_float32(model: nn.Module) -> None:
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
