"""The name of a preset goes in; the settings it stands for come out, with what the user should be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from featherfit.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Preset:
    """A named choice of settings.

    Attributes:
        meaning: One sentence.
        overrides: Values by dotted key.
        method: More of them, which were chosen for each other: what trains, where, and how fast. They give way together
            where the user names an `optim.peft`.
        by_hardware: Names of the presets it stands for without and with a GPU.
        qualities: What changes in `method` where it is joined with one of `QUALITIES`.
    """

    meaning: str
    overrides: dict[str, Any] = field(default_factory=dict)
    method: dict[str, Any] = field(default_factory=dict)
    by_hardware: tuple[str, str] | None = None
    qualities: dict[str, dict[str, Any]] = field(default_factory=dict)


QUALITIES = ("medium_quality", "high_quality", "best_quality")

PRESETS: dict[str, Preset] = {
    "medium_quality": Preset(
        "A small English encoder, trained whole: fast.",
        {
            "model.hf_text.checkpoint_name": "google/electra-small-discriminator",
            "optim.peft": None,
            "optim.lr": 4e-4,
        },
    ),
    "high_quality": Preset(
        "A base-sized English encoder, trained whole; AutoMM's default.",
        {"model.hf_text.checkpoint_name": "google/electra-base-discriminator", "optim.peft": None},
    ),
    "best_quality": Preset(
        "A strong base-sized English encoder, trained whole, one row at a time: slow.",
        {
            "model.hf_text.checkpoint_name": "microsoft/deberta-v3-base",
            "optim.peft": None,
            "env.per_gpu_batch_size": 1,
        },
    ),
    "multilingual": Preset(
        "A multilingual encoder that suits the hardware.",
        by_hardware=("multilingual_e5_small", "multilingual_mdeberta"),
    ),
    "multilingual_e5_small": Preset(
        "A small multilingual encoder, quick on a CPU.",
        {
            "model.hf_text.checkpoint_name": "intfloat/multilingual-e5-small",
            "optim.top_k": 1,
            "optim.few_shot": "auto",
            "optim.ema_decay": 0.99,
        },
        # Transfers better than ia3_bias at the same cost: docs/recipes.md.
        method={
            "optim.peft": "lora",
            "optim.lr": 3e-3,
            "optim.end_lr": 3e-3,
            "optim.warmup_steps": 0,
            "env.batch_size": 32,
            "optim.top_layers": 0.5,
        },
        qualities={
            "medium_quality": {"optim.top_layers": 0.25},
            "best_quality": {
                "optim.top_layers": None,
                "optim.lora.filter": "all-linear",
                "optim.lr": 1e-3,
                "optim.end_lr": 1e-3,
            },
        },
    ),
    "multilingual_mdeberta": Preset(
        "A base-sized multilingual encoder; wants a GPU.",
        {
            "model.hf_text.checkpoint_name": "microsoft/mdeberta-v3-base",
            "optim.top_k": 1,
            "optim.few_shot": "auto",
            "env.precision": "32",
            "env.per_gpu_batch_size": 4,
        },
        qualities={
            "medium_quality": {"optim.top_layers": 0.25},
            "best_quality": {"optim.peft": "lora", "optim.lora.filter": "all-linear"},
        },
    ),
}

SAME_AS = {"default": "high_quality"}
"""Other names of presets, as in AutoMM."""


def preset_overrides(name: str | None, *, has_gpu: bool, own_method: bool = False) -> tuple[dict[str, Any], list[str]]:
    """The overrides of a preset, and notes for the user; nothing for None, which means the defaults.

    Args:
        name: Name of the preset, or of two of them with a plus: a multilingual one, and how much it may cost, such as
            `multilingual+best_quality`. Upper and lower case are the same.
        has_gpu: Whether training will use a GPU.
        own_method: Whether the user names an `optim.peft`.

    Raises:
        ConfigError: No such preset, two that do not go together, or one that searches for hyperparameters.
    """
    if name is None:
        return {}, []
    if not isinstance(name, str):
        raise ConfigError(f"presets={name!r}: give a name, one of {', '.join(PRESETS)}.")
    preset, quality = _read(name)
    if preset.by_hardware is None:
        return _values(preset, quality, own_method), []
    chosen, other = reversed(preset.by_hardware) if has_gpu else preset.by_hardware
    tail = "" if quality is None else f"+{quality}"
    note = (
        f"presets={name!r} means {chosen + tail!r} ({_checkpoint(chosen)}) here, because {'a' if has_gpu else 'no'} GPU is used; "
        f"otherwise it means {other + tail!r} ({_checkpoint(other)}). Give one of these two names to pin it."
    )
    return _values(PRESETS[chosen], quality, own_method), [note]


def _read(name: str) -> tuple[Preset, str | None]:
    """The preset that is named, and the quality it is joined with, if it is."""
    parts = [_known(part.strip(), name) for part in name.lower().split("+")]
    if len(parts) == 1:
        return PRESETS[parts[0]], None
    qualities = [part for part in parts if part in QUALITIES]
    others = [part for part in parts if part not in QUALITIES]
    if len(qualities) != 1 or len(others) != 1:
        raise ConfigError(
            f"presets={name!r}: a multilingual preset goes with one quality, such as 'multilingual+best_quality'. Qualities: "
            f"{', '.join(QUALITIES)}."
        )
    return PRESETS[others[0]], qualities[0]


def _known(plain: str, name: str) -> str:
    """The standard name of one preset, in lower case, out of what the user gave."""
    if plain == "hpo" or plain.endswith("_hpo"):
        single = plain.removesuffix("hpo").removesuffix("_")
        single = SAME_AS.get(single, single) or "high_quality"
        instead = f" presets={single!r} trains once, with fixed settings." if single in PRESETS else ""
        raise ConfigError(f"presets={name!r} is not in this version: hyperparameter search is not offered.{instead}")
    plain = SAME_AS.get(plain, plain)
    if plain not in PRESETS:
        raise ConfigError(f"Unknown presets={name!r}.{did_you_mean(plain, PRESETS)} Allowed: {', '.join(PRESETS)}.")
    return plain


def _values(preset: Preset, quality: str | None, own_method: bool) -> dict[str, Any]:
    if own_method:
        return dict(preset.overrides)
    return preset.overrides | preset.method | preset.qualities.get(quality or "", {})


def _checkpoint(name: str) -> str:
    return str(PRESETS[name].overrides["model.hf_text.checkpoint_name"])
