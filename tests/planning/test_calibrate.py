"""What is measured on copies of two and three layers foretells deeper ones."""

from __future__ import annotations

import gc

import pytest
from tiny_runs import architecture_without_files

from featherfit.planning.calibrate import Forward, Line, memory_of, with_checkpointing
from featherfit.training.losses import Objective

ROWS = (20,) * 30
OBJECTIVE = Objective("cross_entropy", "multiclass", 3)


def test_a_line():
    assert Line(5.0, 2.0).at(12) == 29.0


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("model_type", ["bert", "t5", "llama"])
def test_deeper_models_take_what_shallow_ones_foretell(model_type, checkpointing, monkeypatch):
    architecture = with_checkpointing(architecture_without_files(model_type), checkpointing)
    forwards = [Forward(ROWS, True), Forward(ROWS, True, keeps_gradients=True), Forward(ROWS, False)]
    common = {"reorders": False, "objective": OBJECTIVE}
    foretold = memory_of(architecture, forwards, depth=6, **common)
    monkeypatch.setattr("featherfit.planning.calibrate._DEPTHS", (6, 7))
    deep = memory_of(architecture, forwards, depth=6, **common)
    for one, other in zip(foretold, deep, strict=True):
        assert other.per_layer == 0  # measured at its own depth
        assert one.at(6) == pytest.approx(other.at(6), rel=0.02)


def test_what_is_older_than_the_copies_is_not_gone_through(monkeypatch):
    frozen = []
    monkeypatch.setattr(
        "featherfit.planning.calibrate.give_memory_back", lambda: frozen.append(gc.get_freeze_count() > 0)
    )
    memory_of(architecture_without_files("bert"), [Forward(ROWS, False)], depth=6, reorders=False, objective=OBJECTIVE)
    assert frozen == [True, True] and gc.get_freeze_count() == 0


def test_recomputing_and_longer_forwards():
    def taken(checkpointing: bool, rows: tuple[int, ...], training: bool = True) -> float:
        architecture = with_checkpointing(architecture_without_files("bert"), checkpointing)
        (line,) = memory_of(architecture, [Forward(rows, training)], depth=12, reorders=False, objective=OBJECTIVE)
        return line.at(12)

    plain = taken(False, ROWS)
    assert taken(True, ROWS) < 0.5 * plain
    assert taken(False, ROWS + ROWS) == pytest.approx(2 * plain, rel=0.05)
    assert taken(False, ROWS, training=False) < 0.3 * plain
