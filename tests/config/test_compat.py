"""Every setting AutoMM 1.6 has is ours, renamed, or refused by name with a reason."""

import warnings

import numpy as np
import pytest

from featherfit.config.compat import REFUSED, RENAMED, current_name, refusal_of
from featherfit.config.dotted import known_keys, parse_overrides
from featherfit.errors import ConfigError

_TOKENS = """checkpoint_name gradient_checkpointing data_types tokenizer_name max_text_len insert_sep low_cpu_mem_usage
    text_segment_num stochastic_chunk"""
_AUGMENT = "text_aug_detect_length text_trivial_aug_maxscale"
_IMAGE = "data_types train_transforms val_transforms image_norm image_size"
_FUSION = "adapt_in_features hidden_sizes activation normalization data_types"
_MLP = "hidden_size activation num_layers dropout normalization data_types"
_TRANSFORMER = """hidden_size num_blocks attention_num_heads attention_dropout residual_dropout ffn_dropout ffn_hidden_size
    ffn_activation head_activation normalization data_types additive_attention share_qv_weights"""

AUTOMM_KEYS = {
    "model": "names",
    "model.categorical_mlp": _MLP,
    "model.numerical_mlp": f"{_MLP} token_dim embedding_arch merge",
    "model.hf_text": f"{_TOKENS} {_AUGMENT} pooling_mode use_fast text_train_augment_types",
    "model.ner_text": f"{_TOKENS} special_tags",
    "model.document_transformer": f"{_TOKENS} {_AUGMENT} {_IMAGE} pooling_mode",
    "model.t_few": f"{_TOKENS} {_AUGMENT} length_norm unlikely_loss mc_loss text_train_augment_types",
    "model.timm_image": f"""{_IMAGE} checkpoint_name mix_choice image_chan_num use_learnable_image
        max_image_num_per_column""",
    "model.mmdet_image": """checkpoint_name config_file data_types max_img_num_per_col output_bbox_format frozen_layers
        coco_root""",
    "model.mmocr_text_detection": f"{_IMAGE} checkpoint_name max_img_num_per_col",
    "model.mmocr_text_recognition": f"{_IMAGE} checkpoint_name max_img_num_per_col",
    "model.clip": f"""{_IMAGE} {_AUGMENT} checkpoint_name image_chan_num use_learnable_image max_image_num_per_column
        tokenizer_name max_text_len insert_sep text_segment_num stochastic_chunk text_train_augment_types""",
    "model.fusion_mlp": f"{_FUSION} aux_loss_weight dropout",
    "model.fusion_ner": f"{_FUSION} weight drop_rate",
    "model.fusion_transformer": f"{_TRANSFORMER} aux_loss_weight adapt_in_features",
    "model.ft_transformer": f"""{_TRANSFORMER} embedding_arch token_dim merge requires_all_dtypes pooling_mode
        checkpoint_name""",
    "model.sam": """checkpoint_name image_norm data_types train_transforms val_transforms img_transforms gt_transforms
        max_img_num_per_col frozen_layers num_mask_tokens ignore_label""",
    "model.meta_transformer": f"""{_IMAGE} {_AUGMENT} checkpoint_path model_version requires_all_dtypes image_chan_num
        use_learnable_image max_image_num_per_column tokenizer_name max_text_len insert_sep text_segment_num
        stochastic_chunk text_train_augment_types merge""",
    "data": "pos_label column_features_pooling_mode modality_dropout",
    "data.image": "missing_value_strategy",
    "data.text": "normalize_text",
    "data.categorical": "minimum_cat_count maximum_num_cat convert_to_text convert_to_text_template",
    "data.numerical": "convert_to_text scaler_with_mean scaler_with_std",
    "data.document": "missing_value_strategy",
    "data.label": "numerical_preprocessing",
    "data.mixup": """turn_on mixup_alpha cutmix_alpha cutmix_minmax prob switch_prob mode turn_off_epoch
        label_smoothing""",
    "data.templates": "turn_on num_templates template_length preset_templates custom_templates",
    "optim": """optim_type lr weight_decay lr_choice lr_decay lr_schedule max_epochs max_steps warmup_steps end_lr lr_mult
        patience val_check_interval check_val_every_n_epoch skip_final_val gradient_clip_val gradient_clip_algorithm
        track_grad_norm log_every_n_steps label_smoothing top_k top_k_average_method peft loss_func
        extra_trainable_params cross_modal_align cross_modal_align_weight automatic_optimization""",
    "optim.lora": "module_filter filter r alpha conv_lora_expert_num",
    "optim.focal_loss": "alpha gamma reduction",
    "optim.mask2former_loss": "loss_cross_entropy_weight loss_mask_weight loss_dice_weight",
    "optim.lemda": """turn_on arch_type z_dim num_layers kld_weight mse_weight adv_weight consist_weight
        consist_threshold lr optim_type weight_decay""",
    "env": """num_gpus num_nodes batch_size per_gpu_batch_size inference_batch_size_ratio precision num_workers
        num_workers_inference accelerator fast_dev_run deterministic auto_select_gpus strategy
        deepspeed_allgather_size deepspeed_allreduce_size""",
    "env.compile": "turn_on mode dynamic backend",
    "distiller": """soft_label_loss_type softmax_regression_loss_type output_feature_loss_type temperature
        hard_label_weight soft_label_weight softmax_regression_weight output_feature_loss_weight
        rkd_distance_loss_weight rkd_angle_loss_weight matches""",
    "matcher": "matches",
    "matcher.loss": "type pos_margin neg_margin",
    "matcher.distance": "type",
    "matcher.miner": "type pos_margin neg_margin",
}
KEYS = sorted({f"{block}.{name}" for block, names in AUTOMM_KEYS.items() for name in names.split()})


def refused(overrides):
    with pytest.raises(ConfigError) as caught:
        parse_overrides(overrides)
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize("key", KEYS)
def test_every_automm_key_is_ours_or_refused_with_a_reason(key):
    refusal = refusal_of(key)
    assert (key in known_keys()) != (refusal is not None)
    if refusal is not None:
        problem = refused({key: "something"})
        assert problem.startswith(f"{key}='something' is not in this version: {refusal.reason}. Leave it out")


def test_every_refusal_is_of_a_key_automm_has():
    old_model = {"model.clip_image.*"}
    automm = set(KEYS) | {f"{block}.*" for block in AUTOMM_KEYS}
    assert set(REFUSED) - automm == old_model


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_key_is_renamed_or_refused_in_the_users_words(old, new):
    assert len(RENAMED) == 18
    assert old not in known_keys()
    if new in known_keys():
        default = {"optim.lr": 0.5}.get(new, known_keys()[new].default)
        with pytest.warns(UserWarning) as caught:
            assert parse_overrides({old: default}) == {new: default}
        assert [str(one.message) for one in caught] == [f"{old} is an old name; it is read as {new}."]
    else:
        assert refused({old: 1}).startswith(f"{old}=1 is not in this version: ")


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("optimization.lr", "optim.lr"),
        ("optimization.learning_rate", "optim.lr"),
        ("optimization.lora.r", "optim.lora.r"),
        ("optim.lr", "optim.lr"),
        ("optimizationX.lr", "optimizationX.lr"),
    ],
)
def test_the_old_block_counts_too(key, name):
    assert current_name(key) == name


def test_an_old_block_with_an_old_key_warns_once_and_names_the_new_key():
    with pytest.warns(UserWarning) as caught:
        assert parse_overrides({"optimization": {"learning_rate": 0.1}}) == {"optim.lr": 0.1}
    assert [str(one.message) for one in caught] == [
        "optimization.learning_rate is an old name; it is read as optim.lr."
    ]


HARMLESS = [(key, value) for key, refusal in REFUSED.items() for value in refusal.harmless]


@pytest.mark.parametrize(("key", "value"), HARMLESS)
def test_a_foreign_key_may_ask_for_what_is_done_anyway(key, value):
    written = "null" if value is None else str(value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parse_overrides({key: value}) == {}
        assert parse_overrides([f"{key}={written}"]) == {}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.hf_text.stochastic_chunk", False),
        ("model.hf_text.text_train_augment_types", None),
        ("model.hf_text.tokenizer_name", "hf_auto"),
        ("model.hf_text.use_fast", True),
        ("optim.automatic_optimization", np.bool_(True)),
        ("data.templates.turn_on", False),
        ("data.text.normalize_text", False),
        ("optim.lemda.turn_on", False),
        ("optim.track_grad_norm", -1),
        ("env.auto_select_gpus", True),
        ("env.compile.turn_on", False),
        ("env.fast_dev_run", False),
        ("env.num_nodes", 1),
    ],
)
def test_the_usual_values_are_among_them(key, value):
    assert parse_overrides({key: value}) == {}


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (
            {"env.num_nodes": 2},
            (
                "env.num_nodes=2 is not in this version: the launcher says how many machines there are: torchrun --nnodes. "
                "Leave it out, or give 1, which is what happens anyway."
            ),
        ),
        (
            {"env.num_nodes": True},
            (
                "env.num_nodes=True is not in this version: the launcher says how many machines there are: torchrun --nnodes. "
                "Leave it out, or give 1, which is what happens anyway."
            ),
        ),
        (
            ["data.templates.turn_on=True"],
            (
                "data.templates.turn_on='True' is not in this version: prompt templates are for AutoMM's t_few, which is not "
                "offered. Leave it out, or give false, which is what happens anyway."
            ),
        ),
        (
            {"data": {"templates": {"turn_on": np.array([0, 0])}}},
            (
                "data.templates.turn_on=array([0, 0]) is not in this version: prompt templates are for AutoMM's t_few, which "
                "is not offered. Leave it out, or give false, which is what happens anyway."
            ),
        ),
        (
            {"data.templates": {"custom_templates": {1: "x"}}},
            (
                "data.templates.custom_templates={1: 'x'} is not in this version: prompt templates are for AutoMM's t_few, "
                "which is not offered. Leave it out."
            ),
        ),
        (
            ["data.templates.preset_templates=[a"],
            (
                "data.templates.preset_templates='[a' is not in this version: prompt templates are for AutoMM's t_few, "
                "which is not offered. Leave it out."
            ),
        ),
        (
            {"optim.lora.conv_lora_expert_num": 8},
            (
                "optim.lora.conv_lora_expert_num=8 is not in this version: conv_lora works on the feature maps of image models. "
                "Leave it out."
            ),
        ),
    ],
)
def test_another_value_is_refused_with_the_reason(overrides, problem):
    assert refused(overrides) == problem


@pytest.mark.parametrize(
    ("key", "value", "reason", "allowed"),
    [
        (
            "model.hf_text.low_cpu_mem_usage",
            False,
            "weights are always loaded without a second copy in memory",
            "true",
        ),
        ("data.image.missing_value_strategy", "skip", "it gives a row the image of another one", "zero"),
        (
            "data.mixup.mode",
            "pair",
            "each row has one partner, so batch and elem are all there is",
            "one of batch, elem",
        ),
        (
            "optim.lr_schedule",
            "multi_step",
            "AutoMM uses it for object detection only",
            "one of cosine_decay, linear_decay, polynomial_decay, constant",
        ),
        (
            "optim.optim_type",
            "adafactor",
            "it scales each step by the size of the parameter, so optim.lr would mean less",
            "one of adamw, adam, sgd",
        ),
        (
            "optim.loss_func",
            "structure_loss",
            "segmentation of images is not offered",
            "one of auto, cross_entropy, focal_loss, bcewithlogitsloss, mse, mae, huber, pinball",
        ),
        (
            "optim.focal_loss.reduction",
            "sum",
            "a step's loss is the weighted mean of its rows, however they are cut into forwards",
            "mean",
        ),
        (
            "env.strategy",
            "ddp_spawn_find_unused_parameters_true",
            "processes are started by a launcher: torchrun --nproc_per_node 2 -m featherfit fit ...",
            "one of auto, ddp, fsdp",
        ),
        (
            "env.strategy",
            "deepspeed_stage_3_offload",
            "DeepSpeed was not tried; fsdp shards the same frozen weights",
            "one of auto, ddp, fsdp",
        ),
    ],
)
def test_a_value_only_automm_offers_is_refused_with_the_reason(key, value, reason, allowed):
    assert refused({key: value}) == f"{key}={value!r} is not in this version: {reason}. Allowed: {allowed}."


def test_conv_lora_is_refused_with_the_reason():
    problem = refused("optim.peft=conv_lora")
    assert problem.startswith(
        "optim.peft='conv_lora' is not in this version: it works on the feature maps of image models."
    )


def test_automms_spelling_of_ia3_lora_norm_is_read_with_a_warning():
    with pytest.warns(UserWarning) as caught:
        assert parse_overrides({"optim.peft": "Ia3_lora_norm"}) == {"optim.peft": "ia3_lora_norm"}
    assert [str(one.message) for one in caught] == ["optim.peft='Ia3_lora_norm' is read as 'ia3_lora_norm'."]


@pytest.mark.parametrize(("given", "read"), [(None, "auto"), ("BCEWithLogitsLoss", "bcewithlogitsloss")])
def test_automms_spelling_of_losses_is_read_with_a_warning(given, read):
    with pytest.warns(UserWarning, match=f"optim.loss_func={given!r} is read as '{read}'"):
        assert parse_overrides({"optim.loss_func": given}) == {"optim.loss_func": read}


@pytest.mark.parametrize("written", ["[0.25, 1]", "0.25,1", ["0.25", 1], (0.25, 1.0)])
def test_a_list_of_numbers(written):
    given = {"optim.focal_loss.alpha": written}
    if isinstance(written, str):
        given = [f"optim.focal_loss.alpha={written}"]
    assert parse_overrides(given) == {"optim.focal_loss.alpha": [0.25, 1.0]}


@pytest.mark.parametrize("wrong", [[], [0.0, 1.0], [-1], ["x"], [True], [None], [float("inf")], 0.25, "balanced"])
def test_no_list_of_numbers(wrong):
    assert refused({"optim.focal_loss.alpha": wrong}).startswith("optim.focal_loss.alpha=")
