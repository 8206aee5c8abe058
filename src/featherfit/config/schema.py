"""Every setting, its type, range, default and meaning. Plain frozen dataclasses; checked when built.

A field is declared with `option(default, meaning, ...)`. Its dotted key is the path of attributes: the field `r` of
`LoraConfig` is `optim.lora.r`. Names follow AutoMM's where AutoMM has the setting.
"""

from __future__ import annotations

from dataclasses import dataclass

from featherfit.config.columns import (
    CategoricalConfig,
    FtTransformerConfig,
    FusionMlpConfig,
    FusionTransformerConfig,
    NumericalConfig,
)
from featherfit.config.images import ImageConfig, MixupConfig, TimmImageConfig
from featherfit.config.losses import LOSS_FUNCTIONS, FocalLossConfig, HuberConfig
from featherfit.config.options import (
    activation_offload_option,
    base_precision_option,
    dropout_option,
    gradient_checkpointing_option,
    option,
    section,
)

PEFT_METHODS = (
    "bit_fit",
    "norm_fit",
    "lora",
    "lora_bias",
    "lora_norm",
    "ia3",
    "ia3_bias",
    "ia3_norm",
    "ia3_lora",
    "ia3_lora_bias",
    "ia3_lora_norm",
    "dora",
    "rslora",
)

NAMED_TARGETS = ("automm", "attention", "all-linear", "paper")
"""The words `optim.lora.filter` may be, in place of regular expressions."""


@dataclass(frozen=True, kw_only=True)
class HfTextConfig:
    """`model.hf_text`: the pretrained text encoder."""

    checkpoint_name: str = option(
        "intfloat/multilingual-e5-small",
        "Pretrained weights: a local folder, or a name `featherfit checkpoints` lists, or a hub name.",
    )
    pooling_mode: str = option(
        "auto",
        "How token states become one vector: the first, the mean, or the last token; auto follows the family.",
        choices=("auto", "cls", "mean", "last"),
    )
    max_text_len: int = option(512, "Most tokens a row may have; 0 or less means the checkpoint's own limit.")
    insert_sep: bool = option(True, "Put the tokenizer's separator between text columns.")
    text_segment_num: int = option(
        2, "Number of segment ids text columns alternate between, where the model has segments.", low=1
    )
    base_precision: str = base_precision_option()
    gradient_checkpointing: bool = gradient_checkpointing_option()
    activation_offload: bool = activation_offload_option()
    dropout: str = dropout_option()
    low_cpu_mem_usage: bool = option(
        True, "Weights load memory-mapped, without a second copy. Always on.", choices=(True,)
    )
    text_trivial_aug_maxscale: float = option(
        0.0,
        "Largest share of a text's words, or characters where a script has no spaces, that is left out or swapped in an "
        "epoch of training; 0 for none.",
        low=0,
        high=1,
    )
    text_aug_detect_length: int = option(10, "Words that a text needs to be edited so, counted by script.", low=1)


ENCODERS = ("hf_text", "ft_transformer", "timm_image")
"""Encoders a model may have, by AutoMM's names."""

FUSIONS = ("fusion_mlp", "fusion_transformer", "fusion_logits")
"""What joins them."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """`model`: which encoders, and their settings."""

    names: list[str] = option(
        ["ft_transformer", "timm_image", "hf_text", "fusion_mlp"],
        "Encoders to build, and how they are joined; those that find no columns in the table are left out.",
        allowed=f"a list of {', '.join((*ENCODERS, *FUSIONS))}",
    )
    hf_text: HfTextConfig = section(HfTextConfig)
    timm_image: TimmImageConfig = section(TimmImageConfig)
    ft_transformer: FtTransformerConfig = section(FtTransformerConfig)
    fusion_mlp: FusionMlpConfig = section(FusionMlpConfig)
    fusion_transformer: FusionTransformerConfig = section(FusionTransformerConfig)


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """`data.label`: what is done to the label column."""

    numerical_preprocessing: str | None = option(
        "standardscaler", "Scaling of a regression target.", choices=("standardscaler", "minmaxscaler", None)
    )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """`data`: how the table is read."""

    label: LabelConfig = section(LabelConfig)
    image: ImageConfig = section(ImageConfig)
    mixup: MixupConfig = section(MixupConfig)
    categorical: CategoricalConfig = section(CategoricalConfig)
    numerical: NumericalConfig = section(NumericalConfig)
    modality_dropout: float = option(
        0.0, "Share of the rows, each time, for which an encoder's vector is left out while training.", low=0, high=0.99
    )
    pos_label: int | float | str | bool | None = option(
        None, "The positive class of a binary problem; default: the second in sorted order."
    )


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """`optim.lora`: where adapters go and how large they are, for every adapter method."""

    filter: str | list[str] = option(
        "automm",
        "Target modules: a named set (automm, attention, all-linear, paper), or regular expressions that `re.match` a "
        "linear layer's own name.",
        allowed="one of automm, attention, all-linear, paper, or a list of regular expressions",
    )
    module_filter: list[str] | None = option(None, "Regular expressions that `re.match` the parent module's full name.")
    r: int = option(8, "Rank of low-rank adapters.", low=1, high=65_536)
    alpha: float = option(8.0, "Scale of low-rank adapters: alpha / r (alpha / sqrt(r) for rslora).", above=0)
    dropout: float = option(0.0, "Dropout on the input of low-rank adapters.", low=0, high=0.99)


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """`optim`: what is trained, and how."""

    peft: str | None = option(
        "ia3_bias", "Parameter-efficient method, or null to train the whole encoder.", choices=(*PEFT_METHODS, None)
    )
    lora: LoraConfig = section(LoraConfig)
    top_layers: int | float | None = option(
        None,
        "Adapters, biases and norms train in so many layers, counted from the top, or in that share of each encoder's; null "
        "for all of them.",
        above=0,
        allowed="a whole number of layers of at least 1, a share of them above 0 and at most 1.0, or null",
    )
    prefix_cache: str = option(
        "auto",
        "Compute what the frozen layers beneath all that trains make of a row once and keep it; auto where that is quicker.",
        choices=("auto", "on", "off"),
    )
    extra_trainable_params: list[str] = option(
        [], "Regular expressions; encoder parameters whose full name they `re.match` train too."
    )
    optim_type: str = option("adamw", "Optimiser.", choices=("adamw", "adam", "sgd"))
    lr: float | None = option(
        None,
        "Learning rate; default: 3e-3 for ia3, bit_fit and norm_fit, 1e-3 for low-rank methods, 1e-4 without peft.",
        above=0,
    )
    lr_choice: str = option(
        "layerwise_decay",
        "How the rate varies over depth: times lr_decay per layer, head times lr_mult, or the same everywhere.",
        choices=("layerwise_decay", "two_stages", "single_stage", ""),
    )
    lr_decay: float = option(0.9, "Factor per layer from the top for layerwise_decay.", above=0, high=1)
    lr_mult: float = option(1.0, "Factor of the head's rate for two_stages.", above=0)
    lr_schedule: str = option(
        "cosine_decay",
        "Shape of the rate over steps, from lr to end_lr.",
        choices=("cosine_decay", "linear_decay", "polynomial_decay", "constant"),
    )
    end_lr: float = option(
        0.0, "Rate at the last step, for a parameter group whose rate is lr; others in proportion.", low=0
    )
    warmup_steps: int | float = option(
        0.1,
        "Warm-up: a whole number counts steps, a fraction is a share of all steps.",
        low=0,
        allowed="a whole number of steps from 0 up, or a share of all steps from 0.0 to 1.0",
    )
    max_epochs: int = option(20, "Most passes over the training rows.", low=1)
    max_steps: int = option(
        -1,
        "Most optimiser steps; -1 for no limit. Shortens the schedule too.",
        low=-1,
        allowed="a whole number of at least 1, or -1",
    )
    weight_decay: float = option(1e-3, "AdamW's decay; not applied to biases, norms and IA3 vectors.", low=0)
    gradient_clip_val: float = option(1.0, "Largest gradient norm (or value); 0 for no clipping.", low=0)
    gradient_clip_algorithm: str = option(
        "norm", "Clip the whole gradient's norm or each value.", choices=("norm", "value")
    )
    label_smoothing: float = option(0.0, "Probability mass spread over the other classes.", low=0, high=0.99)
    class_weights: str | dict[str, float] | None = option(
        None,
        "Weight of each class in the loss: null, `balanced` (inverse frequency), or a mapping from label to weight.",
        allowed="balanced, a mapping from label to a number above 0, or null",
    )
    loss_func: str = option(
        "auto",
        "What training makes small; auto: cross entropy, squared error, pinball loss (quantiles), or binary cross entropy of "
        "every label (several labels).",
        choices=LOSS_FUNCTIONS,
    )
    focal_loss: FocalLossConfig = section(FocalLossConfig)
    huber: HuberConfig = section(HuberConfig)
    head_init: str = option(
        "random",
        "How the head starts: random numbers, or a linear probe fitted to the training rows' embeddings (one more pass).",
        choices=("random", "probe"),
    )
    few_shot: str = option(
        "off",
        "For few labels: the encoder learns to tell the rows of classes apart, then the head is fitted to it; auto where a "
        "classifier has at most 64 training rows a class on average.",
        choices=("auto", "on", "off"),
    )
    few_shot_epochs: int = option(
        0, "Most passes of ordinary training after that, in place of max_epochs; 0 for none.", low=0
    )
    calibration: str | None = option(
        "transfer",
        "Temperature of a classifier's probabilities, fitted to the validation rows where that lowers their log-loss: "
        "holdout as suits these rows, transfer sharpens less, for rows of other languages; null for none.",
        choices=("transfer", "holdout", None),
    )
    ema_decay: float = option(
        0.0,
        "Decay per step of a running average of the trained weights, which is what is validated and kept; 0 for none.",
        low=0,
        high=0.9999,
    )
    validation_by: str | None = option(
        None,
        "Column of the validation rows by which they are scored slice by slice; auto: their language, as detected; null for "
        "one score of all rows.",
    )
    validation_average: str = option(
        "macro",
        "With validation_by, what is to be best: the mean of the slices' scores, or the worst of them.",
        choices=("macro", "worst"),
    )
    patience: int = option(10, "Validations without a better score before training stops.", low=1)
    val_check_interval: float = option(
        0.5,
        "Share of an epoch between validations; a whole number above 1 counts steps.",
        above=0,
        allowed="a share of an epoch above 0 and at most 1, or a whole number of steps above 1",
    )
    check_val_every_n_epoch: int = option(1, "Validate in every n-th epoch only.", low=1)
    skip_final_val: bool = option(False, "Do not validate again at the last step if it was not due.")
    top_k: int = option(3, "How many of the best states are kept while training.", low=1)
    top_k_average_method: str = option(
        "greedy_soup", "How they become the final one.", choices=("greedy_soup", "uniform_soup", "best")
    )


@dataclass(frozen=True, kw_only=True)
class EnvConfig:
    """`env`: the machine."""

    batch_size: int | str = option(
        "auto",
        "Rows per optimiser step; auto: an eighth of the training rows, but at least 32 and at most 128.",
        low=1,
        allowed="a whole number of at least 1, or auto",
    )
    per_gpu_batch_size: int | str = option(
        8,
        "Rows of the greatest length per forward; shorter ones share it, up to as many tokens (on a CPU at most 1,280, and "
        "160 a row beyond 8 rows). auto: as many as memory holds, or env.memory_budget.",
        low=1,
        allowed="a whole number of at least 1, or auto",
    )
    inference_batch_size_ratio: float = option(
        4.0, "Tokens per forward at prediction, as a multiple of those in training; at most 2,048 on a CPU.", above=0
    )
    precision: str = option(
        "auto",
        "Arithmetic of the matrix products: auto is bfloat16 where the hardware multiplies it natively, else float32.",
        choices=("auto", "32", "32-true", "bf16", "bf16-mixed", "16", "16-mixed"),
    )
    accelerator: str = option("auto", "Device: auto takes a GPU if there is one.", choices=("auto", "cpu", "gpu"))
    num_gpus: int = option(
        -1, "GPUs to use: -1 all that the launcher started processes for, 0 none, otherwise how many that is.", low=-1
    )
    strategy: str = option(
        "auto",
        "How several processes share the work: ddp keeps the whole model in each, fsdp a part of the frozen weights; auto "
        "is what the launcher says, else ddp.",
        choices=("auto", "ddp", "fsdp"),
    )
    rank_timeout: float = option(
        300.0, "Seconds for which a process waits for the others before it gives up on them.", above=0
    )
    num_workers: int = option(
        0, "Processes that assemble training batches; rows are tokenized once beforehand, so 0 is best.", low=0
    )
    num_workers_inference: int = option(0, "The same at prediction.", low=0)
    state_interval: int | float | str = option(
        "auto",
        "Seconds between the states that an interrupted fit is resumed from, 0 for one after every step; auto: a minute, or "
        "longer where writing one would take more than a hundredth of the time.",
        low=0,
        allowed="a number of seconds of at least 0, or auto",
    )
    deterministic: bool = option(False, "Use only deterministic algorithms.")
    memory_budget: int | str | None = option(
        None,
        "Most memory a fit may take, process and libraries included (on a GPU: its memory); forwards become smaller, and "
        "then activations are recomputed, until the forecast stays under it.",
        allowed="an amount of memory, such as 16GB, 800MB or a number of bytes, or null",
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of a run."""

    model: ModelConfig = section(ModelConfig)
    data: DataConfig = section(DataConfig)
    optim: OptimConfig = section(OptimConfig)
    env: EnvConfig = section(EnvConfig)

    def learning_rate(self) -> float:
        """`optim.lr`, or the default of the chosen method."""
        if self.optim.lr is not None:
            return self.optim.lr
        return DEFAULT_LR[self.optim.peft]

    def plans_memory(self) -> bool:
        """Whether a fit forecasts its memory first, to choose how much a forward takes."""
        return self.env.memory_budget is not None or self.env.per_gpu_batch_size == "auto"

    def rows_per_forward(self, *, training: bool) -> float:
        """Rows of full length in one forward, above 0; at `auto`, and before memory is planned, those of a step."""
        wanted = self.env.per_gpu_batch_size
        rows = wanted if isinstance(wanted, int) else self.rows_per_step(None)
        return rows * (1.0 if training else self.env.inference_batch_size_ratio)

    def rows_per_step(self, rows: int | None) -> int:
        """`env.batch_size`; where that is auto, what it means for so many training rows, or the most it may mean."""
        if isinstance(self.env.batch_size, int):
            return self.env.batch_size
        steps, least, most = AUTO_BATCH
        return most if rows is None else min(max(rows // steps, least), most)


AUTO_BATCH = (8, 32, 128)
"""Where `env.batch_size` is auto: steps of an epoch, least and most rows of one; the most is AutoMM's default."""

DEFAULT_LR: dict[str | None, float] = {
    None: 1e-4,
    **{name: 1e-3 for name in PEFT_METHODS},
    **{name: 3e-3 for name in ("ia3", "ia3_bias", "ia3_norm", "bit_fit", "norm_fit")},
}
