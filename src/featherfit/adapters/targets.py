"""An encoder and the filters under `optim.lora` go in; the linear layers that get adapters come out."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import TYPE_CHECKING

from torch import nn

from featherfit.adapters.base import Target
from featherfit.checkpoints.families import AUTOMM_FILTER, TARGET_SETS
from featherfit.errors import TargetError, did_you_mean

if TYPE_CHECKING:
    from featherfit.config.schema import LoraConfig
    from featherfit.models.text import TextEncoder


def find_targets(encoder: TextEncoder, config: LoraConfig, top: float | None = None) -> list[Target]:
    """The linear layers that `optim.lora.filter` and `optim.lora.module_filter` select, from the input up.

    A filter that is a word is a named set, looked up in the encoder's family. A filter that is a list follows AutoMM's
    rule: each regular expression is `re.match`ed with a layer's own name (`query` matches `query_proj`; `^q$` does not).
    The module filter is `re.match`ed with the full name, in the Hugging Face model, of the module that holds the layer.
    Whatever matches and is no linear layer is passed over.

    Args:
        encoder: Without adapters.
        config: `filter` and `module_filter` are read.
        top: `optim.top_layers`; what lies beneath is passed over.

    Raises:
        TargetError: Nothing matches, one of several expressions matches nothing, an expression is malformed, or the set
            is unknown. AutoMM's own default list names several families at once and may miss in part.
    """
    if isinstance(config.filter, str):
        targets = _named_set(encoder, config.filter)
    else:
        targets = _by_expression(encoder, list(config.filter))
    if config.module_filter is not None:
        targets = _within(encoder, targets, config.module_filter)
    return targets if top is None else _on_top(encoder, targets, layers_on_top(encoder, top))


def layers_on_top(encoder: TextEncoder, top: float) -> int:
    """How many layers of an encoder `optim.top_layers` means; a share is rounded up."""
    return max(1, math.ceil(round(top * len(encoder.layers()), 6))) if isinstance(top, float) else top


def depths(encoder: TextEncoder) -> dict[int, int]:
    """Depth of every parameter, as `layer_ids` counts, by its `id`."""
    ids = encoder.layer_ids()
    return {id(parameter): ids[name] for name, parameter in encoder.named_parameters()}


def compiled(key: str, patterns: list[str]) -> list[re.Pattern[str]]:
    """The patterns of the setting `key`, compiled.

    Raises:
        TargetError: One is not a regular expression.
    """
    done = []
    for pattern in patterns:
        try:
            done.append(re.compile(pattern))
        except re.error as error:
            raise TargetError(f"{key}: {pattern!r} is not a regular expression ({error}).") from error
    return done


def _named_set(encoder: TextEncoder, word: str) -> list[Target]:
    if word not in TARGET_SETS:
        raise TargetError(
            f"optim.lora.filter: unknown set {word!r}.{did_you_mean(word, TARGET_SETS)} Allowed: "
            f"{', '.join(TARGET_SETS)}, or a list of regular expressions such as [{word!r}]."
        )
    names = encoder.family.target_set(word)
    targets = []
    for layer_name, layer in encoder.layers().items():
        linears = {name: module for name, module in layer.named_modules() if isinstance(module, nn.Linear)}
        for name in linears if names is None else names:
            if name in linears:
                scales_input = word == "paper" and name == encoder.family.down
                targets.append(Target(f"{layer_name}.{name}", linears[name], scales_input))
    if not targets:
        raise TargetError(f"optim.lora.filter: the set {word!r} is empty for this model. {_candidates(encoder)}")
    return targets


def _by_expression(encoder: TextEncoder, patterns: list[str]) -> list[Target]:
    expressions = compiled("optim.lora.filter", patterns)
    linears = {name: module for name, module in encoder.backbone.named_modules() if isinstance(module, nn.Linear)}
    hits = {
        expression: [name for name in linears if expression.match(name.rpartition(".")[2])]
        for expression in expressions
    }
    idle = [expression.pattern for expression, names in hits.items() if not names]
    if len(idle) == len(hits) or (idle and tuple(patterns) != AUTOMM_FILTER):
        raise TargetError(
            f"optim.lora.filter: {', '.join(map(repr, idle)) or 'the empty list'} matches the own name of no linear "
            f"layer. {_candidates(encoder)}"
        )
    chosen = {name for names in hits.values() for name in names}
    return [Target(name, module) for name, module in linears.items() if name in chosen]


def _within(encoder: TextEncoder, targets: list[Target], patterns: list[str]) -> list[Target]:
    expressions = compiled("optim.lora.module_filter", patterns)
    parents = {target.name.rpartition(".")[0] for target in targets}
    idle = [expression.pattern for expression in expressions if not any(map(expression.match, parents))]
    if idle or not expressions:
        raise TargetError(
            f"optim.lora.module_filter: {', '.join(map(repr, idle)) or 'the empty list'} matches the full name of no "
            f"module that holds a target, such as {min(parents)!r}. {_candidates(encoder)}"
        )
    return [
        target
        for target in targets
        if any(expression.match(target.name.rpartition(".")[0]) for expression in expressions)
    ]


def _on_top(encoder: TextEncoder, targets: list[Target], top: int) -> list[Target]:
    depth = depths(encoder)
    chosen = [target for target in targets if depth[id(target.linear.weight)] <= top]
    if not chosen:
        raise TargetError(
            f"optim.top_layers={top}: the filters select nothing in the topmost {top} of {len(encoder.layers())} layers, only "
            f"{targets[-1].name!r} and the like. Raise optim.top_layers, or widen optim.lora.module_filter."
        )
    return chosen


def _candidates(encoder: TextEncoder) -> str:
    """A sentence that lists the names of linear layers, with how many there are, and the named sets."""
    counts = Counter(
        name.rpartition(".")[2] for name, module in encoder.backbone.named_modules() if isinstance(module, nn.Linear)
    )
    layers = ", ".join(f"{name} (x{count})" for name, count in counts.items()) or "none"
    known = [word for word in TARGET_SETS if encoder.family.target_set(word) != ()]
    return f"Linear layers by own name: {layers}. Named sets: {', '.join(known)}."
