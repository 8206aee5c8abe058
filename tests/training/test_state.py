"""A loop that goes on from a state ends where one that was never stopped does, to the bit."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import tiny_model

from featherfit.adapters.apply import apply_adapters
from featherfit.config.dotted import build_config
from featherfit.data.dataset import Dataset
from featherfit.data.processors.text import TokenizedRows
from featherfit.errors import ArtifactError
from featherfit.models.build import MultiModalModel
from featherfit.training import keeping, loop
from featherfit.training.device import Device
from featherfit.training.keeping import StateKeeper, read_latest
from featherfit.training.loop import make_plan, train
from featherfit.training.losses import Objective
from featherfit.training.selection import BestStates
from featherfit.types import LoopState, StepReport

CPU = Device(torch.device("cpu"), "no")
OBJECTIVE = Objective("cross_entropy", "multiclass", 3)
BASE = {"env.batch_size": 8, "env.per_gpu_batch_size": 4, "optim.max_epochs": 3, "optim.lr": 0.02}
STEPS = 9
VARIANTS: dict[str, dict[str, Any]] = {
    "adamw": {"optim.peft": "lora_norm", "optim.lora.dropout": 0.3},
    "adam": {"optim.optim_type": "adam", "optim.peft": "ia3", "optim.lr_choice": "two_stages"},
    "sgd": {"optim.optim_type": "sgd", "optim.peft": "dora"},
    "average": {"optim.ema_decay": 0.9, "optim.val_check_interval": 0.5},
    "everything": {"optim.peft": None, "optim.lr": 1e-3},
    "max_steps": {"optim.max_steps": STEPS, "optim.max_epochs": 50, "optim.lr_schedule": "linear_decay"},
}


def table() -> Dataset:
    """20 rows: the last step of an epoch has 4."""
    random = np.random.default_rng(0)
    lengths = random.integers(3, 12, size=20)
    ids = [random.integers(4, 50, size=length).astype(np.int32) for length in lengths]
    labels = (random.permutation(20) % 3).astype(np.int64)
    return Dataset(TokenizedRows(ids, None, lengths.astype(np.int64), 0), labels, None, pd.RangeIndex(20))


DATA = table()


def steps(variant: str, start: LoopState | None = None, seed: int = 0) -> tuple[MultiModalModel, Any]:
    """A model with dropout and its loop. What it scores is what is scored: the average of its weights, where there is one."""
    config = build_config({**BASE, **VARIANTS[variant]})
    model = tiny_model("bert", outputs=3)
    apply_adapters(model, config.optim, seed=0)
    torch.manual_seed(seed)
    return model, train(
        model, DATA, make_plan(len(DATA), config), config, objective=OBJECTIVE, pad_id=0, longest=12, device=CPU,
        evaluate=lambda: float(model.head.linear.weight.detach().double().sum()), seed=0, start=start,
    )  # fmt: skip


def trained(model: MultiModalModel) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def seen(report: StepReport) -> tuple[Any, ...]:
    return report.step, report.epoch, report.loss, report.rows, report.learning_rate, report.score


def kept(report: StepReport) -> LoopState:
    """What a report gives, as it is when written and read again."""
    state = report.state()
    facts = json.loads(json.dumps(state.facts, allow_nan=False))
    return LoopState(facts, {name: tensor.clone() for name, tensor in state.tensors.items()})


@pytest.mark.parametrize("variant", VARIANTS)
def test_goes_on_to_the_same_bits(variant):
    """After every step, in the middle of an epoch, at its end, and while a validation's weights are in."""
    model, whole = steps(variant)
    states, reports = [], []
    for report in whole:
        states.append(kept(report))
        reports.append(seen(report))
    assert len(reports) == STEPS and len({loss for _, _, loss, *_ in reports}) == STEPS
    for place in (0, 2, 3, STEPS - 2):
        other, rest = steps(variant, states[place], seed=5)
        assert [seen(report) for report in rest] == reports[place + 1 :]
        expected, found = trained(model), trained(other)
        assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_taking_a_state_changes_nothing():
    model, reports = steps("average")
    list(reports)
    other, reports = steps("average")
    for report in reports:
        report.state()
    assert all(torch.equal(value, trained(other)[name]) for name, value in trained(model).items())


def test_the_time_before_counts():
    """Reports say how long the run has trained, the part before the interruption included."""
    state = kept(next(steps("adamw")[1]))
    facts = {**state.facts, "seconds": state.facts["seconds"] + 1000}
    assert 1000 < next(steps("adamw", LoopState(facts, state.tensors))[1]).seconds < 1100


@pytest.mark.parametrize("variant", ["adamw", "average"])
def test_a_state_takes_no_memory(variant):
    """Of a whole encoder that trains, a copy would take three times its size, at every state and when a fit ends."""
    _, reports = steps(variant)
    report = next(reports)
    first, second = report.state().tensors, report.state().tensors
    own = {name for name in first if not name.startswith("random/")}
    assert {name.partition("/")[0] for name in own} >= {"weights", "optimizer"}
    assert all(first[name].data_ptr() == second[name].data_ptr() for name in own)


def test_limits_that_fell_when_memory_ran_out(monkeypatch):
    """What was cut at the beginning of the epoch stays cut so, and the rest comes in pieces as small as before."""
    forwards: list[tuple[int, ...]] = []
    accumulate, attempts = loop.accumulate, iter(range(1, 100))

    def spy(model: Any, batches: Any, *rest: Any) -> float:
        if next(attempts) == 5:  # the fifth step, in the second epoch
            from featherfit.training.oom import DoesNotFitError

            raise DoesNotFitError(batches[0])
        forwards.append(tuple(len(batch) for batch in batches))
        return accumulate(model, batches, *rest)

    monkeypatch.setattr(loop, "accumulate", spy)
    model, whole = steps("adamw")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        states = [kept(report) for report in whole]
    sizes, weights = list(forwards), trained(model)
    now, of_epoch = states[4].facts["tokens"][0]
    assert now < of_epoch and states[6].facts["tokens"][0] == [now, now]
    for place in (4, 5, 6):
        forwards.clear()
        other, rest = steps("adamw", states[place])
        limits = [report.state().facts["tokens"] for report in rest]
        assert limits == [state.facts["tokens"] for state in states[place + 1 :]]
        assert forwards == sizes[place + 1 :]
        assert all(torch.equal(weights[name], trained(other)[name]) for name in weights)


def test_a_state_of_another_model_is_refused():
    state = next(steps("adamw")[1]).state()
    with pytest.raises(ArtifactError, match="trained something else"):
        next(steps("sgd", state)[1])


def test_one_of_more_processes_is_refused():
    state = next(steps("adamw")[1]).state()
    with pytest.raises(ArtifactError, match="trained something else"):
        next(steps("adamw", LoopState({**state.facts, "tokens": [[1, 1], [1, 1]]}, state.tensors))[1])


class TestKeeper:
    @pytest.fixture
    def clock(self, monkeypatch) -> list[float]:
        now = [100.0]
        monkeypatch.setattr(keeping.time, "monotonic", lambda: now[0])
        return now

    def test_every_so_many_seconds(self, clock, tmp_path):
        keeper = StateKeeper(tmp_path, 5.0, 10**12)
        assert not keeper.due()
        clock[0] += 4.9
        assert not keeper.due()
        clock[0] += 0.2
        assert keeper.due()

    def test_after_every_step(self, clock, tmp_path):
        assert StateKeeper(tmp_path, 0, 1).due()

    @pytest.mark.parametrize(("size", "seconds"), [(10**6, 60.0), (5 * 10**9, 1000.0)])
    def test_auto_is_a_minute_or_a_hundred_times_what_it_takes(self, clock, tmp_path, size, seconds):
        """At 0.5 GB/s, until one has been written."""
        keeper = StateKeeper(tmp_path, "auto", size)
        clock[0] += seconds - 0.1
        assert not keeper.due()
        clock[0] += 0.2
        assert keeper.due()

    def test_then_it_is_what_the_last_one_took(self, clock, tmp_path, monkeypatch):
        keeper, best = StateKeeper(tmp_path, "auto", 1), BestStates(tmp_path, 1, True)
        monkeypatch.setattr(keeping, "write_tensors_whole", self.slow(clock, 3.0))
        keeper.write(LoopState({"step": 1}, {}), best, 0.0, None)
        assert keeper.seconds == 3.0
        clock[0] += 299
        assert not keeper.due()
        clock[0] += 1.1
        assert keeper.due()

    @staticmethod
    def slow(clock: list[float], seconds: float) -> Any:
        def write(file: Path, tensors: Any) -> None:
            file.write_bytes(b"")
            clock[0] += seconds

        return write

    def test_best_weights_stay_as_long_as_a_state_refers_to_them(self, tmp_path):
        model, keeper, best = torch.nn.Linear(1, 1), StateKeeper(tmp_path, 0, 1), BestStates(tmp_path, 1, True)
        for step, score in enumerate((0.1, 0.2, 0.2, 0.3, float("nan")), start=1):
            best.add(score, step, model)
            keeper.write(LoopState({"step": step}, {"a": torch.zeros(1)}), best, float(step), None)
            names = sorted(file.name for file in tmp_path.glob("step-*"))
            assert (
                names
                == {
                    1: ["step-000001.safetensors"],
                    2: ["step-000001.safetensors", "step-000002.safetensors"],
                    3: ["step-000002.safetensors"],
                    4: ["step-000002.safetensors", "step-000004.safetensors"],
                    5: ["step-000004.safetensors"],
                }[step]
            )
        saved = read_latest(tmp_path)
        assert saved is not None and saved.loop.facts["step"] == 5 and saved.checks_since_best == 1
        assert [(kept.score, kept.step) for kept in saved.best] == [(0.3, 4)] and saved.elapsed == 5.0

    def test_scores_that_json_has_not(self, tmp_path):
        keeper, best = StateKeeper(tmp_path, 0, 1), BestStates(tmp_path, 3, False)
        for step, score in enumerate((float("inf"), float("nan"), 0.1 + 0.2), start=1):
            best.add(score, step, torch.nn.Linear(1, 1))
        keeper.write(LoopState({"step": 3}, {"a": torch.zeros(1)}), best, 0.0, "all epochs done")
        saved = read_latest(tmp_path)
        assert saved is not None and saved.ended == "all epochs done"
        assert [str(kept.score) for kept in saved.best] == ["0.30000000000000004", "inf", "nan"]

    def test_a_number_that_was_changed_is_noticed(self, tmp_path):
        keeper, best = StateKeeper(tmp_path, 0, 1), BestStates(tmp_path, 1, True)
        keeper.write(LoopState({"step": 1}, {"a": torch.zeros(1)}), best, 0.0, None)
        file = tmp_path / "state-000001.json"
        file.write_text(file.read_text().replace('"checks_since_best": 0', '"checks_since_best": 9'))
        with pytest.raises(ArtifactError, match="its checksum is not the recorded one"):
            read_latest(tmp_path)

    def test_a_state_cannot_point_out_of_its_folder(self, tmp_path):
        folder, secret = tmp_path / "training", tmp_path / "secret.safetensors"
        folder.mkdir()
        keeper, best = StateKeeper(folder, 0, 1), BestStates(folder, 1, True)
        best.add(0.5, 1, torch.nn.Linear(1, 1))
        keeper.write(LoopState({"step": 1}, {"a": torch.zeros(1)}), best, 0.0, None)
        (folder / "step-000001.safetensors").rename(secret)
        file = folder / "state-000001.json"
        state = json.loads(file.read_text())["state"]
        state["best"][0][2] = "../secret.safetensors"
        file.write_text(json.dumps({"sha256": keeping._digest_of(state), "state": state}))
        with pytest.raises(ArtifactError, match="is missing"):
            read_latest(folder)
