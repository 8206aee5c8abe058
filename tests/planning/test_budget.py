"""The quickest settings that fit are chosen, and a refusal says what it takes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from featherfit.errors import ConfigError
from featherfit.planning.budget import MARGIN, _refuse, choose, least
from featherfit.planning.forecast import Phase
from featherfit.planning.task import ProcessShare

MB = 10**6
PROCESS = ProcessShare(400 * MB, 50 * MB)


class FakeForecast:
    """1 MB a token without checkpointing, a quarter of that with it."""

    def __init__(self, asked: bool = False):
        self.checkpoints = asked
        config = SimpleNamespace(optim=SimpleNamespace(peft=None))
        self.task = SimpleNamespace(architecture=SimpleNamespace(config=config))

    def sizes(self) -> list[int]:
        return [1024, 512, 256]

    def phases(self, tokens: int, checkpointing: bool, process: ProcessShare) -> list[Phase]:
        activations = tokens * MB // (4 if checkpointing else 1)
        parts = {"process and libraries": process.own, "activations": activations}
        return [Phase("tokenizing", {"tokenizer": process.own + process.tokenizer}), Phase("training", parts)]


@pytest.mark.parametrize(
    ("budget", "tokens", "checkpointing"),
    [
        (2000, 1024, False),
        (1424, 1024, False),
        (1423, 512, False),
        (700, 256, False),
        (655, 512, True),
        (470, 256, True),
        (460, None, None),
    ],
)
def test_smaller_forwards_come_before_recomputing(budget, tokens, checkpointing):
    choice = choose(FakeForecast(), PROCESS, round(budget * MB * (1 + MARGIN)), may_checkpoint=True)
    assert (choice and choice.tokens, choice and choice.checkpointing) == (tokens, checkpointing)
    assert choice is None or choice.peak <= budget * MB


def test_no_recomputing_where_it_may_not():
    assert choose(FakeForecast(), PROCESS, 500 * MB, may_checkpoint=False) is None
    assert choose(FakeForecast(asked=True), PROCESS, 500 * MB, may_checkpoint=False).checkpointing


def test_another_phase_can_be_the_limit():
    assert choose(FakeForecast(), ProcessShare(10 * MB, 900 * MB), 800 * MB, may_checkpoint=True) is None


def test_a_refusal_says_what_it_takes():
    best = least(FakeForecast(), PROCESS, may_checkpoint=True)
    assert (best.tokens, best.checkpointing, best.peak) == (256, True, 464 * MB)
    with pytest.raises(ConfigError) as caught:
        _refuse(FakeForecast(), PROCESS, 300 * MB, may_checkpoint=True)
    for text in ("env.memory_budget is 300 MB", "464 MB", "256 tokens and gradient checkpointing", "483MB", "ia3_bias"):
        assert text in str(caught.value)
