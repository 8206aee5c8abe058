"""The collector rests while a block runs, and is afterwards as it was before."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from featherfit.startup import collection_paused, older_objects_spared


def collections() -> int:
    return sum(generation["collections"] for generation in gc.get_stats())


def test_nothing_is_collected_inside():
    before = collections()
    with collection_paused():
        kept = [[] for _ in range(100_000)]
        assert collections() == before
    assert len(kept) == 100_000 and gc.isenabled()


def test_what_was_made_inside_is_old():
    with collection_paused():
        kept = [[] for _ in range(50_000)]
        young = gc.get_count()[0]
    assert young > 40_000
    oldest = {id(one) for one in gc.get_objects(generation=2)}
    assert oldest.issuperset(map(id, kept))
    assert gc.get_freeze_count() == 0 and len(kept) == 50_000


def test_garbage_is_found_later():
    class Node:
        pass

    gc.collect()
    with collection_paused():
        node = Node()
        node.self = node
        del node
    assert gc.collect() > 0


@pytest.mark.parametrize("enabled", [True, False])
def test_state_is_what_it_was_after_an_error(enabled):
    try:
        (gc.enable if enabled else gc.disable)()
        with pytest.raises(ValueError), collection_paused(), collection_paused():
            assert not gc.isenabled()
            raise ValueError
        assert gc.isenabled() == enabled
    finally:
        gc.enable()


@pytest.mark.parametrize("block", ["collection_paused", "older_objects_spared"])
def test_objects_frozen_by_the_caller_stay_frozen(block):
    code = f"""
import gc
from featherfit.startup import {block}
gc.freeze()
frozen = gc.get_freeze_count()
with {block}():
    pass
assert gc.get_freeze_count() >= frozen - 100 > 0 and gc.isenabled()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


class Loop:
    """Refers to itself, so that only a collection frees it."""

    def __init__(self, freed: list[str], name: str):
        self.itself, self.freed, self.name = self, freed, name

    def __del__(self):
        self.freed.append(self.name)


class TestOlderObjectsSpared:
    def test_only_what_the_block_made_is_collected_in_it(self):
        freed: list[str] = []
        gc.collect()
        with collection_paused():
            Loop(freed, "before")
            with older_objects_spared():
                Loop(freed, "inside")
                gc.collect()
                assert freed == ["inside"]
        gc.collect()
        assert freed == ["inside", "before"]

    def test_a_block_within_and_an_error(self):
        with pytest.raises(ValueError), older_objects_spared():
            with older_objects_spared():
                pass
            assert gc.get_freeze_count() > 0
            raise ValueError
        assert gc.get_freeze_count() == 0


WITHOUT_SCIPY = """
import sys
import torch
from featherfit.startup import scipy_when_called
with scipy_when_called():
    from transformers import BertModel
assert "scipy.optimize" not in sys.modules, "asked for by nobody"
{then}
"""


def run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def test_transformers_models_come_without_scipy_which_is_there_when_called():
    run(
        WITHOUT_SCIPY.format(
            then="""
from transformers.loss import loss_for_object_detection as loss
assert [x.tolist() for x in loss.linear_sum_assignment([[4, 1], [2, 8]])] == [[0, 1], [1, 0]]
import scipy.optimize
assert scipy.optimize.minimize and scipy.optimize.__file__
"""
        )
    )


def test_anything_else_of_scipy_is_the_real_thing():
    run(
        """
import sys
from featherfit.startup import scipy_when_called
with scipy_when_called():
    from scipy.optimize import minimize
    import scipy.stats
assert minimize.__module__ == "scipy.optimize._minimize"
assert sys.modules["scipy.optimize"].minimize is minimize and scipy.stats.norm.cdf(0) == 0.5
"""
    )


def test_scipy_that_is_imported_already_stays():
    run(
        """
import scipy.optimize, sys
from featherfit.startup import scipy_when_called
real = sys.modules["scipy.optimize"]
with scipy_when_called():
    assert sys.modules["scipy.optimize"] is real
assert sys.modules["scipy.optimize"] is real
"""
    )
