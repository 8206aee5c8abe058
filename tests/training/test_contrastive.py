"""The start with few labels: its loss against the paper's sums, its batches, and gradients in one piece and in several."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import tiny_model
from torch import nn

from featherfit.adapters.apply import apply_adapters
from featherfit.config.dotted import build_config
from featherfit.data.batch import collate
from featherfit.data.dataset import Dataset
from featherfit.data.processors.text import TokenizedRows
from featherfit.errors import TrainingError
from featherfit.models.build import MultiModalModel
from featherfit.training import contrastive
from featherfit.training.contrastive import (
    Objective,
    accumulate,
    balanced_batches,
    contrast,
    contrastive_loss,
    is_few,
    steps_for,
)
from featherfit.training.device import Device
from featherfit.types import Batch, StepReport

CPU = Device(torch.device("cpu"), "no")
LONGEST = 12
CONFIG = build_config({"optim.peft": "ia3_lora_bias", "optim.lr": 0.02})


def dataset(rows: int = 18, classes: int = 3) -> Dataset:
    random = np.random.default_rng(0)
    lengths = random.integers(3, LONGEST, size=rows)
    ids = [random.integers(4, 50, size=length).astype(np.int32) for length in lengths]
    labels = (random.permutation(rows) % classes).astype(np.int64)
    return Dataset(TokenizedRows(ids, None, lengths.astype(np.int64), 0), labels, None, pd.RangeIndex(rows))


DATA = dataset()


def model_for(*, dropout: bool = False) -> MultiModalModel:
    model = tiny_model("bert", outputs=3)
    if not dropout:
        model.encoder.disable_dropout()
    apply_adapters(model, CONFIG.optim, seed=0)
    return model


def run(model: MultiModalModel, data: Dataset = DATA, seed: int = 0) -> list[StepReport]:
    return list(contrast(model, data, CONFIG, pad_id=0, longest=LONGEST, device=CPU, seed=seed))


def by_the_sums(embeddings: np.ndarray, labels: list[int], temperature: float) -> float:
    """Equation 2 of arXiv 2004.11362, sum by sum."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    of_rows = []
    for i, own in enumerate(labels):
        alike = [p for p, label in enumerate(labels) if label == own and p != i]
        if alike:
            below = sum(math.exp(unit[i] @ unit[a] / temperature) for a in range(len(labels)) if a != i)
            shares = [math.log(math.exp(unit[i] @ unit[p] / temperature) / below) for p in alike]
            of_rows.append(-sum(shares) / len(alike))
    return sum(of_rows) / len(of_rows)


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2, 2], [0, 1, 0, 2, 0, 1], [0, 0, 0, 1, 1, 1]])
@pytest.mark.parametrize("temperature", [0.1, 0.7])
def test_loss_is_the_papers(labels, temperature):
    embeddings = np.random.default_rng(0).normal(size=(6, 5))
    loss = contrastive_loss(torch.from_numpy(embeddings), torch.tensor(labels), temperature)
    assert float(loss) == pytest.approx(by_the_sums(embeddings, labels, temperature), rel=1e-12)


def test_loss_at_its_least():
    """Rows of a class on one point, classes at right angles: each row has one like it, at cosine 1, and two at 0."""
    embeddings = torch.tensor([[2.0, 0.0], [3.0, 0.0], [0.0, 1.0], [0.0, 5.0]])
    loss = contrastive_loss(embeddings, torch.tensor([0, 0, 1, 1]), 0.5)
    assert float(loss) == pytest.approx(math.log(1 + 2 * math.exp(-2)), rel=1e-6)


def test_loss_without_pairs_is_nothing():
    embeddings = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = contrastive_loss(embeddings, torch.tensor([0, 1, 2]))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert embeddings.grad is not None and not embeddings.grad.any()


def test_batches_are_balanced_and_come_round():
    labels = np.array([0] * 50 + [1] * 12 + [2] * 3)
    batches = list(balanced_batches(labels, 24, 30, seed=0))
    counts = np.zeros(len(labels), dtype=int)
    for rows in batches:
        assert len(set(rows.tolist())) == len(rows)
        assert np.bincount(labels[rows]).tolist() == [8, 8, 3]  # a third of 24 each; a class of three gives all it has
        counts[rows] += 1
    for kind, times in ((0, 30 * 8 / 50), (1, 30 * 8 / 12), (2, 30.0)):
        of_class = counts[labels == kind]
        assert set(of_class.tolist()) <= {math.floor(times), math.ceil(times)}


def test_many_classes_take_turns_in_twos():
    labels = np.repeat(np.arange(20), 5)
    batches = list(balanced_batches(labels, 16, 10, seed=0))
    for rows in batches:
        assert sorted(np.bincount(labels[rows], minlength=20).tolist()) == [0] * 12 + [2] * 8
    assert np.bincount(labels[np.concatenate(batches)], minlength=20).tolist() == [8] * 20


def test_batches_depend_on_the_seed_alone():
    labels = np.arange(40) % 2
    one, again, other = ([rows.tolist() for rows in balanced_batches(labels, 8, 5, seed)] for seed in (3, 3, 4))
    assert one == again
    assert one != other


@pytest.mark.parametrize(("rows", "few"), [(128, True), (129, False)])
def test_what_is_few(rows, few):
    assert is_few(np.arange(rows) % 2) is few


@pytest.mark.parametrize(
    ("rows", "classes", "steps"),
    [(2, 2, 40), (71, 2, 40), (102, 2, 57), (90, 7, 51), (240, 15, 64), (358, 7, 200), (10**6, 2, 200)],
)
def test_steps_grow_with_the_rows_of_a_class_and_come_by_each_eighteen_times_at_most(rows, classes, steps):
    assert steps_for(np.arange(rows) % classes) == steps


def test_objective_is_half_a_classifiers_cross_entropy():
    """Against the sums of both: the logits are those of embeddings brought to a length of 8."""
    torch.manual_seed(0)
    embeddings, labels = torch.randn(6, 5) * 3, torch.tensor([0, 1, 2, 0, 1, 1])
    objective = Objective(5, 3)
    with torch.no_grad():
        objective.classifier.weight.normal_()
        objective.classifier.bias.normal_()
    directions = 8 * embeddings / embeddings.norm(dim=1, keepdim=True)
    logits = (directions @ objective.classifier.weight.T + objective.classifier.bias).detach().numpy()
    entropy = np.mean([math.log(sum(map(math.exp, row))) - row[own] for row, own in zip(logits, labels, strict=True)])
    expected = (by_the_sums(embeddings.numpy(), labels.tolist(), contrastive.TEMPERATURE) + entropy) / 2
    assert objective(embeddings, labels).item() == pytest.approx(expected, rel=1e-5)


def test_the_classifier_begins_without_a_say_and_draws_nothing():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    objective = Objective(5, 3)
    assert torch.equal(torch.rand(1), expected) and not any(p.any() for p in objective.parameters())


def gradients(model: MultiModalModel, batches: list[Batch]) -> tuple[float, dict[str, torch.Tensor]]:
    """Of the model and of a classifier that has learned something."""
    model.train()
    torch.manual_seed(0)
    objective = Objective(model.out_dim, 3)
    for parameter in objective.parameters():
        nn.init.normal_(parameter)
    loss = accumulate(model, objective, batches, CPU.accelerator(), CPU)
    named = [*model.named_parameters(), *objective.named_parameters()]
    return loss, {name: p.grad for name, p in named if p.grad is not None}


def batch(rows: list[int]) -> Batch:
    return collate(DATA.rows, rows, 0, DATA.labels)


def test_gradients_do_not_depend_on_the_pieces():
    whole, of_whole = gradients(model_for(), [batch(list(range(12)))])
    parts, of_parts = gradients(model_for(), [batch([0, 1, 2, 3, 4]), batch([5]), batch([6, 7, 8, 9, 10, 11])])
    assert parts == pytest.approx(whole, rel=1e-5)
    assert of_parts.keys() == of_whole.keys()
    assert {"classifier.weight", "classifier.bias"} < of_whole.keys()
    assert not any(name.startswith("head") for name in of_whole)
    for name, gradient in of_whole.items():
        torch.testing.assert_close(of_parts[name], gradient, rtol=1e-3, atol=1e-6)


def test_pieces_draw_the_same_dropout_twice():
    """The embeddings that the loss was of are those that its gradient goes through."""
    model, seen = model_for(dropout=True), []
    embed = model.embed
    model.embed = lambda rows: seen.append(embed(rows)) or seen[-1]  # type: ignore[method-assign]
    gradients(model, [batch([0, 1, 2]), batch([3, 4, 5])])
    first, second, first_again, second_again = seen
    torch.testing.assert_close(first_again, first, rtol=0, atol=0)
    torch.testing.assert_close(second_again, second, rtol=0, atol=0)
    gradients(model, [batch([0, 1, 2])])
    gradients(model, [batch([0, 1, 2]), batch([3])])
    assert not torch.equal(seen[-1], seen[-2])


def test_classes_part_and_the_head_stays():
    model = model_for()
    head = {name: p.detach().clone() for name, p in model.head.named_parameters()}
    reports = run(model)
    assert [report.step for report in reports] == list(range(1, 41)) and reports[0].total_steps == 40
    assert np.mean([report.loss for report in reports[-5:]]) < 0.8 * reports[0].loss
    for name, parameter in model.head.named_parameters():
        assert torch.equal(parameter, head[name])


def test_the_classifier_learns_at_its_own_rate(monkeypatch):
    """That which is told is the adapters'."""
    seen: list[torch.optim.Optimizer] = []
    build = contrastive.build_optimizer
    monkeypatch.setattr(contrastive, "build_optimizer", lambda *args: seen.append(build(*args)) or seen[-1])
    monkeypatch.setattr(contrastive, "WARMUP", 0.0)
    reports = contrast(model_for(), DATA, CONFIG, pad_id=0, longest=LONGEST, device=CPU, seed=0)
    first = next(reports)
    *others, own = seen[0].param_groups
    assert own["lr"] == pytest.approx(contrastive.CLASSIFIER_RATE) and own["weight_decay"] == 0
    assert first.learning_rate == max(group["lr"] for group in others) == pytest.approx(0.3 * 0.02)
    assert any(p.any() for p in own["params"])


def test_same_seed_same_bits():
    one, other, third = model_for(), model_for(), model_for()
    run(one), run(other), run(third, seed=1)
    pairs = [(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True)]
    assert all(torch.equal(p, q) for p, q in pairs)
    assert not all(torch.equal(p, q) for p, q in zip(one.parameters(), third.parameters(), strict=True))


def test_a_loss_that_is_no_number_ends_it(monkeypatch):
    monkeypatch.setattr(contrastive, "accumulate", lambda *args: math.nan)
    with pytest.raises(TrainingError, match=r"became nan at step 1 of the few-label start.*optim\.lr"):
        run(model_for())


def test_short_memory_costs_no_step(monkeypatch):
    """Forwards become smaller, and the losses stay."""
    expected = [report.loss for report in run(model_for())]
    model = model_for()
    embed = model.embed

    def short(rows: Batch) -> torch.Tensor:
        if int(rows.attention_mask.sum()) > 40:
            raise MemoryError
        return embed(rows)

    monkeypatch.setattr(model, "embed", short)
    with pytest.warns(UserWarning, match="memory did not suffice"):
        found = [report.loss for report in run(model)]
    np.testing.assert_allclose(found, expected, rtol=1e-3)
