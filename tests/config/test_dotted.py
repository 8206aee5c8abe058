"""Overrides in three forms, to checked values and settings."""

import dataclasses
import json
import math
import warnings

import numpy as np
import pytest

from featherfit.config.dotted import build_config, known_keys, parse_overrides, to_flat
from featherfit.config.schema import PEFT_METHODS, Config
from featherfit.errors import ConfigError


def problems(overrides):
    with pytest.raises(ConfigError) as caught:
        parse_overrides(overrides)
    return caught.value.problems


@pytest.mark.parametrize(
    "overrides",
    [
        {"optim.lr": 1e-3, "optim.peft": None, "optim.lora.filter": ["query", "value"]},
        {"optim": {"lr": 1e-3, "peft": None, "lora": {"filter": ["query", "value"]}}},
        {"optim": {"lr": 1e-3, "lora.filter": ("query", "value")}, "optim.peft": None},
        ["optim.lr=1e-3", "optim.peft=null", "optim.lora.filter=[query, value]"],
        ("optim.lr = 0.001", "optim.peft=None", "optim.lora.filter=query,value"),
        "optim.lr=1e-3 optim.peft=null optim.lora.filter=['query', \"value\"]",
        'optim.lr="1e-3" optim.peft=none optim.lora.filter=["query", "value"]',
    ],
)
def test_the_three_forms_mean_the_same(overrides):
    assert parse_overrides(overrides) == {
        "optim.lr": 0.001,
        "optim.peft": None,
        "optim.lora.filter": ["query", "value"],
    }


@pytest.mark.parametrize("nothing", [None, {}, [], "", {"optim": {}}])
def test_nothing_is_no_override(nothing):
    assert parse_overrides(nothing) == {}


def test_the_users_mapping_is_left_alone():
    patterns = ["query"]
    given = {"optim": {"lora": {"filter": patterns}, "learning_rate": 1}}
    with pytest.warns(UserWarning):
        parsed = parse_overrides(given)
    parsed["optim.lora.filter"].append("key")
    assert given == {"optim": {"lora": {"filter": ["query"]}, "learning_rate": 1}}
    assert patterns == ["query"]


@pytest.mark.parametrize(
    ("key", "given", "value"),
    [
        ("optim.lr", 1, 1.0),
        ("optim.lr", "3e-3", 0.003),
        ("optim.lr", np.float32(0.5), 0.5),
        ("optim.lora.alpha", 16, 16.0),
        ("env.batch_size", 8.0, 8),
        ("env.batch_size", np.int64(8), 8),
        ("env.deterministic", np.bool_(True), True),
        ("optim.warmup_steps", 0, 0),
        ("optim.warmup_steps", 0.0, 0.0),
        ("optim.warmup_steps", 5, 5),
        ("optim.warmup_steps", 1.0, 1.0),
        ("optim.warmup_steps", "0.1", 0.1),
        ("optim.warmup_steps", "5", 5),
        ("optim.val_check_interval", 50, 50.0),
        ("optim.lr_choice", "", ""),
        ("optim.peft", "None", None),
        ("env.precision", 16, "16"),
        ("env.precision", np.int64(32), "32"),
        ("env.precision", "32", "32"),
        ("model.hf_text.max_text_len", None, 0),
        ("model.hf_text.max_text_len", -1, -1),
        ("model.hf_text.checkpoint_name", "null", "null"),
        ("model.names", "hf_text", ["hf_text"]),
        ("model.names", ["hf_text", "fusion_mlp"], ["hf_text", "fusion_mlp"]),
        ("model.fusion_mlp.hidden_sizes", "64, 32", [64, 32]),
        ("model.fusion_mlp.hidden_sizes", ["64"], [64]),
        ("model.fusion_mlp.hidden_sizes", (64, np.int64(32)), [64, 32]),
        ("data.pos_label", "null", "null"),
        ("data.pos_label", "7", "7"),
        ("data.pos_label", 7, 7),
        ("data.pos_label", False, False),
        ("optim.class_weights", {1: 2, "b": 0.5}, {"1": 2.0, "b": 0.5}),
        ("optim.class_weights", "balanced", "balanced"),
        ("optim.extra_trainable_params", [], []),
    ],
)
def test_a_value_in_a_mapping_keeps_or_widens_its_type(key, given, value):
    read = parse_overrides({key: given})[key]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("item", "value"),
    [
        ("data.pos_label=7", 7),
        ("data.pos_label=007", "007"),
        ("data.pos_label=null", None),
        ("data.pos_label='null'", "null"),
        ("env.precision=16", "16"),
        ("model.hf_text.max_text_len=null", 0),
        ("model.hf_text.checkpoint_name=007", "007"),
        ("optim.skip_final_val=1", True),
        ("optim.lr_choice=", ""),
        ("optim.class_weights={spam: 2}", {"spam": 2.0}),
    ],
)
def test_a_written_value_is_read_by_the_type_of_its_setting(item, value):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (read,) = parse_overrides([item]).values()
    assert read == value
    assert type(read) is type(value)


PEFT = ", ".join(PEFT_METHODS)


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("optim.lr", 0, "give a number above 0, or null."),
        ("optim.lr", math.nan, "give a number above 0, or null."),
        ("optim.lr", math.inf, "give a number above 0, or null."),
        ("optim.lr", True, "give a number above 0, or null."),
        ("optim.lr", "fast", "give a number above 0, or null."),
        ("optim.lr_decay", 1.5, "give a number above 0 and at most 1."),
        ("optim.end_lr", -1.0, "give a number of at least 0."),
        ("optim.lora.dropout", 1, "give a number from 0 to 0.99."),
        ("env.batch_size", 0, "give a whole number of at least 1, or auto."),
        ("env.batch_size", True, "give a whole number of at least 1, or auto."),
        ("env.batch_size", 1.5, "give a whole number of at least 1, or auto."),
        ("env.batch_size", None, "give a whole number of at least 1, or auto."),
        ("env.deterministic", 1, "give true or false."),
        ("optim.peft", "LoRA", f"give one of {PEFT}, null. Did you mean 'lora'?"),
        ("env.accelerator", "cuda", "give one of auto, cpu, gpu."),
        (
            "optim.warmup_steps",
            -1,
            "give a whole number of steps from 0 up, or a share of all steps from 0.0 to 1.0.",
        ),
        (
            "optim.warmup_steps",
            5.0,
            "a share of all steps is at most 1.0. Write 5 without a decimal point for 5 steps.",
        ),
        ("optim.warmup_steps", 1.5, "a share of all steps is at most 1.0."),
        ("optim.val_check_interval", 1.5, "above 1 it counts steps and has to be a whole number."),
        ("optim.max_steps", 0, "give a whole number of at least 1, or -1 for no limit."),
        ("model.hf_text.checkpoint_name", " ", None),
        (
            "model.names",
            ["hf_text", 3],
            "give a list of hf_text, ft_transformer, timm_image, fusion_mlp, fusion_transformer, fusion_logits.",
        ),
        ("model.names", [], "give each name once, and at least one encoder: hf_text, ft_transformer, timm_image."),
        (
            "model.names",
            ["fusion_mlp"],
            "give each name once, and at least one encoder: hf_text, ft_transformer, timm_image.",
        ),
        (
            "model.names",
            ["hf_text", "hf_text"],
            "give each name once, and at least one encoder: hf_text, ft_transformer, timm_image.",
        ),
        (
            "model.names",
            ["hf_text", "timm_image", "clip"],
            "this version has no clip. Allowed: hf_text, ft_transformer, timm_image, fusion_mlp, fusion_transformer, fusion_logits.",
        ),
        (
            "model.names",
            ["hf-text"],
            "this version has no hf-text. Did you mean 'hf_text'? Allowed: hf_text, ft_transformer, timm_image, fusion_mlp, fusion_transformer, fusion_logits.",
        ),
        (
            "model.names",
            ["hf_text", "hf_text_b"],
            "hf_text_b is a second encoder of its kind, and each is offered once. Allowed: hf_text, ft_transformer, timm_image, fusion_mlp, fusion_transformer, fusion_logits.",
        ),
        (
            "model.names",
            ["hf_text", "fusion_mlp", "fusion_logits"],
            "give one way to join encoders, not several: fusion_mlp, fusion_transformer, fusion_logits.",
        ),
        ("model.fusion_mlp.hidden_sizes", [], "give a list of whole numbers from 1 to 65536, such as [128]."),
        ("model.fusion_mlp.hidden_sizes", [1.5], "give a list of whole numbers of at least 1."),
        (
            "optim.lora.filter",
            "atention",
            (
                "give one of automm, attention, all-linear, paper, or a list of regular expressions such as ['atention']. "
                "Did you mean 'attention'?"
            ),
        ),
        (
            "optim.lora.filter",
            3,
            "give one of automm, attention, all-linear, paper, or a list of regular expressions.",
        ),
        (
            "optim.lora.filter",
            ["ok", "*"],
            "'*' is not a regular expression (nothing to repeat at position 0).",
        ),
        (
            "optim.lora.module_filter",
            ["*"],
            "'*' is not a regular expression (nothing to repeat at position 0).",
        ),
        (
            "optim.extra_trainable_params",
            ["*"],
            "'*' is not a regular expression (nothing to repeat at position 0).",
        ),
        (
            "optim.lora.module_filter",
            [],
            "the list is empty; give at least one regular expression, or leave the setting out.",
        ),
        ("optim.class_weights", "balance", "give balanced, or a mapping. Did you mean 'balanced'?"),
        ("optim.class_weights", {"a": 0.0}, "every weight has to be above 0, not 'a': 0."),
        (
            "optim.class_weights",
            {"a": True},
            "give balanced, a mapping from label to a number above 0, or null.",
        ),
        (
            "optim.class_weights",
            {"1": 1, 1: 2},
            "give balanced, a mapping from label to a number above 0, or null.",
        ),
    ],
)
def test_a_wrong_value_says_what_is_allowed(key, value, complaint):
    (problem,) = problems({key: value})
    complaint = complaint or "give a local folder, a name `featherfit checkpoints` lists, or a hub name."
    assert problem == f"{key}={value!r}: {complaint}"


def test_a_huge_whole_number_is_not_finite():
    assert problems({"optim.lora.alpha": 10**400})[0].endswith("...: give a number above 0.")


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        ({"optim.lrr": 1}, "Unknown setting optim.lrr=1. Did you mean 'optim.lr'?"),
        ({"lr": 1}, "Unknown setting lr=1. Did you mean 'optim.lr'?"),
        ({"optim": {"r": 4}}, "Unknown setting optim.r=4. Did you mean 'optim.lora.r'?"),
        ({"OPTIM.PEFT": None}, "Unknown setting OPTIM.PEFT=None. Did you mean 'optim.peft'?"),
        ({"foo": "x"}, "Unknown setting foo='x'. Allowed: model.*, data.*, optim.*, env.*."),
        (
            {"data.anything_else_at_all": 1},
            "Unknown setting data.anything_else_at_all=1. Allowed: "
            + ", ".join(key for key in known_keys() if key.startswith("data."))
            + ".",
        ),
        (
            {"optim.lora": 3},
            "optim.lora=3: optim.lora is a block of settings; give them singly, such as optim.lora.filter.",
        ),
        ({"data": None}, None),
        ({3: 4}, "3=4: a key has to be text."),
        (["optim.lr"], "'optim.lr' is not of the form key=value. Put quotes around a value with spaces."),
        (["=3"], "'=3' is not of the form key=value. Put quotes around a value with spaces."),
        ([3], "3 is not of the form key=value. Put quotes around a value with spaces."),
        ("optim.lora.filter=[a", "'optim.lora.filter=[a': a bracket is not closed."),
        (3, "Settings are a mapping, a list of 'key=value', or one string of them; this is of type int."),
    ],
)
def test_a_wrong_key_or_form_says_what_to_do(overrides, problem):
    problem = problem or (
        "data=None: data is a block of settings; give them singly, such as data.label.numerical_preprocessing."
    )
    assert problems(overrides) == [problem]


def test_every_mistake_is_told_at_once():
    with pytest.raises(ConfigError) as caught:
        build_config(
            {"optim.lrr": 1, "optim.peft": "lora", "env.batch_size": -1, "env": {"accelerator": "gpu", "num_gpus": 0}}
        )
    assert str(caught.value) == (
        "3 problems in the settings:\n"
        "  - Unknown setting optim.lrr=1. Did you mean 'optim.lr'?\n"
        "  - env.batch_size=-1: give a whole number of at least 1, or auto.\n"
        "  - env.accelerator='gpu' contradicts env.num_gpus=0. Drop one of them."
    )


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (
            {"optim.learning_rate": 1e-3, "optim.lr": 1e-2},
            "optim.lr is given twice: optim.learning_rate=0.001 and optim.lr=0.01. Keep one.",
        ),
        ({"optim": {"lr": 1}, "optim.lr": 2}, "optim.lr is given twice: optim.lr=1 and optim.lr=2. Keep one."),
        ("optim.lr=1 optim.lr=2", "optim.lr is given twice: optim.lr='1' and optim.lr='2'. Keep one."),
    ],
)
@pytest.mark.filterwarnings("ignore:optim.learning_rate")
def test_the_same_setting_twice_has_to_agree(overrides, problem):
    assert problems(overrides) == [problem]


@pytest.mark.filterwarnings("ignore:optim.learning_rate")
def test_the_same_value_twice_is_no_mistake():
    assert parse_overrides({"optim.learning_rate": 1, "optim.lr": 1.0}) == {"optim.lr": 1.0}


OTHERS = {
    "model.names": ["hf_text", "fusion_mlp"],
    "data.pos_label": "spam",
    "optim.peft": "lora",
    "optim.lora.filter": ["query"],
    "optim.lora.module_filter": [".*attention"],
    "optim.lr": 0.01,
    "optim.warmup_steps": 7,
    "optim.class_weights": {"spam": 2.0},
    "env.precision": "bf16",
}


@pytest.mark.parametrize("flat", [{}, OTHERS], ids=["defaults", "others"])
def test_flat_settings_come_back_exactly_through_json(flat):
    config = build_config(flat)
    written = json.dumps(to_flat(config))
    again = build_config(json.loads(written))
    assert again == config
    assert json.dumps(to_flat(again)) == written
    assert to_flat(config) == {key: flat.get(key, info.default) for key, info in known_keys().items()}


def test_settings_share_nothing_that_can_change():
    flat = {"optim.lora.filter": ["query"]}
    config = build_config(flat)
    flat["optim.lora.filter"].append("key")
    to_flat(config)["optim.lora.filter"].append("value")
    assert config.optim.lora.filter == ["query"]
    to_flat(Config())["model.names"].append("x")
    assert "x" not in Config().model.names


def test_a_config_built_by_hand_is_checked_on_its_way_back():
    config = dataclasses.replace(Config(), env=dataclasses.replace(Config().env, batch_size=0))
    with pytest.raises(ConfigError, match=r"env.batch_size=0: give a whole number of at least 1"):
        build_config(to_flat(config))


def test_key_info_describes_a_setting():
    info = known_keys()["optim.lora.dropout"]
    assert (info.type, info.kinds, info.default, info.low, info.high) == ("float", (float,), 0.0, 0, 0.99)
    assert known_keys()["optim.lora.filter"].kinds == (str, list)
    assert known_keys()["data.pos_label"].allowed() == "a number, or text, or true or false, or null"


@pytest.mark.parametrize("key", ["optim.max_epochs", "optim.lr", "env.batch_size", "optim.peft", "nonsense"])
def test_numbers_without_measure(key):
    """Python itself refuses to write one of so many digits."""
    with pytest.raises(ConfigError, match=r"thousands of digits"):
        build_config({key: 10**5000})
    if key != "optim.lr":
        with pytest.raises(ConfigError):
            build_config({key: 1 << 64})
        with pytest.raises(ConfigError, match=key):
            build_config({key: float(1 << 64)})
