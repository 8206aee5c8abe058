"""The value of `optim.peft` goes in; which adapter to place and what else trains comes out."""

from __future__ import annotations

from dataclasses import dataclass

# Imported for what they register.
from featherfit.adapters import dora, ia3, ia3_lora, lora, rslora  # noqa: F401

_RANK = ("filter", "module_filter", "r", "alpha", "dropout")
_PLACE = ("filter", "module_filter")


@dataclass(frozen=True)
class Method:
    """One value of `optim.peft`.

    Attributes:
        adapter: Name in `ADAPTERS` of the adapter, or None for a method that adds nothing.
        biases: Whether biases train.
        norms: Whether the parameters of norms train.
        settings: The settings under `optim.lora` that have an effect.
    """

    adapter: str | None
    biases: bool = False
    norms: bool = False
    settings: tuple[str, ...] = ()


METHODS: dict[str, Method] = {
    "bit_fit": Method(None, biases=True),
    "norm_fit": Method(None, biases=True, norms=True),
    "lora": Method("lora", settings=_RANK),
    "lora_bias": Method("lora", biases=True, settings=_RANK),
    "lora_norm": Method("lora", biases=True, norms=True, settings=_RANK),
    "ia3": Method("ia3", settings=_PLACE),
    "ia3_bias": Method("ia3", biases=True, settings=_PLACE),
    "ia3_norm": Method("ia3", biases=True, norms=True, settings=_PLACE),
    "ia3_lora": Method("ia3_lora", settings=_RANK),
    "ia3_lora_bias": Method("ia3_lora", biases=True, settings=_RANK),
    "ia3_lora_norm": Method("ia3_lora", biases=True, norms=True, settings=_RANK),
    "dora": Method("dora", settings=_RANK),
    "rslora": Method("rslora", settings=_RANK),
}
"""As in AutoMM, whatever trains norms trains biases too."""
