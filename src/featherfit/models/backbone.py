"""A checkpoint on disk, or its config, goes in; the backbone, a Hugging Face model, comes out.

Only the encoder is ever built: T5 families through their encoder-only class, BERT-like ones without a pooler, of models for
images and text the part that sees.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from featherfit.checkpoints.families import family_of
from featherfit.checkpoints.layout import TIMM, weight_files
from featherfit.checkpoints.vision import vision_family_of
from featherfit.errors import CheckpointError, ConfigError
from featherfit.models.generic import KNOWN_IMAGE_TYPES, KNOWN_TYPES
from featherfit.models.linear import keeps_copies
from featherfit.models.mapped import release_pages
from featherfit.models.pointwise import with_linears
from featherfit.models.quantized import BaseForm, keep_linears
from featherfit.models.tables import give_rows_in
from featherfit.models.timm_backbone import load_timm, timm_model
from featherfit.startup import collection_paused, scipy_when_called

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from featherfit.checkpoints.resolve import Checkpoint

READ_AT_ONCE = 1 << 26
"""Bytes of a file that lie in memory while they are converted."""

_OURS = ("attn_implementation", "_attn_implementation", "experts_implementation")
"""Choices that a checkpoint has no say in: they may name kernels on the hub, which would be fetched and run."""

_KINDS = {False: "text", True: "image"}

_STORED_TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@collection_paused()
def build_backbone(
    checkpoint: Checkpoint,
    *,
    dtype: torch.dtype = torch.float32,
    attn: str | None = None,
    mapped: bool = False,
    form: BaseForm | None = None,
    images: bool = False,
) -> PreTrainedModel:
    """The pretrained encoder in evaluation mode, read from disk only.

    Safetensors are mapped into memory, not read: what is kept in the file's own type takes no memory of the process but
    for the pages that were touched, and what is converted is converted one tensor at a time.

    Args:
        checkpoint: The pretrained weights.
        dtype: Type of the matrices of linear layers, and in which embedding tables give their rows, so that the states
            between the layers have it. Biases, norms and tables of at most `LARGE_TABLE` numbers, all that trains in
            parameter-efficient methods, are float32 whatever it is. So anything but float32 has to run under autocast, or
            with linear layers that convert what they are given (`FrozenLinear`).
        attn: Attention implementation of `transformers`, or None for its choice.
        mapped: Leave large embedding tables in the file, frozen and in its type, and convert the rows that are asked for
            (`MappedEmbedding`); and the matrices of linear layers, where `lower_precision` will not need them converted.
            The same numbers, a fraction of the memory. False converts them to `dtype`. Files that are not safetensors
            cannot be mapped and are read.
        form: How the matrices of linear layers are kept, where that is not simply in `dtype`; they cannot train then.
        images: The image encoder, not the text encoder, is wanted.

    Raises:
        CheckpointError: The folder cannot be read, holds no such encoder, or lacks weights the encoder has.
        ConfigError: A `form`, and no linear layer to keep so.
    """
    if dtype == torch.float32 and not mapped and form is None:
        return _loaded(checkpoint, torch.float32, attn, images)
    stored = stored_dtype(checkpoint.folder)
    model = _loaded(checkpoint, stored or torch.float32, attn, images)
    if any(buffer.is_floating_point() and buffer.dtype != torch.float32 for buffer in model.buffers()):
        model = _loaded(checkpoint, torch.float32, attn, images)  # constants were computed in the type of the file
    convert(model, dtype, mapped=mapped, form=form)
    return model


def _beyond_float16(model: PreTrainedModel) -> set[str]:
    """Paths of the layers whose outputs are too large for float16."""
    family = family_of(model.config.model_type)
    if family is None:
        return set()
    layers = [f"{family.layers}.{name}" for name, _ in model.get_submodule(family.layers).named_children()]
    return {f"{layer}.{name}" for layer in layers for name in family.beyond_float16}


def _loaded(checkpoint: Checkpoint, dtype: torch.dtype, attn: str | None, images: bool) -> PreTrainedModel:
    """The encoder with all weights in one type; those that have it in the file stay there."""
    folder = checkpoint.folder
    if images and checkpoint.model_type == TIMM:
        return with_linears(load_timm(checkpoint.config, folder))  # type: ignore[return-value]
    with _quiet_transformers(), _as_checkpoint_error(f"Cannot load the {_KINDS[images]} model in {folder}"):
        config = _read_config(checkpoint.config, images=images)
        model_class = _model_class(config, images=images)
        model, found = model_class.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            dtype=dtype,
            output_loading_info=True,
            **_attention(attn),
            **_without_pooler(model_class, config),
        )
    missing = sorted(name for name in found["missing_keys"] if not _is_dispensable(name, images))
    if missing:
        shown = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
        raise CheckpointError(
            f"The weights in {folder} lack {len(missing)} tensors that {model_class.__name__} needs: {shown}. They would be "
            "random. Check that the folder holds the whole checkpoint and that config.json belongs to it."
        )
    return (with_linears(model) if images else model).eval()


def stored_dtype(folder: Path) -> torch.dtype | None:
    """The type of all floating-point tensors of a checkpoint; None if there are several or they cannot be mapped."""
    from safetensors import safe_open

    files = [folder / name for name in weight_files(folder)]
    if not all(file.suffix == ".safetensors" for file in files):
        return None
    found = set()
    with _as_checkpoint_error(f"Cannot load the text model in {folder}"):
        for file in files:
            with safe_open(file, framework="pt") as tensors:
                found |= {tensors.get_slice(name).get_dtype() for name in tensors.keys()}
    types = {_STORED_TYPES[name] for name in found if name in _STORED_TYPES}
    return types.pop() if len(types) == 1 else None


def convert(model: PreTrainedModel, dtype: torch.dtype, *, mapped: bool, form: BaseForm | None) -> None:
    """Matrices of linear layers to `form` or `dtype`, everything else but embedding tables to float32, in place.

    Args:
        model: As it was read; on the meta device only types and shapes change.
        dtype: As for `build_backbone`, like the others.

    Raises:
        ConfigError: A `form`, and no linear layer to keep so.
    """
    if form is not None and keep_linears(model, form, _beyond_float16(model)) == 0:
        raise ConfigError(
            f"model.hf_text.base_precision={form.precision!r} is for linear layers, and {type(model).__name__} has none "
            "of torch's own. Set it to 'auto'."
        )
    from transformers.pytorch_utils import Conv1D

    converted: list[torch.Tensor] = []
    stay = mapped and dtype == torch.bfloat16 and keeps_copies(model)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not isinstance(module, nn.Embedding) and parameter.is_floating_point():  # codes are not
                matrix = isinstance(module, nn.Linear | Conv1D) and name == "weight"
                if stay and type(module) is nn.Linear and matrix:
                    continue  # `lower_precision` makes copies of it when it is used
                stored, parameter.data = parameter.data, parameter.data.to(dtype if matrix else torch.float32)
                converted += [stored] if matrix and parameter.dtype != stored.dtype else []
        if sum(stored.nbytes for stored in converted) > READ_AT_ONCE:
            release_pages(converted)
            converted.clear()
    release_pages(converted)
    give_rows_in(model, dtype, mapped=mapped)


def build_backbone_from_config(
    config: dict[str, Any],
    *,
    dtype: torch.dtype = torch.float32,
    attn: str | None = None,
    device: str | torch.device = "cpu",
    images: bool = False,
) -> PreTrainedModel:
    """The architecture alone: random weights drawn from torch's global generator, or none on the `meta` device.

    Args:
        config: Contents of a `config.json`; left as it is.
        dtype: Type of the weights.
        attn: Attention implementation of `transformers`, or None for its choice.
        device: Where to build; `meta` allocates nothing.
        images: The image encoder, not the text encoder, is wanted.

    Raises:
        CheckpointError: The config describes no such encoder.
    """
    if images and config.get("model_type") == TIMM:
        with torch.device(device):
            return with_linears(timm_model(config)).to(dtype).eval()  # type: ignore[return-value]
    with _quiet_transformers(), _as_checkpoint_error(f"Cannot build the {_KINDS[images]} model of this config"):
        parsed = _read_config(config, images=images)
        model_class = _model_class(parsed, images=images)
        without = _without_pooler(model_class, parsed)
        with torch.device(device):
            model = model_class._from_config(parsed, dtype=dtype, **_attention(attn), **without)
            model = with_linears(model) if images else model
    return model.eval()


def _read_config(config: dict[str, Any], *, images: bool) -> Any:
    """What transformers makes of a `config.json`; of a model for images and text, the part for images."""
    import transformers

    settings = copy.deepcopy(config)
    model_type = settings.pop("model_type", None)
    if model_type not in transformers.CONFIG_MAPPING:
        raise CheckpointError(
            f"The model's config.json says `model_type` {model_type!r}, which transformers {transformers.__version__} "
            f"does not know. Models that bring their own code are not run. {KNOWN_TYPES}"
        )
    for choice in _OURS:
        settings.pop(choice, None)
    parsed = transformers.AutoConfig.for_model(model_type, **settings)
    if hasattr(parsed, "use_cache"):
        parsed.use_cache = False  # a cache of keys and values is of use in generation only
    family = vision_family_of(model_type) if images else None
    return parsed if family is None or family.tower is None else getattr(parsed, family.tower, parsed)


def _model_class(config: Any, *, images: bool) -> Any:
    """The class to build: the family's encoder-only class, else what `AutoModel` would take."""
    import transformers

    if images:
        return _image_class(config)
    family = family_of(config.model_type)
    if family is not None and family.encoder_class is not None:
        with scipy_when_called():
            return getattr(transformers, family.encoder_class)
    if family is None and getattr(config, "is_encoder_decoder", False):
        raise CheckpointError(
            f"{config.model_type!r} is an encoder-decoder, and of those only t5, mt5 and umt5 are known. {KNOWN_TYPES}"
        )
    known = transformers.MODEL_MAPPING
    if type(config) not in known:
        raise CheckpointError(f"{config.model_type!r} is no text encoder. {KNOWN_TYPES}")
    with scipy_when_called():
        found = known[type(config)]
    return found[0] if isinstance(found, (tuple, list)) else found


def _image_class(config: Any) -> Any:
    import transformers

    if type(config) not in transformers.MODEL_MAPPING:
        raise CheckpointError(f"{config.model_type!r} is no image encoder. {KNOWN_IMAGE_TYPES}")
    known: Any = transformers.MODEL_MAPPING[type(config)]
    found = known[0] if isinstance(known, (tuple, list)) else known
    if found.main_input_name != "pixel_values":
        raise CheckpointError(f"{config.model_type!r} is no image encoder. {KNOWN_IMAGE_TYPES}")
    return found


def _without_pooler(model_class: Any, config: Any) -> dict[str, bool]:
    """Of text models, and of image models whose pooler is not read."""
    family = vision_family_of(config.model_type)
    takes_it = "add_pooling_layer" in inspect.signature(model_class.__init__).parameters
    reads_it = model_class.main_input_name == "pixel_values" and (family is None or family.pooler)
    return {"add_pooling_layer": False} if takes_it and not reads_it else {}


def _attention(attn: str | None) -> dict[str, str]:
    return {} if attn is None else {"attn_implementation": attn}


def _is_dispensable(name: str, images: bool) -> bool:
    """Weights whose absence changes no output: heads for prediction, tables of positions; poolers, where they are not read."""
    dispensable = {"position_ids", "mask_token"} if images else {"pooler", "position_ids", "lm_head", "cls"}
    return not dispensable.isdisjoint(name.split("."))


@contextlib.contextmanager
def _as_checkpoint_error(what: str) -> Iterator[None]:
    from safetensors import SafetensorError

    expected = (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError, ImportError, SafetensorError)
    try:
        yield
    except CheckpointError:
        raise
    except expected as error:
        raise CheckpointError(f"{what}: {error}") from error


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No load reports and no progress bars meanwhile; what we need of them is raised as errors."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
