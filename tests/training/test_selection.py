"""The best states are kept, whichever way is better, and become the final weights."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from featherfit.training.selection import BestStates, means


class One(nn.Module):
    """One number that trains and one that does not."""

    def __init__(self):
        super().__init__()
        self.value = nn.Parameter(torch.zeros(1))
        self.frozen = nn.Parameter(torch.full((1,), 9.0), requires_grad=False)

    def at(self, value: float) -> One:
        with torch.no_grad():
            self.value.fill_(value)
        return self


def states_of(folder: Path, scores: list[float], k: int, greater_is_better: bool) -> tuple[BestStates, One]:
    """States whose weight is their step: 1, 2, ..."""
    states, model = BestStates(folder, k, greater_is_better), One()
    for step, score in enumerate(scores, start=1):
        states.add(score, step, model.at(step))
    return states, model


def never() -> float:
    raise AssertionError("nothing to evaluate")


@pytest.mark.parametrize(
    ("greater", "kept"), [(True, [(0.9, 2), (0.8, 4), (0.5, 1)]), (False, [(0.1, 3), (0.5, 1), (0.8, 4)])]
)
def test_keeps_the_best_three(greater, kept, tmp_path):
    states, model = states_of(tmp_path / "s", [0.5, 0.9, 0.1, 0.8], 3, greater)
    assert [(state.score, state.step) for state in states.kept] == kept
    assert sorted(file.name for file in (tmp_path / "s").iterdir()) == sorted(
        f"step-{step:06d}.safetensors" for _, step in kept
    )
    assert states.restore(model, "best", never) == [kept[0][1]]
    assert model.value.item() == kept[0][1]


def test_lowest_error_wins(tmp_path):
    """AutoMM ends with 0.1070 of 0.1027, 0.1070 and 0.0632."""
    states, model = states_of(tmp_path / "s", [0.1027, 0.1070, 0.0632], 3, greater_is_better=False)
    for method in ("best", "greedy_soup"):
        used = states.restore(model, method, lambda: 0.2)  # no mean is better
        assert used == [3] and model.value.item() == 3


def test_checks_since_best(tmp_path):
    states, model = BestStates(tmp_path / "s", 1, False), One()
    seen = []
    for step, score in enumerate([0.5, 0.6, 0.4, 0.4, 0.7, math.nan, 0.3], start=1):
        states.add(score, step, model.at(step))
        seen.append(states.checks_since_best)
    assert seen == [0, 1, 0, 1, 2, 3, 0]


@pytest.mark.parametrize("greater", [True, False])
def test_ties_go_to_the_earlier_and_nan_loses(greater, tmp_path):
    states, _ = states_of(tmp_path / "s", [math.nan, 0.5, 0.5], 3, greater)
    assert [state.step for state in states.kept] == [2, 3, 1]
    states.add(0.4 if greater else 0.6, 4, One())
    assert [state.step for state in states.kept] == [2, 3, 4]


def test_only_not_a_number_still_gives_a_state(tmp_path):
    states, model = states_of(tmp_path / "s", [math.nan, math.nan], 2, True)
    assert states.restore(model, "best", never) == [1]


def test_uniform_soup_is_the_mean(tmp_path):
    states, model = states_of(tmp_path / "s", [0.5, 0.9, 0.1, 0.8], 3, True)
    assert states.restore(model, "uniform_soup", never) == [2, 4, 1]
    assert model.value.item() == pytest.approx((2 + 4 + 1) / 3)
    assert model.frozen.item() == 9 and model.value.dtype == torch.float32


@pytest.mark.parametrize("greater", [True, False])
def test_greedy_soup(greater, tmp_path):
    """Scores peak at 3.0: 2 is the best, 4 joins (mean 3), 1 does not (mean 7/3)."""
    sign = 1 if greater else -1
    states, model = states_of(tmp_path / "s", [sign * s for s in (0.5, 0.9, 0.1, 0.8)], 3, greater)
    seen = []

    def evaluate() -> float:
        seen.append(model.value.item())
        return sign * (1 - abs(model.value.item() - 3) / 10)

    assert states.restore(model, "greedy_soup", evaluate) == [2, 4]
    assert seen == pytest.approx([3, 7 / 3]) and model.value.item() == 3


def test_greedy_soup_takes_equals(tmp_path):
    states, model = states_of(tmp_path / "s", [0.9, 0.8], 2, True)
    assert states.restore(model, "greedy_soup", lambda: 0.9) == [1, 2] and model.value.item() == 1.5


def test_means_come_one_by_one_and_exact(tmp_path):
    from safetensors.torch import save_file

    files = [tmp_path / f"{number}.safetensors" for number in range(3)]
    for file, value in zip(files, (1.0, 2.0, 2.0**-9), strict=True):
        save_file({"a": torch.full((2,), value, dtype=torch.bfloat16), "b": torch.full((1,), -value)}, file)
    found = dict(means(files))
    assert found["a"].tolist() == [(3 + 2**-9) / 3] * 2, "bfloat16 would have lost the third"
    assert found["b"].tolist() == [-(3 + 2**-9) / 3]
    assert {name: value.tolist() for name, value in means(files[:1])} == {"a": [1.0, 1.0], "b": [-1.0]}
