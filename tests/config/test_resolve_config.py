"""Defaults, preset and overrides together."""

import pytest

from featherfit.config.dotted import build_config
from featherfit.config.resolve import resolve_config
from featherfit.config.schema import Config
from featherfit.errors import ConfigError


def test_nothing_given_means_the_defaults():
    resolved = resolve_config(None, None, has_gpu=True)
    assert (resolved.config, resolved.notes, resolved.given) == (Config(), [], frozenset())


def test_the_user_wins_over_the_preset_over_the_defaults():
    resolved = resolve_config("best_quality", "optim.peft=lora env.batch_size=16", has_gpu=False)
    expected = {
        "model.hf_text.checkpoint_name": "microsoft/deberta-v3-base",
        "env.per_gpu_batch_size": 1,
        "optim.peft": "lora",
        "env.batch_size": 16,
    }
    assert resolved.config == build_config(expected)
    assert resolved.config.learning_rate() == 1e-3
    assert resolved.given == {"optim.peft", "env.batch_size"}
    assert resolved.notes == []


def test_a_previous_fit_takes_the_place_of_the_defaults():
    base = build_config({"optim.max_epochs": 3, "optim.top_k": 5, "env.batch_size": 4})
    given = {"env.batch_size": 2, "optim.peft": "ia3_bias"}
    resolved = resolve_config("multilingual_e5_small", given, has_gpu=False, base=base)
    of_preset = {"optim.top_k": 1, "optim.few_shot": "auto", "optim.ema_decay": 0.99}
    wanted = {"optim.max_epochs": 3, **of_preset, **given}
    assert resolved.config == build_config(wanted)
    assert resolved.given == set(given)


def test_a_method_of_ones_own_replaces_the_presets_with_all_that_goes_with_it():
    chosen = resolve_config("multilingual_e5_small", {"optim.max_epochs": 2}, has_gpu=False).config
    assert (chosen.optim.peft, chosen.optim.lr, chosen.env.batch_size) == ("lora", 3e-3, 32)
    own = resolve_config("multilingual_e5_small", {"optim.peft": "ia3_bias"}, has_gpu=False).config
    assert (own.optim.peft, own.optim.lr, own.env.batch_size) == ("ia3_bias", None, "auto")


@pytest.mark.filterwarnings("ignore:optim.learning_rate")
def test_given_keys_are_todays_names_of_settings_that_are_ours():
    overrides = {"optim.learning_rate": 0.01, "env.num_nodes": 1}
    assert resolve_config(None, overrides, has_gpu=False).given == {"optim.lr"}


@pytest.mark.parametrize(
    ("overrides", "has_gpu", "checkpoint"),
    [
        (None, True, "microsoft/mdeberta-v3-base"),
        ({"env.accelerator": "cpu"}, True, "intfloat/multilingual-e5-small"),
        ({"env.num_gpus": 0}, True, "intfloat/multilingual-e5-small"),
        ({"env.num_gpus": 1}, False, "intfloat/multilingual-e5-small"),
    ],
)
def test_multilingual_goes_by_the_hardware_that_is_used(overrides, has_gpu, checkpoint):
    resolved = resolve_config("multilingual", overrides, has_gpu=has_gpu)
    assert resolved.config.model.hf_text.checkpoint_name == checkpoint
    assert [note.partition(" means ")[0] for note in resolved.notes] == ["presets='multilingual'"]


def test_all_mistakes_are_in_one_error():
    overrides = ["optim.lr=-1", "env.accelerator=cpu", "env.num_gpus=1"]
    with pytest.raises(ConfigError) as caught:
        resolve_config("medium_quality_hpo", overrides, has_gpu=False)
    assert str(caught.value) == (
        "3 problems in the settings:\n"
        "  - presets='medium_quality_hpo' is not in this version: hyperparameter search is not offered. "
        "presets='medium_quality' trains once, with fixed settings.\n"
        "  - optim.lr='-1': give a number above 0, or null.\n"
        "  - env.accelerator='cpu' contradicts env.num_gpus=1. Drop one of them."
    )


def test_offload_without_checkpointing_is_a_contradiction():
    both = {"model.hf_text.activation_offload": True, "model.hf_text.gradient_checkpointing": True}
    assert resolve_config(None, both, has_gpu=True).notes == []
    checkpointing = build_config({"model.hf_text.gradient_checkpointing": True})
    resolve_config(None, {"model.hf_text.activation_offload": True}, has_gpu=True, base=checkpointing)
    with pytest.raises(ConfigError, match="gradient_checkpointing is False. Set both to True, or neither"):
        resolve_config(None, {"model.hf_text.activation_offload": True}, has_gpu=True)


def test_a_contradiction_with_the_previous_fit_is_noticed():
    with pytest.raises(ConfigError, match=r"env.accelerator='gpu' contradicts env.num_gpus=0"):
        resolve_config(None, {"env.accelerator": "gpu"}, has_gpu=True, base=build_config({"env.num_gpus": 0}))


LOW = (
    "optim.lr=0.0001 is low for optim.peft='ia3_bias', which comes from the defaults and whose usual rate is 0.003. "
    "Leave optim.lr out, or set optim.peft=null for AutoMM's full fine-tuning."
)


@pytest.mark.parametrize(
    ("presets", "overrides", "notes"),
    [
        (None, {"optim.lr": 1e-4}, [LOW]),
        (None, {"optim.lr": 1e-3}, []),
        (None, {"optim.lr": 0.9e-3}, [LOW.replace("0.0001", "0.0009")]),
        (None, {"optim.lr": 1e-4, "optim.peft": None}, []),
        (None, {"optim.lr": 1e-4, "optim.peft": "ia3_bias"}, []),
        (None, {"optim.peft": "lora"}, []),
        ("high_quality", {"optim.lr": 1e-5}, []),
        (
            "multilingual_e5_small",
            {"optim.lr": 1e-4},
            [
                LOW.replace("ia3_bias", "lora")
                .replace("the defaults", "presets='multilingual_e5_small'")
                .replace("0.003", "0.001")
            ],
        ),
        (
            "medium_quality",
            {"optim.peft": "ia3"},
            [
                (
                    "optim.lr=0.0004, from presets='medium_quality', is low for optim.peft='ia3', whose usual rate is 0.003. "
                    "Give optim.lr too."
                )
            ],
        ),
    ],
)
def test_a_rate_for_full_fine_tuning_is_pointed_out(presets, overrides, notes):
    assert resolve_config(presets, overrides, has_gpu=False).notes == notes


def test_the_note_on_a_low_rate_names_the_previous_fit():
    lora = build_config({"optim.peft": "lora"})
    assert resolve_config(None, {"optim.lr": 1e-5}, has_gpu=False, base=lora).notes == [
        (
            "optim.lr=1e-05 is low for optim.peft='lora', which comes from the previous fit and whose usual rate is 0.001. "
            "Leave optim.lr out, or set optim.peft=null for AutoMM's full fine-tuning."
        )
    ]
    whole = build_config({"optim.peft": None, "optim.lr": 1e-5})
    assert resolve_config(None, {"optim.peft": "lora"}, has_gpu=False, base=whole).notes == [
        "optim.lr=1e-05, from the previous fit, is low for optim.peft='lora', whose usual rate is 0.001. Give optim.lr too."
    ]
    assert resolve_config(None, {"optim.max_epochs": 1}, has_gpu=False, base=whole).notes == []


@pytest.mark.parametrize(
    ("overrides", "notes"),
    [
        (
            {"model.names": ["hf_text", "fusion_mlp"]},
            ["model.names: fusion_mlp builds nothing, because there is only one encoder."],
        ),
        (
            {"optim.lr_choice": "two_stages", "optim.lr_decay": 0.5},
            ["optim.lr_decay has no effect with optim.lr_choice='two_stages'."],
        ),
        ({"optim.lr_mult": 10}, ["optim.lr_mult has no effect with optim.lr_choice='layerwise_decay'."]),
        ({"optim.lr_choice": "two_stages", "optim.lr_mult": 10}, []),
        (
            {"optim.lr_schedule": "constant", "optim.end_lr": 0.1},
            ["optim.end_lr has no effect with optim.lr_schedule='constant'."],
        ),
        (
            {"optim.peft": None, "optim.lora.r": 4, "optim.extra_trainable_params": ["x"]},
            [
                "optim.extra_trainable_params has no effect with optim.peft=null.",
                "optim.lora.r has no effect with optim.peft=null.",
            ],
        ),
        ({"optim.end_lr": 1.0, "optim.lr": 0.01}, []),
        (
            {"model.hf_text.gradient_checkpointing": True, "model.hf_text.activation_offload": True},
            ["model.hf_text.activation_offload has no effect on a CPU: activations are in its memory anyway."],
        ),
    ],
)
def test_a_setting_without_effect_is_pointed_out(overrides, notes):
    assert resolve_config(None, overrides, has_gpu=False).notes == notes


@pytest.mark.parametrize(
    ("given", "told"),
    [("lots", "16GB, 800MB"), ("16", "Write the unit"), ("-1GB", "16GB, 800MB"), (0, "Write the unit"), (True, "16GB")],
)
def test_a_budget_that_is_none_is_refused_in_the_users_words(given, told):
    with pytest.raises(ConfigError, match="env.memory_budget") as caught:
        resolve_config(None, {"env.memory_budget": given}, has_gpu=False)
    assert told in str(caught.value)


@pytest.mark.parametrize("given", ["many", 0, 1.5])
def test_rows_per_forward_are_a_number_or_auto(given):
    with pytest.raises(ConfigError, match="a whole number of at least 1, or auto"):
        resolve_config(None, {"env.per_gpu_batch_size": given}, has_gpu=False)
    found = resolve_config(None, "env.per_gpu_batch_size=auto env.batch_size=64", has_gpu=False).config
    assert found.plans_memory() and found.rows_per_forward(training=True) == 64
    assert resolve_config(None, "env.per_gpu_batch_size=4", has_gpu=False).config.env.per_gpu_batch_size == 4


@pytest.mark.parametrize("given", ["16GB", "0.5 GiB", 800_000_000, None])
def test_a_budget_is_kept_as_it_was_written(given):
    found = resolve_config(None, {"env.memory_budget": given}, has_gpu=False).config.env.memory_budget
    assert found == given
