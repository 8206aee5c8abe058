"""Whatever the settings, the answer is a `Config` or an error of ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd_values import SETTING, TEXT, UNICODE

from featherfit.config.dotted import build_config, known_keys, merge_overrides, to_flat
from featherfit.config.resolve import resolve_config
from featherfit.errors import FeatherfitError

KEYS = sorted(known_keys())
OLD = [
    "optimization.lr",
    "optimization.learning_rate",
    "optim.efficient_finetune",
    "env.num_workers_evaluation",
    "model.clip.size",
]
NEARLY = st.sampled_from(KEYS).flatmap(
    lambda key: st.sampled_from([key[:-1], key.upper(), key.replace(".", ""), key.partition(".")[0]])
)
KEY = st.one_of(st.sampled_from(KEYS), st.sampled_from(KEYS), NEARLY, st.sampled_from(OLD), UNICODE)
MAPPING = st.dictionaries(KEY, SETTING, max_size=4)
WRITTEN = st.tuples(KEY, st.one_of(TEXT, SETTING.map(repr))).map("=".join)
OVERRIDES = st.one_of(MAPPING, st.lists(st.one_of(WRITTEN, SETTING), max_size=3), WRITTEN, TEXT, SETTING)

pytestmark = pytest.mark.filterwarnings("ignore")


@given(MAPPING)
def test_build_config(flat):
    try:
        config = build_config(flat)
    except FeatherfitError as error:
        assert str(error)
    else:
        assert build_config(to_flat(config)) == config
        assert config.learning_rate() > 0 and config.rows_per_forward(training=False) > 0


@given(st.one_of(st.none(), st.sampled_from(["multilingual", "high_quality", "hihg"]), TEXT), OVERRIDES, st.booleans())
def test_resolve(preset, overrides, has_gpu):
    try:
        resolve_config(preset, overrides, has_gpu=has_gpu)
    except FeatherfitError as error:
        assert str(error)


@given(OVERRIDES, OVERRIDES)
def test_merge(first, second):
    try:
        merge_overrides(first, second)
    except FeatherfitError as error:
        assert str(error)
