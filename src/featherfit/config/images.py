"""The settings of images: `model.timm_image`, `data.image` and `data.mixup`."""

from __future__ import annotations

from dataclasses import dataclass

from featherfit.config.options import (
    activation_offload_option,
    base_precision_option,
    dropout_option,
    gradient_checkpointing_option,
    option,
)


@dataclass(frozen=True, kw_only=True)
class TimmImageConfig:
    """`model.timm_image`: the pretrained image encoder, of transformers or of timm."""

    checkpoint_name: str = option(
        "facebook/dinov2-small",
        "Pretrained weights: a local folder, or a name `featherfit checkpoints` lists, or a hub name.",
    )
    pooling_mode: str = option(
        "auto",
        "How a model's output becomes one vector: by its own pooler, the first token, or the mean; auto follows the family.",
        choices=("auto", "pooler", "cls", "mean"),
    )
    image_size: int | None = option(
        None,
        "Pixels of a side that the model is given; null for what the checkpoint says.",
        low=14,
        high=4096,
        allowed="a whole number from 14 to 4096, or null",
    )
    image_norm: str | None = option(
        None,
        "Mean and deviation of the colours: those of the checkpoint (null), or AutoMM's imagenet, inception and clip.",
        choices=("imagenet", "inception", "clip", None),
    )
    train_transforms: list[str] | None = option(
        None,
        "What is done to images in training, in this order; null for the same as at prediction.",
        allowed="a list of AutoMM's words, or null",
    )
    val_transforms: list[str] | None = option(
        None,
        "What is done to images at prediction, in this order; null for the checkpoint's own resizing.",
        allowed="a list of AutoMM's words, or null",
    )
    max_image_num_per_column: int = option(1, "Images of a cell that are read, at most.", low=1, high=1000)
    mix_choice: str = option(
        "all_logits",
        "What is averaged where a row has several images: the vectors of all (all_logits), or their pixels (all_images).",
        choices=("all_logits", "all_images"),
    )
    use_learnable_image: bool = option(False, "Learn the vector of rows without images; otherwise it is zeros.")
    base_precision: str = base_precision_option()
    gradient_checkpointing: bool = gradient_checkpointing_option()
    activation_offload: bool = activation_offload_option()
    dropout: str = dropout_option()


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """`data.image`: cells of image columns."""

    missing_value_strategy: str = option(
        "zero",
        "What stands for a row without images: no image, and a vector of zeros (or a learned one).",
        choices=("zero",),
    )


@dataclass(frozen=True, kw_only=True)
class MixupConfig:
    """`data.mixup`: mixup and cutmix of the rows of a forward, in training."""

    turn_on: bool = option(False, "Mix rows in pairs, their labels in the same shares.")
    mixup_alpha: float = option(0.8, "Both parameters of mixup's beta distribution; 0 for no mixup.", low=0, high=1000)
    cutmix_alpha: float = option(
        1.0, "Both parameters of cutmix's beta distribution; 0 for no cutmix.", low=0, high=1000
    )
    prob: float = option(1.0, "Probability that a forward's rows are mixed.", low=0, high=1)
    switch_prob: float = option(0.5, "Probability of cutmix, where both are on.", low=0, high=1)
    mode: str = option(
        "batch", "Shares: one for all rows of a forward, or each row its own.", choices=("batch", "elem")
    )
    turn_off_epoch: int = option(5, "Epochs after which rows are no longer mixed.", low=0)
    label_smoothing: float = option(0.1, "Label smoothing of the rows that are mixed.", low=0, high=0.99)
