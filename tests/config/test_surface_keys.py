"""The public settings, frozen: a key that comes or goes has to come or go here too."""

import pytest

from featherfit.config.dotted import build_config, known_keys
from featherfit.config.schema import DEFAULT_LR, PEFT_METHODS, Config

KEYS = {
    "model": "names",
    "model.hf_text": """checkpoint_name pooling_mode max_text_len insert_sep text_segment_num gradient_checkpointing
        activation_offload base_precision dropout low_cpu_mem_usage text_trivial_aug_maxscale
        text_aug_detect_length""",
    "model.timm_image": """checkpoint_name pooling_mode image_size image_norm train_transforms val_transforms
        max_image_num_per_column mix_choice use_learnable_image base_precision gradient_checkpointing activation_offload
        dropout""",
    "data.image": "missing_value_strategy",
    "data.mixup": "turn_on mixup_alpha cutmix_alpha prob switch_prob mode turn_off_epoch label_smoothing",
    "data.label": "numerical_preprocessing",
    "model.ft_transformer": """token_dim hidden_size num_blocks attention_num_heads attention_dropout residual_dropout ffn_dropout
        ffn_hidden_size ffn_activation head_activation pooling_mode numerical_bins""",
    "model.fusion_mlp": "hidden_sizes adapt_in_features activation dropout aux_loss_weight",
    "model.fusion_transformer": """hidden_size num_blocks attention_num_heads attention_dropout residual_dropout ffn_dropout
        ffn_hidden_size ffn_activation head_activation aux_loss_weight""",
    "data": "pos_label modality_dropout",
    "data.categorical": "minimum_cat_count maximum_num_cat convert_to_text convert_to_text_template",
    "data.numerical": "transform scaler_with_mean scaler_with_std convert_to_text",
    "optim": """peft top_layers prefix_cache extra_trainable_params optim_type lr lr_choice lr_decay lr_mult lr_schedule end_lr warmup_steps
        max_epochs max_steps weight_decay gradient_clip_val gradient_clip_algorithm label_smoothing class_weights loss_func
        head_init few_shot few_shot_epochs calibration ema_decay validation_by validation_average patience val_check_interval check_val_every_n_epoch skip_final_val top_k top_k_average_method""",
    "optim.focal_loss": "alpha gamma reduction",
    "optim.huber": "delta",
    "optim.lora": "filter module_filter r alpha dropout",
    "env": """batch_size per_gpu_batch_size inference_batch_size_ratio precision accelerator num_gpus strategy rank_timeout
        num_workers num_workers_inference deterministic memory_budget state_interval""",
}

NEEDS = {"optim.validation_average": {"optim.validation_by": "language"}}
"""Settings that others have no effect without."""


def test_the_keys_are_exactly_these():
    assert set(known_keys()) == {f"{block}.{name}" for block, names in KEYS.items() for name in names.split()}


@pytest.mark.parametrize("info", known_keys().values(), ids=lambda info: info.key)
def test_every_setting_is_documented_and_typed(info):
    assert len(info.meaning) > 8
    assert info.meaning.endswith(".")
    assert set(info.kinds) <= {bool, int, float, str, list, dict, type(None)}
    assert type(info.default) in info.kinds
    assert info.allowed()


@pytest.mark.parametrize("info", known_keys().values(), ids=lambda info: info.key)
def test_every_default_passes_its_own_checks(info):
    assert build_config({info.key: info.default}) == Config()


@pytest.mark.parametrize(
    ("info", "choice"),
    [(info, choice) for info in known_keys().values() for choice in info.choices or ()],
    ids=lambda part: getattr(part, "key", str(part)),
)
def test_every_choice_is_accepted(info, choice):
    build_config({**NEEDS.get(info.key, {}), info.key: choice})


def test_every_method_has_a_learning_rate():
    assert set(DEFAULT_LR) == {None, *PEFT_METHODS}
    assert (DEFAULT_LR[None], DEFAULT_LR["lora"], DEFAULT_LR["ia3_bias"]) == (1e-4, 1e-3, 3e-3)


def test_named_targets_are_those_the_families_know():
    from featherfit.checkpoints.families import TARGET_SETS
    from featherfit.config.schema import NAMED_TARGETS

    assert NAMED_TARGETS == TARGET_SETS
