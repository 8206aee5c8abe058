"""Memory that runs out costs no step: errors are put into a step, and training compared with one that had none."""

from __future__ import annotations

import re
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import tiny_model

from featherfit.adapters.apply import apply_adapters
from featherfit.config.dotted import build_config
from featherfit.data.batch import collate, cut_evenly
from featherfit.data.dataset import Dataset
from featherfit.data.processors.text import TokenizedRows
from featherfit.errors import TrainingError
from featherfit.models.build import MultiModalModel
from featherfit.training import loop
from featherfit.training.device import Device
from featherfit.training.losses import Objective
from featherfit.training.oom import is_out_of_memory
from featherfit.types import Batch, StepReport

CPU = Device(torch.device("cpu"), "no")
OBJECTIVE = Objective("cross_entropy", "multiclass", 3)
LONGEST = 12
TOKENS = 4 * LONGEST
"""Of a forward, as long as memory suffices."""
FAILING = 3
"""The first step in which it does not."""

NO_MEMORY: list[Exception] = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1073741824 bytes."),
    MemoryError(),
]
Fails = Callable[[int, int, int], bool]
"""Whether memory is short, by step and by forward in the step, both from 1 and repeated ones counted, and by tokens."""


def dataset(rows: int = 24) -> Dataset:
    random = np.random.default_rng(0)
    lengths = random.integers(3, LONGEST, size=rows)
    ids = [random.integers(4, 50, size=length).astype(np.int32) for length in lengths]
    labels = (random.permutation(rows) % 3).astype(np.int64)
    weights = random.uniform(0.5, 2.0, size=rows).astype(np.float32)
    return Dataset(TokenizedRows(ids, None, lengths.astype(np.int64), 0), labels, weights, pd.RangeIndex(rows))


DATA = dataset()
CONFIG = build_config(
    {
        "env.batch_size": 8,
        "env.per_gpu_batch_size": 4,
        "optim.max_epochs": 2,
        "optim.lr": 0.02,
        "optim.peft": "ia3_lora_bias",
        "optim.skip_final_val": True,
        "optim.val_check_interval": 1000.0,
    }
)
"""Three steps an epoch, six in all."""


def model_for(model_type: str = "bert", *, dropout: bool = True) -> MultiModalModel:
    model = tiny_model(model_type)
    if not dropout:
        model.encoder.disable_dropout()
    apply_adapters(model, CONFIG.optim, seed=0)
    return model


class Explosive(torch.autograd.Function):
    """The identity, whose backward pass raises."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, error: Exception) -> torch.Tensor:
        ctx.error = error
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        raise again(ctx.error)


def again(error: Exception) -> Exception:
    """A new one, since an error that was raised holds everything that was there."""
    return type(error)(*error.args)


class Run:
    """One training and what happened in it."""

    def __init__(self, model: MultiModalModel, fails: Fails, error: Exception, *, backward: bool):
        self.model, self.fails, self.error, self.backward = model, fails, error, backward
        self.reports: list[StepReport] = []
        self.forwards: list[tuple[int, int]] = []
        """Step and tokens of each forward."""
        self._forward = model.forward
        self._failed: weakref.ref | None = None
        model.forward = self.forward  # type: ignore[method-assign]

    def tokens(self, batch: Batch) -> int:
        packs = self.model.encoder.family.packs
        return int(batch.attention_mask.sum() if packs else batch.input_ids.numel())

    def forward(self, batch: Batch) -> torch.Tensor:
        if self._failed is not None:
            assert self._failed() is None, "what an attempt has computed is there when the next one begins"
        step, tokens = len(self.reports) + 1, self.tokens(batch)
        self.forwards.append((step, tokens))
        out = self._forward(batch)  # random numbers are drawn before memory runs out
        if not self.fails(step, sum(one == step for one, _ in self.forwards), tokens):
            return out
        self._failed = weakref.ref(out)
        if self.backward:
            return Explosive.apply(out, self.error)
        raise again(self.error)

    def train(self) -> dict[str, torch.Tensor]:
        """The trained weights."""
        torch.manual_seed(0)
        plan = loop.make_plan(len(DATA), CONFIG)
        for report in loop.train(
            self.model, DATA, plan, CONFIG,
            objective=OBJECTIVE, pad_id=0, longest=LONGEST, device=CPU, evaluate=lambda: 0.0, seed=0,
        ):  # fmt: skip
            self.reports.append(report)
        return {name: p.detach().clone() for name, p in self.model.named_parameters() if p.requires_grad}


def never(step: int, forward: int, tokens: int) -> bool:
    return False


def undisturbed(model: MultiModalModel) -> Run:
    return Run(model, never, MemoryError(), backward=False)


@contextmanager
def halvings() -> Iterator[list[int]]:
    """Tokens per forward after each warning."""
    found: list[int] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
    for one in caught:
        text = str(one.message)
        matched = re.search(r"at most (\d+) tokens per forward", text)
        assert matched and "A smaller env.per_gpu_batch_size (it is 4)" in text, text
        found.append(int(matched[1]))


@pytest.fixture
def smaller_from(monkeypatch) -> Callable[[int, int], None]:
    """Makes the loop's micro-batches smaller from a step on, with no error."""
    original = loop._steps

    def change(first: int, tokens: int) -> None:
        def steps(*given: Any) -> Iterator[tuple[int, list[Batch]]]:
            for step, (epoch, batches) in enumerate(original(*given), start=1):
                rows = torch.cat([batch.rows for batch in batches]).numpy()
                parts = cut_evenly(rows, DATA.rows.lengths, tokens, padded=given[-1].padded)
                anew = [collate(DATA.rows, part, 0, DATA.labels, DATA.weights) for part in parts]
                yield epoch, anew if step >= first else batches

        monkeypatch.setattr(loop, "_steps", steps)

    return change


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("error", NO_MEMORY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("model_type", ["bert", "mpnet"])
def test_a_step_is_done_again_from_its_start(model_type, backward, error, smaller_from):
    """Bit by bit what smaller micro-batches from that step on give; with dropout, so random numbers are the same too."""

    def second(step: int, forward: int, tokens: int) -> bool:
        return step == FAILING and forward == 2  # the first has left gradients

    disturbed = Run(model_for(model_type), second, error, backward=backward)
    with halvings() as limits:
        weights = disturbed.train()
    sizes = [tokens for step, tokens in disturbed.forwards if step == FAILING]
    assert limits == [min(TOKENS, sizes[1]) // 2]
    assert [report.step for report in disturbed.reports] == [1, 2, 3, 4, 5, 6]
    later = [tokens for step, tokens in disturbed.forwards if step > FAILING]
    assert all(tokens <= max(limits[0], LONGEST) for tokens in [*sizes[2:], *later])
    assert disturbed.reports[-1].rows == 2 * len(DATA)

    smaller_from(FAILING, limits[0])
    reference = undisturbed(model_for(model_type))
    expected = reference.train()
    assert [report.loss for report in disturbed.reports] == [report.loss for report in reference.reports]
    assert equal(weights, expected)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("model_type", ["bert", "mpnet"])
def test_the_loss_curve_does_not_show_it(model_type, backward):
    plain, disturbed = (
        Run(model_for(model_type, dropout=False), fails, torch.OutOfMemoryError(), backward=backward)
        for fails in (never, lambda step, forward, tokens: step >= FAILING and tokens > 20)
    )
    expected = plain.train()
    with halvings() as limits:
        weights = disturbed.train()
    assert limits and limits[-1] <= 20
    assert [r.loss for r in disturbed.reports] == pytest.approx([r.loss for r in plain.reports], rel=1e-4)
    assert len({round(report.loss, 3) for report in plain.reports}) == 6  # there is a curve
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_the_limit_falls_as_often_as_it_takes(backward, smaller_from):
    def short(step: int, forward: int, tokens: int) -> bool:
        return step >= FAILING and tokens > 11

    disturbed = Run(model_for(), short, torch.OutOfMemoryError(), backward=backward)
    with halvings() as limits:
        weights = disturbed.train()
    assert len(limits) >= 2 and limits == sorted(limits, reverse=True) and limits[-1] <= 11
    assert all(after <= before // 2 for before, after in zip([TOKENS, *limits], limits, strict=False))
    smaller_from(FAILING, limits[-1])
    assert equal(weights, undisturbed(model_for()).train())


def test_in_the_first_step(smaller_from):
    disturbed = Run(model_for(), lambda step, forward, tokens: tokens > 30, torch.OutOfMemoryError(), backward=True)
    with halvings() as limits:
        weights = disturbed.train()
    assert len(limits) == 1
    smaller_from(1, limits[0])
    assert equal(weights, undisturbed(model_for()).train())


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_a_single_row_that_does_not_fit(backward):
    run = Run(
        model_for(), lambda step, forward, tokens: step >= FAILING, torch.OutOfMemoryError("2 GiB"), backward=backward
    )
    message = (
        rf"Step {FAILING}: memory does not suffice for a single row, of \d+ tokens\..*gradient_checkpointing=True"
        r".*max_text_len \(it is 512\).*env\.precision='bf16' \(it is 'auto'\)"
    )
    with halvings() as limits, pytest.raises(TrainingError, match=message):
        run.train()
    assert limits and len(run.reports) == FAILING - 1


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("no")], ids=["runtime", "value"])
def test_other_errors_are_not_touched(error, backward):
    run = Run(model_for(), lambda step, forward, tokens: step == FAILING, error, backward=backward)
    with halvings() as limits, pytest.raises(type(error), match=str(error)):
        run.train()
    assert limits == [] and len([step for step, _ in run.forwards if step == FAILING]) == 1


def test_while_a_layer_is_recomputed(smaller_from):
    """The error comes from inside the backward pass of a checkpointed layer."""
    model = model_for()
    model.encoder.enable_gradient_checkpointing()
    run = undisturbed(model)
    calls: list[int] = []
    inner = next(iter(model.encoder.layers().values())).get_submodule("output.dense")

    def hook(*_: Any) -> None:
        step = len(run.reports) + 1
        calls.append(step)
        if step == FAILING and calls.count(FAILING) == 2:  # once for the forward, once for the backward
            raise torch.OutOfMemoryError("2 GiB")

    handle = inner.register_forward_pre_hook(hook)
    with halvings() as limits:
        weights = run.train()
    assert len(limits) == 1
    handle.remove()
    smaller_from(FAILING, limits[0])
    assert equal(weights, undisturbed(model_for()).train())


def test_real_errors_are_known():
    with pytest.raises(RuntimeError) as torchs:
        torch.empty(2**50, dtype=torch.uint8)
    with pytest.raises(MemoryError) as numpys:
        np.empty(2**60, dtype=np.uint8)
    assert is_out_of_memory(torchs.value) and is_out_of_memory(numpys.value)
    assert is_out_of_memory(torch.cuda.OutOfMemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("DefaultCPUAllocator: can't allocate memory"))
