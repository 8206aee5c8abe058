"""A preset and the user's overrides go in; the settings of the run come out, with what the user should be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from featherfit.config.checks import contradictions
from featherfit.config.dotted import Overrides, build_config, read_overrides, to_flat
from featherfit.config.presets import preset_overrides
from featherfit.config.schema import DEFAULT_LR, ENCODERS, FUSIONS, Config
from featherfit.errors import ConfigError

_BLOCKS = ("hf_text", "ft_transformer", "fusion_mlp", "fusion_transformer")
"""Blocks of `model` that are read only where `model.names` has them."""


@dataclass(frozen=True)
class Resolved:
    """The settings of a run.

    Attributes:
        config: All settings.
        notes: Plain sentences for the user.
        given: Dotted keys of the user's own overrides.
    """

    config: Config
    notes: list[str]
    given: frozenset[str]


def resolve_config(
    presets: str | None, hyperparameters: Overrides, *, has_gpu: bool, base: Config | None = None
) -> Resolved:
    """Defaults, then the preset, then the user's overrides; the later wins.

    Args:
        presets: Name of a preset, or None.
        hyperparameters: The user's overrides, in any form `parse_overrides` takes.
        has_gpu: Whether the machine has a GPU that can be used.
        base: Settings of the previous fit, to start from instead of the defaults.

    Raises:
        ConfigError: Any mistakes, all of them at once.
    """
    start = to_flat(base or Config())
    user = read_overrides(hyperparameters)
    problems = list(user.problems)
    preset: dict[str, Any] = {}
    notes: list[str] = []
    on_gpu = has_gpu and _gpu_wanted({**start, **user.values})
    try:
        preset, notes = preset_overrides(presets, has_gpu=on_gpu, own_method="optim.peft" in user.values)
    except ConfigError as error:
        problems = error.problems + problems
    flat = {**start, **preset, **user.values}
    problems += contradictions(flat)
    if problems:
        raise ConfigError(problems)

    config = build_config(flat)
    given = frozenset(user.values)
    if "optim.lr" in preset:
        origin = f"presets={presets!r}"
    else:
        origin = "the defaults" if base is None else "the previous fit"
    notes += _idle_notes(flat, given, on_gpu=on_gpu) + _low_rate_notes(config, given, origin)
    return Resolved(config, notes, given)


def _gpu_wanted(flat: Mapping[str, Any]) -> bool:
    return bool(flat["env.accelerator"] != "cpu" and flat["env.num_gpus"] != 0)


def _idle_notes(flat: Mapping[str, Any], given: frozenset[str], *, on_gpu: bool) -> list[str]:
    """A sentence for each setting that was given and has no effect with the others, or on this device."""
    notes = []
    names = flat["model.names"]
    if "model.names" in given and len(set(names) & set(ENCODERS)) == 1 and set(names) & set(FUSIONS):
        notes.append(f"model.names: {names[-1]} builds nothing, because there is only one encoder.")
    if "model.hf_text.activation_offload" in given and flat["model.hf_text.activation_offload"] and not on_gpu:
        notes.append("model.hf_text.activation_offload has no effect on a CPU: activations are in its memory anyway.")
    whole = flat["optim.peft"] is None
    needs = {
        "optim.lr_decay": ("optim.lr_choice", flat["optim.lr_choice"] == "layerwise_decay"),
        "optim.lr_mult": ("optim.lr_choice", flat["optim.lr_choice"] == "two_stages"),
        "optim.end_lr": ("optim.lr_schedule", flat["optim.lr_schedule"] != "constant"),
        "optim.extra_trainable_params": ("optim.peft", not whole),
        **{key: ("optim.peft", not whole) for key in flat if key.startswith("optim.lora.")},
        **{
            key: ("model.names", block in names)
            for key in flat
            for block in _BLOCKS
            if key.startswith(f"model.{block}.")
        },
        "data.numerical.scaler_with_mean": ("data.numerical.transform", flat["data.numerical.transform"] == "standard"),
        "data.numerical.scaler_with_std": ("data.numerical.transform", flat["data.numerical.transform"] == "standard"),
        "data.categorical.convert_to_text_template": (
            "data.categorical.convert_to_text",
            flat["data.categorical.convert_to_text"],
        ),
        "data.categorical.minimum_cat_count": (
            "data.categorical.convert_to_text",
            not flat["data.categorical.convert_to_text"],
        ),
        "data.categorical.maximum_num_cat": (
            "data.categorical.convert_to_text",
            not flat["data.categorical.convert_to_text"],
        ),
        "data.numerical.transform": ("data.numerical.convert_to_text", not flat["data.numerical.convert_to_text"]),
        **{
            key: ("optim.loss_func", flat["optim.loss_func"] == loss)
            for block, loss in (("optim.focal_loss.", "focal_loss"), ("optim.huber.", "huber"))
            for key in flat
            if key.startswith(block)
        },
    }
    for key, (other, effective) in needs.items():
        if key in given and not effective:
            value = "null" if flat[other] is None else repr(flat[other])
            notes.append(f"{key} has no effect with {other}={value}.")
    return notes


def _low_rate_notes(config: Config, given: frozenset[str], origin: str) -> list[str]:
    """AutoMM's usual rates are for full fine-tuning and hardly move an adapter."""
    peft, rate = config.optim.peft, config.optim.lr
    by_user = given & {"optim.lr", "optim.peft"}
    if len(by_user) != 1 or peft is None or rate is None or rate >= DEFAULT_LR[peft] / 3:
        return []
    usual = f"whose usual rate is {DEFAULT_LR[peft]:g}"
    if "optim.peft" in by_user:
        return [f"optim.lr={rate:g}, from {origin}, is low for optim.peft={peft!r}, {usual}. Give optim.lr too."]
    remedy = "Leave optim.lr out, or set optim.peft=null for AutoMM's full fine-tuning."
    return [f"optim.lr={rate:g} is low for optim.peft={peft!r}, which comes from {origin} and {usual}. {remedy}"]
