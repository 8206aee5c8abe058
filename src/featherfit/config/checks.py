"""A value for a setting goes in; the value in the setting's own type comes out, or a `ConfigError` in one line."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from featherfit.config.compat import ANY_OTHER, REFUSED_VALUES
from featherfit.config.keys import KeyInfo
from featherfit.config.schema import ENCODERS, FUSIONS, NAMED_TARGETS
from featherfit.config.text import read_bytes, read_value
from featherfit.errors import ConfigError, did_you_mean

LONGEST_SHOWN = 80
LARGEST = 1 << 64
"""Bound of whole numbers: labels may be of 64 bits, and nothing here is larger."""
_SMALLEST_BUDGET = 10**6


def checked(info: KeyInfo, name: str, value: Any, *, written: bool) -> Any:
    """`value` as the setting `info` wants it.

    Args:
        info: The setting.
        name: How the caller calls it, for messages.
        value: What was given. Scalars of numpy count as Python's, whole floats as ints, ints as floats;
            true and false are no numbers.
        written: Whether it comes from `key=value` text. Text for a setting that is not text is read in any case.

    Raises:
        ConfigError: Wrong type, not among the choices, out of range, or otherwise not usable.
    """
    typed = _typed(info, name, plain(value), written)
    allowed_here = info.choices is None or typed in info.choices
    if not allowed_here or not _in_range(info, typed):
        refuse(info, name, value)
    complaint = _CHECKS[info.key](typed) if info.key in _CHECKS else None
    if complaint is not None:
        raise ConfigError(f"{name}={shown(value)}: {complaint}")
    return typed


def refuse(info: KeyInfo, name: str, value: Any) -> NoReturn:
    """Says what is allowed instead of `value`, and why not this one if AutoMM offers it.

    Raises:
        ConfigError: Always.
    """
    reasons = REFUSED_VALUES.get(info.key, {})
    known = isinstance(value, str) and value in reasons
    reason = reasons[value] if known else reasons.get(ANY_OTHER)
    if reason is not None:
        raise ConfigError(f"{name}={shown(value)} is not in this version: {reason}. Allowed: {info.allowed()}.")
    words = [choice for choice in info.choices or () if isinstance(choice, str) and choice]
    hint = did_you_mean(value.lower(), words) if isinstance(value, str) else ""
    raise ConfigError(f"{name}={shown(value)}: give {info.allowed()}.{hint}")


def shown(value: Any) -> str:
    """`repr`, cut where it is long."""
    try:
        text = repr(plain(value))
    except ValueError:  # Python writes no numbers of more digits
        return f"{type(value).__name__} of thousands of digits"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def contradictions(flat: Mapping[str, Any]) -> list[str]:
    """What is wrong with settings that are each right on their own; one line each."""
    problems = []
    accelerator, gpus = flat.get("env.accelerator"), flat.get("env.num_gpus")
    if (accelerator == "gpu" and gpus == 0) or (accelerator == "cpu" and gpus is not None and gpus > 0):
        problems.append(f"env.accelerator={accelerator!r} contradicts env.num_gpus={gpus}. Drop one of them.")
    for block in ("model.hf_text", "model.timm_image"):
        problems += _of_encoder(flat, block)
    if (
        flat.get("data.mixup.turn_on")
        and flat.get("data.mixup.mixup_alpha") == flat.get("data.mixup.cutmix_alpha") == 0
    ):
        problems.append("data.mixup.turn_on=True, but mixup_alpha and cutmix_alpha are both 0. Set one above 0.")
    if flat.get("optim.validation_average", "macro") != "macro" and flat.get("optim.validation_by") is None:
        problems.append(
            f"optim.validation_average={flat['optim.validation_average']!r} averages slices, and optim.validation_by does not "
            "say by which column. Set it too, such as to 'language'."
        )
    if flat.get("optim.peft", "") is None and flat.get("optim.top_layers") is not None:
        problems.append(
            f"optim.top_layers={flat['optim.top_layers']} says where a parameter-efficient method trains, and with optim.peft=null "
            "everything does. Give optim.peft one, such as 'lora', or leave top_layers out."
        )
    if flat.get("optim.peft", "") is None and flat.get("optim.prefix_cache") == "on":
        problems.append(
            "optim.prefix_cache='on' keeps what frozen layers make of the rows, and with optim.peft=null none are frozen. Give "
            "optim.peft a parameter-efficient method, or leave prefix_cache out."
        )
    names = flat.get("model.names", ["hf_text"])
    for kind in ("categorical", "numerical"):
        if flat.get(f"data.{kind}.convert_to_text") and "hf_text" not in names:
            problems.append(
                f"data.{kind}.convert_to_text=True gives columns to the text encoder, and model.names={names!r} has none. Add "
                "hf_text, or leave convert_to_text out."
            )
    return problems


def _of_encoder(flat: Mapping[str, Any], block: str) -> list[str]:
    """The same of a pretrained encoder's block."""
    problems = []
    if flat.get(f"{block}.activation_offload") and not flat.get(f"{block}.gradient_checkpointing"):
        problems.append(
            f"{block}.activation_offload=True moves what gradient checkpointing keeps, and "
            f"{block}.gradient_checkpointing is False. Set both to True, or neither."
        )
    kept = flat.get(f"{block}.base_precision", "auto")
    if kept not in ("auto", "float32") and flat.get("optim.peft", "") is None:
        problems.append(
            f"{block}.base_precision={kept!r} is for frozen weights, and with optim.peft=null all of them train. Give "
            "optim.peft a parameter-efficient method, such as 'ia3_bias', or leave base_precision out."
        )
    return problems


def plain(value: Any) -> Any:
    """A numpy scalar as Python's; everything else as it is."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def _typed(info: KeyInfo, name: str, value: Any, written: bool) -> Any:
    if isinstance(value, str) and (written or not info.free_text):
        try:
            typed = read_value(value, info.kinds, free_text=info.free_text)
        except ValueError:
            refuse(info, name, value)
    else:
        typed = value
    try:
        return _as_kind(info.kinds, typed, info.items)
    except (TypeError, ValueError, OverflowError):
        refuse(info, name, value)


def _as_kind(kinds: tuple[type, ...], value: Any, items: type = str) -> Any:
    """`value` as the first of the kinds that takes it without loss."""
    if value is None and type(None) in kinds:
        return None
    if isinstance(value, bool):
        return _only_if(bool in kinds, value)
    if isinstance(value, int):
        return _only_if(abs(value) < LARGEST, int(value)) if int in kinds else _only_if(float in kinds, _finite(value))
    if isinstance(value, float):
        whole = int in kinds and value.is_integer() and abs(value) < LARGEST
        return _finite(value) if float in kinds else int(_only_if(whole, value))
    if isinstance(value, str):
        return _only_if(str in kinds, str(value))
    if isinstance(value, (list, tuple)):
        return [_as_item(items, item) for item in _only_if(list in kinds, value)]
    return _as_weights(_only_if(dict in kinds and isinstance(value, Mapping), value))


def _as_item(kind: type, item: Any) -> Any:
    """An item of a list as its kind; numbers may be written as text."""
    if kind is str or not isinstance(item, str):
        return _as_kind((kind,), plain(item))
    return _as_kind((kind,), read_value(item, (kind,), free_text=False))


def _as_weights(value: Mapping[Any, Any]) -> dict[str, float]:
    """A mapping from label to number; labels become text, as JSON has no other keys."""
    weights = {}
    for label, weight in value.items():
        label, number = plain(label), plain(weight)
        _only_if(isinstance(label, (str, int, float)) and str(label) not in weights, label)
        weights[str(label)] = _finite(
            _only_if(isinstance(number, (int, float)) and not isinstance(number, bool), number)
        )
    return weights


def _only_if(condition: bool, value: Any) -> Any:
    if not condition:
        raise TypeError(value)
    return value


def _finite(value: float) -> float:
    number: float = _only_if(math.isfinite(value), float(value))
    return number


def _in_range(info: KeyInfo, value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return True
    return (
        (info.low is None or value >= info.low)
        and (info.high is None or value <= info.high)
        and (info.above is None or value > info.above)
    )


def _check_names(names: list[str]) -> str | None:
    allowed = (*ENCODERS, *FUSIONS)
    others = [name for name in names if name not in allowed]
    if others:
        prefixed = [name for name in others if name.startswith(tuple(f"{known}_" for known in ENCODERS))]
        if prefixed:
            return f"{prefixed[0]} is a second encoder of its kind, and each is offered once. Allowed: {', '.join(allowed)}."
        hint = did_you_mean(others[0].lower(), allowed)
        return f"this version has no {', '.join(others)}.{hint} Allowed: {', '.join(allowed)}."
    if len(set(names)) < len(names) or not set(names) & set(ENCODERS):
        return f"give each name once, and at least one encoder: {', '.join(ENCODERS)}."
    if len(set(names) & set(FUSIONS)) > 1:
        return f"give one way to join encoders, not several: {', '.join(FUSIONS)}."
    return None


def _check_sizes(sizes: list[int]) -> str | None:
    if not sizes or any(
        isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= 65_536 for size in sizes
    ):
        return "give a list of whole numbers from 1 to 65536, such as [128]."
    return None


def _check_checkpoint(name: str) -> str | None:
    return None if name.strip() else "give a local folder, a name `featherfit checkpoints` lists, or a hub name."


def _check_filter(value: str | list[str]) -> str | None:
    if isinstance(value, list):
        return _check_patterns(value)
    if value in NAMED_TARGETS:
        return None
    hint = did_you_mean(value.lower(), NAMED_TARGETS)
    return f"give one of {', '.join(NAMED_TARGETS)}, or a list of regular expressions such as [{value!r}].{hint}"


def _check_patterns(patterns: list[str] | None) -> str | None:
    if patterns == []:
        return "the list is empty; give at least one regular expression, or leave the setting out."
    return _check_regexes(patterns or [])


def _check_regexes(patterns: list[str]) -> str | None:
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            return f"{pattern!r} is not a regular expression ({error})."
    return None


def _check_warmup(value: float) -> str | None:
    return _check_share(value, "all", "steps")


def _check_top_layers(value: float | None) -> str | None:
    return None if value is None else _check_share(value, "the", "layers")


def _check_share(value: float, article: str, things: str) -> str | None:
    """Of a setting that counts things where it is whole, and else is a share of them."""
    if isinstance(value, int) or value <= 1:
        return None
    count = f" Write {value:g} without a decimal point for {value:g} {things}." if value.is_integer() else ""
    return f"a share of {article} {things} is at most 1.0.{count}"


def _check_interval(value: float) -> str | None:
    return None if value <= 1 or value.is_integer() else "above 1 it counts steps and has to be a whole number."


def _check_max_steps(value: int) -> str | None:
    return "give a whole number of at least 1, or -1 for no limit." if value == 0 else None


def _check_class_weights(value: str | dict[str, float] | None) -> str | None:
    if isinstance(value, str):
        return (
            None if value == "balanced" else f"give balanced, or a mapping.{did_you_mean(value.lower(), ['balanced'])}"
        )
    wrong = [f"{label!r}: {weight:g}" for label, weight in (value or {}).items() if weight <= 0]
    return f"every weight has to be above 0, not {', '.join(wrong)}." if wrong else None


def _check_alpha(value: list[float] | None) -> str | None:
    wrong = [f"{number:g}" for number in value or [] if number <= 0]
    if value == [] or wrong:
        return "give a list of numbers above 0, one for each class, in the order of the classes."
    return None


def _check_budget(value: int | str | None) -> str | None:
    if value is None:
        return None
    try:
        wanted = read_bytes(value)
    except ValueError:
        return "give an amount of memory, such as 16GB, 800MB or 800000000 (bytes), or null for none."
    if wanted < _SMALLEST_BUDGET:
        return f"that is {wanted:,} bytes, and no fit runs in less than a megabyte. Write the unit, as in 16GB."
    return None


def _check_rows(value: int | str) -> str | None:
    return None if isinstance(value, int) or value == "auto" else "give a whole number of at least 1, or auto."


def _check_state_interval(value: float | str) -> str | None:
    return None if not isinstance(value, str) or value == "auto" else "give a number of seconds of at least 0, or auto."


_SIZING = ("resize_to_square", "resize_shorter_side", "center_crop")
_RANDOM = ("random_resize_crop", "random_horizontal_flip", "random_vertical_flip", "trivial_augment")
_TUNED = ("color_jitter", "affine", "randaug")


def _check_words(words: list[str] | None, allowed: tuple[str, ...]) -> str | None:
    """Words of AutoMM's transforms."""
    for word in words or ():
        name = word.partition("(")[0]
        if word in allowed:
            continue
        if name in _TUNED:
            return f"{name} is not in this version: trivial_augment shifts, shears, turns and colours, without numbers to tune."
        if name in allowed:
            return f"{name} has no numbers to tune; leave out what stands behind it."
        if name in _RANDOM:
            return f"{name} is random, so it is for model.timm_image.train_transforms."
        return f"{word!r} is unknown.{did_you_mean(word, allowed)} Allowed: {', '.join(allowed)}."
    return "give null for none, or at least one word." if words == [] else None


def _check_train_words(words: list[str] | None) -> str | None:
    return _check_words(words, (*_SIZING, *_RANDOM))


def _check_val_words(words: list[str] | None) -> str | None:
    return _check_words(words, _SIZING)


_CHECKS: dict[str, Callable[[Any], str | None]] = {
    "model.timm_image.checkpoint_name": _check_checkpoint,
    "model.timm_image.train_transforms": _check_train_words,
    "model.timm_image.val_transforms": _check_val_words,
    "model.names": _check_names,
    "model.fusion_mlp.hidden_sizes": _check_sizes,
    "model.hf_text.checkpoint_name": _check_checkpoint,
    "optim.lora.filter": _check_filter,
    "optim.lora.module_filter": _check_patterns,
    "optim.extra_trainable_params": _check_regexes,
    "optim.top_layers": _check_top_layers,
    "optim.warmup_steps": _check_warmup,
    "optim.val_check_interval": _check_interval,
    "optim.max_steps": _check_max_steps,
    "optim.class_weights": _check_class_weights,
    "optim.focal_loss.alpha": _check_alpha,
    "env.memory_budget": _check_budget,
    "env.batch_size": _check_rows,
    "env.per_gpu_batch_size": _check_rows,
    "env.state_interval": _check_state_interval,
}
