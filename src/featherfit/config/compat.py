"""AutoMM's settings that have another name here, or that this version does not offer, each with the reason. Data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

OLD_PREFIX, NEW_PREFIX = "optimization.", "optim."

RENAMED = {
    "optim.learning_rate": "optim.lr",
    "optim.efficient_finetune": "optim.peft",
    "optim.loss_function": "optim.loss_func",
    "env.num_workers_evaluation": "env.num_workers_inference",
    "env.eval_batch_size_ratio": "env.inference_batch_size_ratio",
    "data.label.numerical_label_preprocessing": "data.label.numerical_preprocessing",
    "model.categorical_mlp.drop_rate": "model.categorical_mlp.dropout",
    "model.numerical_mlp.drop_rate": "model.numerical_mlp.dropout",
    "model.numerical_mlp.d_token": "model.numerical_mlp.token_dim",
    "model.timm_image.max_img_num_per_col": "model.timm_image.max_image_num_per_column",
    "model.clip.max_img_num_per_col": "model.clip.max_image_num_per_column",
    "model.clip_image.max_img_num_per_col": "model.clip_image.max_image_num_per_column",
    "model.fusion_mlp.weight": "model.fusion_mlp.aux_loss_weight",
    "model.fusion_mlp.drop_rate": "model.fusion_mlp.dropout",
    "model.fusion_transformer.n_blocks": "model.fusion_transformer.num_blocks",
    "model.fusion_transformer.attention_n_heads": "model.fusion_transformer.attention_num_heads",
    "model.fusion_transformer.ffn_d_hidden": "model.fusion_transformer.ffn_hidden_size",
    "model.ft_transformer.attention_n_heads": "model.ft_transformer.attention_num_heads",
}
"""Old name -> name since AutoMM 1.3; `optimization.*` is `optim.*` besides."""

RESPELT: dict[str, dict[Any, Any]] = {
    "optim.peft": {"Ia3_lora_norm": "ia3_lora_norm"},
    "env.precision": {16: "16", 32: "32"},
    "optim.loss_func": {None: "auto", "BCEWithLogitsLoss": "bcewithlogitsloss"},
    "model.hf_text.max_text_len": {None: 0},
    "env.strategy": {"ddp_find_unused_parameters_true": "ddp", "ddp_find_unused_parameters_false": "ddp"},
}
"""Values AutoMM writes another way -> how they are written here."""

ANY_OTHER = object()

_SPAWNED = tuple(
    f"ddp_{start}{unused}"
    for start in ("spawn", "fork", "notebook")
    for unused in ("", "_find_unused_parameters_true", "_find_unused_parameters_false")
)
_DEEPSPEED = (
    "deepspeed",
    *(f"deepspeed_stage_{stage}" for stage in ("1", "2", "2_offload", "3", "3_offload", "3_offload_nvme")),
)

REFUSED_VALUES: dict[str, dict[Any, str]] = {
    "model.hf_text.low_cpu_mem_usage": {ANY_OTHER: "weights are always loaded without a second copy in memory"},
    "data.image.missing_value_strategy": {"skip": "it gives a row the image of another one"},
    "data.mixup.mode": {"pair": "each row has one partner, so batch and elem are all there is"},
    "optim.peft": {"conv_lora": "it works on the feature maps of image models"},
    "optim.optim_type": {"adafactor": "it scales each step by the size of the parameter, so optim.lr would mean less"},
    "optim.lr_schedule": {"multi_step": "AutoMM uses it for object detection only"},
    "optim.loss_func": {
        **dict.fromkeys(
            ("structure_loss", "balanced_bce", "mask2former_loss"), "segmentation of images is not offered"
        ),
        **dict.fromkeys(("contrastive_loss", "multi_negatives_softmax_loss"), "matching of pairs is not offered"),
    },
    "optim.focal_loss.reduction": {
        ANY_OTHER: "a step's loss is the weighted mean of its rows, however they are cut into forwards"
    },
    "env.strategy": {
        **dict.fromkeys(
            _SPAWNED, "processes are started by a launcher: torchrun --nproc_per_node 2 -m featherfit fit ..."
        ),
        **dict.fromkeys(_DEEPSPEED, "DeepSpeed was not tried; fsdp shards the same frozen weights"),
    },
}
"""Values of our own settings that AutoMM offers and this version does not."""


@dataclass(frozen=True)
class Refusal:
    """Why a setting of AutoMM's is not offered, and the values that ask for what is done anyway."""

    reason: str
    harmless: tuple[Any, ...] = ()


_NOT_TEXT = "there are no image or document models in this version"
_ONE_TABLE_ENCODER = "categories and numbers are read together, by model.ft_transformer"
_LAYER_NORM = "its norms are layer norms, which do not mix the rows of a batch"
_PLAIN_ATTENTION = "there are few columns, so attention is exact and has weights of its own"
_FUSES_VECTORS = "a fusion reads the vectors of the encoders, whatever they read"
_NO_CLIP = "model.timm_image takes CLIP and SigLIP checkpoints, of which it uses the image encoder"
_ONE_OF_THREE = "text is left alone, left out or swapped; other edits know the language"
_NO_TEMPLATES = "prompt templates are for AutoMM's t_few, which is not offered"
_NO_LEMDA = "LeMDA trains a second network against the fusion, and is not offered"
_NO_DEEPSPEED = "DeepSpeed was not tried; env.strategy=fsdp shards the same frozen weights"
_NO_COMPILE = "models are not compiled"
_NO_ALIGNMENT = "vectors of different encoders are joined as they are, and not drawn together"

REFUSED = {
    "model.hf_text.data_types": Refusal("the text encoder reads text columns", (["text"],)),
    "model.hf_text.tokenizer_name": Refusal("the tokenizer is the checkpoint's own", ("hf_auto",)),
    "model.hf_text.use_fast": Refusal("the fast tokenizer is used wherever there is one", (True,)),
    "model.hf_text.stochastic_chunk": Refusal("a long text keeps its beginning, in every epoch the same", (False,)),
    "model.hf_text.text_train_augment_types": Refusal(_ONE_OF_THREE, (None, [])),
    "model.categorical_mlp.*": Refusal(_ONE_TABLE_ENCODER),
    "model.numerical_mlp.*": Refusal(_ONE_TABLE_ENCODER),
    "model.ft_transformer.data_types": Refusal(
        "it reads categories, numbers, truth values and points in time", (["categorical", "numerical"],)
    ),
    "model.ft_transformer.embedding_arch": Refusal(
        "numbers have piecewise linear codes (arXiv 2203.05556), of model.ft_transformer.numerical_bins pieces"
    ),
    "model.ft_transformer.normalization": Refusal(_LAYER_NORM, ("layer_norm",)),
    "model.ft_transformer.merge": Refusal("columns are the tokens of one sequence", ("concat",)),
    "model.ft_transformer.requires_all_dtypes": Refusal("it is built for whatever columns there are", (False,)),
    "model.ft_transformer.additive_attention": Refusal(_PLAIN_ATTENTION, (False,)),
    "model.ft_transformer.share_qv_weights": Refusal(_PLAIN_ATTENTION, (False,)),
    "model.ft_transformer.checkpoint_name": Refusal("it is trained from random weights", (None,)),
    "model.fusion_mlp.data_types": Refusal(_FUSES_VECTORS, (None,)),
    "model.fusion_mlp.normalization": Refusal(_LAYER_NORM, ("layer_norm",)),
    "model.fusion_transformer.data_types": Refusal(_FUSES_VECTORS, (None,)),
    "model.fusion_transformer.normalization": Refusal(_LAYER_NORM, ("layer_norm",)),
    "model.fusion_transformer.adapt_in_features": Refusal(
        "all vectors are brought to model.fusion_transformer.hidden_size"
    ),
    "model.fusion_transformer.additive_attention": Refusal(_PLAIN_ATTENTION, (False,)),
    "model.fusion_transformer.share_qv_weights": Refusal(_PLAIN_ATTENTION, (False,)),
    "model.ner_text.*": Refusal("named entity recognition is not offered"),
    "model.document_transformer.*": Refusal(_NOT_TEXT),
    "model.t_few.*": Refusal("few-shot prompting is not offered; model.hf_text takes T5 encoders too"),
    "model.timm_image.data_types": Refusal("it reads image columns", (["image"],)),
    "model.timm_image.image_chan_num": Refusal("images have red, green and blue", (3,)),
    "model.mmdet_image.*": Refusal(_NOT_TEXT),
    "model.mmocr_text_detection.*": Refusal(_NOT_TEXT),
    "model.mmocr_text_recognition.*": Refusal(_NOT_TEXT),
    "model.clip.*": Refusal(_NO_CLIP),
    "model.clip_image.*": Refusal(_NO_CLIP),
    "model.fusion_ner.*": Refusal("named entity recognition is not offered"),
    "model.sam.*": Refusal(_NOT_TEXT),
    "model.meta_transformer.*": Refusal(_NOT_TEXT),
    "data.document.*": Refusal(_NOT_TEXT),
    "data.text.normalize_text": Refusal("text goes to the tokenizer as it stands", (False,)),
    "data.column_features_pooling_mode": Refusal("AutoMM uses it for few-shot classification, which is not offered"),
    "data.mixup.cutmix_minmax": Refusal("cutmix draws its share from data.mixup.cutmix_alpha", (None,)),
    "data.templates.turn_on": Refusal(_NO_TEMPLATES, (False,)),
    "data.templates.*": Refusal(_NO_TEMPLATES),
    "optim.track_grad_norm": Refusal("gradient norms are not recorded", (-1,)),
    "optim.log_every_n_steps": Refusal("progress is reported after every step", (1,)),
    "optim.lora.conv_lora_expert_num": Refusal("conv_lora works on the feature maps of image models"),
    "optim.mask2former_loss.*": Refusal("segmentation of images is not offered"),
    "optim.cross_modal_align": Refusal(_NO_ALIGNMENT, (None,)),
    "optim.cross_modal_align_weight": Refusal(_NO_ALIGNMENT, (0,)),
    "optim.automatic_optimization": Refusal("the training loop takes its own steps", (True,)),
    "optim.lemda.turn_on": Refusal(_NO_LEMDA, (False,)),
    "optim.lemda.*": Refusal(_NO_LEMDA),
    "env.num_nodes": Refusal("the launcher says how many machines there are: torchrun --nnodes", (1,)),
    "env.fast_dev_run": Refusal("for a quick trial there is optim.max_steps", (False,)),
    "env.auto_select_gpus": Refusal("the GPU is chosen for you; CUDA_VISIBLE_DEVICES narrows the choice", (True,)),
    "env.deepspeed_allgather_size": Refusal(_NO_DEEPSPEED),
    "env.deepspeed_allreduce_size": Refusal(_NO_DEEPSPEED),
    "env.compile.turn_on": Refusal(_NO_COMPILE, (False,)),
    "env.compile.*": Refusal(_NO_COMPILE),
    "distiller.*": Refusal("distillation is not offered"),
    "matcher.*": Refusal("matching of pairs is not offered"),
}
"""Settings of AutoMM's that are not ours; `block.*` stands for every key of the block that is not named itself."""


def current_name(key: str) -> str:
    """The name since AutoMM 1.3 of a key that may be older."""
    if key.startswith(OLD_PREFIX):
        key = NEW_PREFIX + key[len(OLD_PREFIX) :]
    return RENAMED.get(key, key)


def refusal_of(key: str) -> Refusal | None:
    """The refusal of a key, its own or its block's; None for a key AutoMM does not know or that is ours."""
    if key in REFUSED:
        return REFUSED[key]
    parts = key.split(".")
    blocks = (".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1))
    return next((REFUSED[f"{block}.*"] for block in blocks if f"{block}.*" in REFUSED), None)
