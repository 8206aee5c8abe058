"""A checkpoint's settings for images go in; what turns an image into numbers comes out. Needs no model.

The numbers are those of transformers' own image processor for Pillow. Its settings, as one JSON object, are all that has to be
kept to make it again.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featherfit.data.transforms import apply_words
from featherfit.errors import CheckpointError, ConfigError, MissingDependencyError

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST_SIDE = 4096
"""Pixels of a side that a model is given, at most."""

NORMS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
"""Mean and standard deviation of red, green and blue by AutoMM's `image_norm`."""


class Pixels:
    """Images to arrays.

    Attributes:
        settings: What the processor is made of, as JSON values.
        shape: Of every array, (3, H, W).
    """

    def __init__(self, settings: Mapping[str, Any]):
        """Makes the processor.

        Raises:
            CheckpointError: No image processor of transformers has these settings.
        """
        self.settings = dict(settings)
        self._processor = _made(self.settings)
        self.shape = self._shape()

    @classmethod
    def from_checkpoint(cls, folder: Path, *, image_size: int | None, image_norm: str | None) -> Pixels:
        """The processor of a checkpoint, changed as asked for.

        Args:
            folder: Has `preprocessor_config.json`, or a config of timm's.
            image_size: Pixels of a side, or None for the checkpoint's own.
            image_norm: One of `NORMS`, or None for the checkpoint's own.

        Raises:
            CheckpointError: There are no such settings, or none that can be used without torchvision.
            ConfigError: The size cannot be changed.
        """
        settings = _read(folder)
        if image_norm is not None:
            settings["do_normalize"] = True
            settings["image_mean"], settings["image_std"] = map(list, NORMS[image_norm])
        return cls(settings if image_size is None else _resized(settings, image_size))

    @property
    def side(self) -> int:
        """The shorter of H and W."""
        return min(self.shape[1:])

    def __call__(self, image: Image, words: Sequence[str], random: np.random.Generator | None) -> np.ndarray:
        """An image as numbers, (3, H, W) float32.

        Args:
            image: 8 bits of red, green and blue.
            words: What is done to it first, see `transforms`.
            random: What random words draw from.
        """
        image = apply_words(image, words, self.side, random)
        ready = bool(words) and image.size == self.shape[:0:-1]
        sized = {"do_resize": False, "do_center_crop": False} if ready else {}
        array = np.asarray(self._processor(image, return_tensors="np", **sized)["pixel_values"][0], dtype=np.float32)
        if array.shape != self.shape:
            raise ConfigError(
                f"An image of {image.width} x {image.height} pixels became an array of shape {array.shape}, others one of "
                f"{self.shape}: this checkpoint keeps proportions. Set model.timm_image.val_transforms to "
                "['resize_shorter_side', 'center_crop'], or to ['resize_to_square']."
            )
        return array

    def _shape(self) -> tuple[int, int, int]:
        from PIL import Image

        gray = Image.new("RGB", (64, 64), (128, 128, 128))
        height, width = self._processor(gray, return_tensors="np")["pixel_values"][0].shape[-2:]
        return 3, int(height), int(width)


def _read(folder: Path) -> dict[str, Any]:
    """The settings in a checkpoint folder, complete."""
    from featherfit.checkpoints.layout import CONFIG, IMAGE_PROCESSOR, PROCESSOR, is_timm, read_json

    if (folder / CONFIG).is_file() and is_timm(read_json(folder / CONFIG)):
        return _of_timm(read_json(folder / CONFIG))
    if not any((folder / name).is_file() for name in (IMAGE_PROCESSOR, PROCESSOR)):
        raise CheckpointError(f"{folder} has no {IMAGE_PROCESSOR}, so it is not known how its model wants images.")
    try:
        import transformers

        processor = transformers.AutoImageProcessor.from_pretrained(
            folder, backend="pil", local_files_only=True, trust_remote_code=False
        )
    except (ImportError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"The image processor in {folder} cannot be used without torchvision: {str(error).strip().splitlines()[0]}"
        ) from error
    return _as_json(processor.to_dict())


def _of_timm(config: Mapping[str, Any]) -> dict[str, Any]:
    """timm's `pretrained_cfg` in the words of transformers."""
    own = config.get("pretrained_cfg", {})
    side = int(own.get("input_size", (3, 224, 224))[-1])
    resample = {"bicubic": 3, "bilinear": 2, "nearest": 0}.get(own.get("interpolation", "bicubic"), 3)
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": int(side / float(own.get("crop_pct", 0.875)))},
        "resample": resample,
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(own.get("mean", NORMS["imagenet"][0])),
        "image_std": list(own.get("std", NORMS["imagenet"][1])),
    }


def _resized(settings: dict[str, Any], side: int) -> dict[str, Any]:
    """The same for images of `side` pixels, in the proportions the settings have."""
    settings = copy.deepcopy(settings)
    size, crop = settings.get("size") or {}, settings.get("crop_size") or {}
    if settings.get("do_center_crop") and crop.get("height"):
        factor = side / crop["height"]
        settings["crop_size"] = {"height": side, "width": side}
        settings["size"] = {name: max(side, round(value * factor)) for name, value in size.items()}
    elif set(size) == {"height", "width"}:
        settings["size"] = {"height": side, "width": side}
    elif set(size) == {"shortest_edge"}:
        settings["size"] = {"shortest_edge": side}
    else:
        raise ConfigError(
            f"model.timm_image.image_size={side}: this checkpoint has sizes of another kind ({size}). Leave it out."
        )
    return settings


def _made(settings: Mapping[str, Any]) -> Any:
    """The processor of these settings; only classes of transformers' own table are looked up."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise MissingDependencyError('Image columns need Pillow: pip install "featherfit[image]"') from None
    from transformers.models.auto import image_processing_auto as auto

    name = settings.get("image_processor_type")
    known = {pil for names in auto.IMAGE_PROCESSOR_MAPPING_NAMES.values() if isinstance(pil := names.get("pil"), str)}
    wanted = f"{name}Pil"
    if wanted not in known:
        raise CheckpointError(f"{name!r} is no image processor of transformers that works without torchvision.")
    sides = [
        value
        for key in ("size", "crop_size")
        for value in (settings.get(key) or {}).values()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    ]
    if any(not 0 < side <= LARGEST_SIDE for side in sides):
        raise CheckpointError(
            f"The image processor wants sides of {max(sides)} pixels; at most {LARGEST_SIDE} are given."
        )
    found = auto.get_image_processor_class_from_name(wanted)
    own = {key: value for key, value in settings.items() if key != "image_processor_type"}
    try:
        return found(**own)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{wanted} cannot be made of {own}: {error}.") from None


def _as_json(value: Any) -> Any:
    """Tuples as lists, keys as text."""
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    return [_as_json(item) for item in value] if isinstance(value, (list, tuple)) else value
