"""The settings of columns that are not text: how they are read, encoded, and joined with the rest."""

from __future__ import annotations

from dataclasses import dataclass

from featherfit.config.options import option

_ACTIVATIONS = ("relu", "gelu", "leaky_relu")
_GATED = ("geglu", "reglu", "gelu", "relu", "leaky_relu")


@dataclass(frozen=True, kw_only=True)
class FtTransformerConfig:
    """`model.ft_transformer`: the encoder of categories, numbers, truth values and points in time."""

    token_dim: int = option(64, "Width of the vector that stands for a column.", low=1, high=4096)
    hidden_size: int | None = option(
        None,
        "Width of the layers; null for token_dim.",
        low=1,
        high=4096,
        allowed="a whole number of at least 1, or null",
    )
    num_blocks: int = option(2, "Number of layers.", low=1, high=64)
    attention_num_heads: int = option(8, "Heads of attention; they divide the width of the layers.", low=1, high=64)
    attention_dropout: float = option(0.2, "Dropout of attention weights while training.", low=0, high=0.99)
    residual_dropout: float = option(0.0, "Dropout of what a layer adds while training.", low=0, high=0.99)
    ffn_dropout: float = option(0.1, "Dropout between the two products of a feed-forward unit.", low=0, high=0.99)
    ffn_hidden_size: int = option(128, "Width inside a feed-forward unit.", low=1, high=16_384)
    ffn_activation: str = option("reglu", "Activation there; geglu and reglu are gated.", choices=_GATED)
    head_activation: str = option("relu", "Activation of what the encoder gives.", choices=_ACTIVATIONS)
    pooling_mode: str = option(
        "cls", "What stands for a row: a token of its own, or the mean of its columns.", choices=("cls", "mean")
    )
    numerical_bins: int = option(
        16,
        "Most pieces of the piecewise linear code of a number, between quantiles of the training rows.",
        low=1,
        high=1024,
    )


@dataclass(frozen=True, kw_only=True)
class FusionMlpConfig:
    """`model.fusion_mlp`: encoders' vectors, one after another, through a perceptron."""

    hidden_sizes: list[int] = option([128], "Widths of its layers.", allowed="a list of whole numbers of at least 1")
    adapt_in_features: str | None = option(
        "max", "Width all vectors are brought to first: that of the largest, of the smallest, or null for as they are.",
        choices=("max", "min", None),
    )  # fmt: skip
    activation: str = option("leaky_relu", "Activation of its layers.", choices=_ACTIVATIONS)
    dropout: float = option(0.1, "Dropout after each layer while training.", low=0, high=0.99)
    aux_loss_weight: float | None = option(
        None, "Weight of the loss of a head that each encoder gets for itself; null for none.", low=0,
        allowed="a number of at least 0, or null",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FusionTransformerConfig:
    """`model.fusion_transformer`: encoders' vectors as the tokens of a small transformer."""

    hidden_size: int = option(192, "Width of its layers.", low=1, high=16_384)
    num_blocks: int = option(3, "Number of layers.", low=1, high=64)
    attention_num_heads: int = option(8, "Heads of attention; they divide hidden_size.", low=1, high=64)
    attention_dropout: float = option(0.2, "Dropout of attention weights while training.", low=0, high=0.99)
    residual_dropout: float = option(0.0, "Dropout of what a layer adds while training.", low=0, high=0.99)
    ffn_dropout: float = option(0.1, "Dropout between the two products of a feed-forward unit.", low=0, high=0.99)
    ffn_hidden_size: int = option(192, "Width inside a feed-forward unit.", low=1, high=65_536)
    ffn_activation: str = option("geglu", "Activation there; geglu and reglu are gated.", choices=_GATED)
    head_activation: str = option("relu", "Activation of what the fusion gives.", choices=_ACTIVATIONS)
    aux_loss_weight: float | None = option(
        None, "Weight of the loss of a head that each encoder gets for itself; null for none.", low=0,
        allowed="a number of at least 0, or null",
    )  # fmt: skip


TEMPLATES = ("direct", "list", "text", "latex")
"""How a value is written as text: `red`, `color: red`, `color is red`, `red & `."""


@dataclass(frozen=True, kw_only=True)
class CategoricalConfig:
    """`data.categorical`: categories and truth values."""

    minimum_cat_count: int = option(
        2, "Training rows a category needs to be told from other rare ones, which share one vector.", low=1
    )
    maximum_num_cat: int = option(200, "Most categories of a column; the others count as rare.", low=1)
    convert_to_text: bool = option(False, "Give categories to the text encoder as words instead.")
    convert_to_text_template: str = option("latex", "How a category is written then, as in AutoMM.", choices=TEMPLATES)


@dataclass(frozen=True, kw_only=True)
class NumericalConfig:
    """`data.numerical`: numbers."""

    transform: str = option(
        "quantile",
        "What is done to a column of numbers: quantile to a normal distribution, robust to skewed ones and outliers; "
        "standard by mean and standard deviation.",
        choices=("quantile", "standard"),
    )
    scaler_with_mean: bool = option(True, "With transform=standard, subtract the mean.")
    scaler_with_std: bool = option(True, "With transform=standard, divide by the standard deviation.")
    convert_to_text: bool = option(False, "Give numbers to the text encoder as they are written instead.")
