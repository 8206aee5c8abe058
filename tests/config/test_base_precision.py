"""`model.hf_text.base_precision`: what it may be, and what it contradicts."""

from __future__ import annotations

import pytest

from featherfit.config.dotted import build_config
from featherfit.config.resolve import resolve_config
from featherfit.config.schema import PEFT_METHODS, Config
from featherfit.errors import ConfigError

KEY = "model.hf_text.base_precision"
LOW = ("bfloat16", "float16", "int8", "int4")


def test_it_is_todays_way_unless_given():
    assert Config().model.hf_text.base_precision == "auto"


@pytest.mark.parametrize("value", ["auto", "float32", *LOW])
@pytest.mark.parametrize("peft", PEFT_METHODS)
def test_every_method_takes_every_value(value, peft):
    assert build_config({KEY: value, "optim.peft": peft}).model.hf_text.base_precision == value


def test_a_value_that_is_none():
    with pytest.raises(ConfigError, match=r"base_precision='int3': give .*int8.*int4.*Did you mean 'int[48]'"):
        build_config({KEY: "int3"})


@pytest.mark.parametrize("value", LOW)
def test_nothing_frozen_nothing_low(value):
    message = rf"{KEY}='{value}' is for frozen weights, and with optim\.peft=null all of them train"
    with pytest.raises(ConfigError, match=message):
        build_config({KEY: value, "optim.peft": None})
    with pytest.raises(ConfigError, match=message):
        resolve_config("high_quality", {KEY: value}, has_gpu=False)  # which trains the whole encoder


@pytest.mark.parametrize("value", ["auto", "float32"])
def test_what_a_whole_encoder_is_anyway(value):
    build_config({KEY: value, "optim.peft": None})


def test_all_mistakes_at_once():
    with pytest.raises(ConfigError) as caught:
        build_config({KEY: "int8", "optim.peft": None, "env.accelerator": "gpu", "env.num_gpus": 0, "optim.lr": -1})
    assert len(caught.value.problems) == 3
