"""A model and a few labelled rows go in; the same model, whose embeddings of one class lie together, comes out.

With few rows a head has little to go by, but pairs of rows are many. SetFit (Tunstall et al. 2022, arXiv 2209.11055) trains
the encoder on them first and fits a head to it then. Here every step compares all rows of a batch with each other, by the
supervised contrastive loss (Khosla et al. 2020, arXiv 2004.11362, equation 2); the other half of the loss is the cross-entropy of
a classifier of their directions (Gunel et al. 2021, arXiv 2011.01403, add the two up so), which is then thrown away. What trains
is what trains anyway: the adapters, or the whole encoder without any.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from featherfit.config.schema import Config
from featherfit.data.batch import collate, cut_evenly
from featherfit.data.dataset import Dataset
from featherfit.errors import TrainingError
from featherfit.memory import released_now_and_then
from featherfit.models.build import MultiModalModel
from featherfit.training.device import Device
from featherfit.training.loop import clip, token_limit, whatever_fits
from featherfit.training.oom import fits, rewinding
from featherfit.training.optim import build_optimizer, schedule
from featherfit.types import Batch, StepReport

if TYPE_CHECKING:
    from accelerate import Accelerator

ROWS = 32
"""Rows of a step of the start."""
STEPS, PER_ROW_OF_A_CLASS, VISITS = (40, 200), 4, 18
"""Fewest and most steps; how many there are for each row that a class has, on average; and how often these may come by a row.

40 steps were too few for 64 rows of each of seven topics, where 200 carry over better by 1.5 points, and 135 too many for 20 rows of
each of fifteen intents, where 40 do by 4 points: docs/recipes.md.
"""
TEMPERATURE = 0.05
RATE = 0.3
"""Of the method's learning rate."""
CLASSIFIER_RATE, LENGTH = 1e-2, 8.0
"""The classifier's learning rate, at its highest; and how long the directions are that it reads, so that its logits spread."""
WARMUP = 0.1
MOST_ROWS_A_CLASS = 64
"""Training rows a class, on average, up to which `optim.few_shot=auto` starts so."""


def is_few(labels: np.ndarray) -> bool:
    """Whether labels (rows,) are so few that `auto` starts with this: at most `MOST_ROWS_A_CLASS` a class on average."""
    return len(labels) <= MOST_ROWS_A_CLASS * len(np.unique(labels))


def steps_for(labels: np.ndarray) -> int:
    """Steps of the start where labels (rows,) are these."""
    wanted = min(PER_ROW_OF_A_CLASS * len(labels) / len(np.unique(labels)), VISITS * len(labels) / ROWS)
    fewest, most = STEPS
    return min(max(round(wanted), fewest), most)


def balanced_batches(labels: np.ndarray, rows: int, steps: int, seed: int) -> Iterator[np.ndarray]:
    """Positions of the rows of every step: of each class as many, as far as it has them, and no row twice.

    A class goes through its rows in a random order and begins again, in another one, when they are used up. Where there are
    more classes than half the rows of a step, each step takes some of them, two rows of each, likewise in turn.

    Args:
        labels: Class ids, (rows,).
        rows: About how many there are to be in a step: that, or up to one more for each class.
        steps: How many steps.
        seed: Decides everything that is random.
    """
    random = np.random.default_rng([seed, 1])
    classes = np.unique(labels)
    turns = {kind: _Turns(np.flatnonzero(labels == kind), random) for kind in classes.tolist()}
    kinds = _Turns(classes, random)
    at_once = min(len(classes), max(2, rows // 2))
    each = -(-rows // at_once)
    for _ in range(steps):
        yield np.concatenate([turns[kind].take(each) for kind in kinds.take(at_once).tolist()])


class _Turns:
    """Goes round and round through some values, in another random order each time."""

    def __init__(self, values: np.ndarray, random: np.random.Generator):
        self._values, self._random = values, random
        self._left = random.permutation(values)

    def take(self, count: int) -> np.ndarray:
        """The next `count` values, or all if there are fewer; none twice."""
        count = min(count, len(self._values))
        if len(self._left) >= count:
            taken, self._left = np.split(self._left, [count])
            return taken
        again = self._random.permutation(self._values)
        fresh = again[~np.isin(again, self._left)][: count - len(self._left)]
        taken = np.concatenate([self._left, fresh])
        self._left = again[~np.isin(again, fresh)]
        return taken


def contrastive_loss(embeddings: torch.Tensor, labels: torch.Tensor, temperature: float = TEMPERATURE) -> torch.Tensor:
    """Supervised contrastive loss of a batch, a number: equation 2 (L_out) of arXiv 2004.11362, over cosines.

    For row i, with P(i) the other rows of its class: the mean over p in P(i) of -log(exp(c_ip / t) / sum over a != i of
    exp(c_ia / t)); and of that the mean over all rows whose class has another row in the batch.

    Args:
        embeddings: (B, D) float32.
        labels: Class ids, (B,).
        temperature: t, above 0.

    Returns:
        The loss; 0 if no class has two rows.
    """
    unit = functional.normalize(embeddings, dim=1)
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    alike = (labels[:, None] == labels[None, :]) & ~itself
    scores = (unit @ unit.T / temperature).masked_fill(itself, -torch.inf)
    log_share = (scores - scores.logsumexp(dim=1, keepdim=True)).masked_fill(~alike, 0.0)
    others = alike.sum(dim=1)
    of_row = -log_share.sum(dim=1) / others.clamp(min=1)
    return of_row.sum() / (others > 0).sum().clamp(min=1)


class Objective(nn.Module):
    """The loss of embeddings and their labels, half of it a classifier's that learns along with them."""

    def __init__(self, width: int, classes: int):
        """Takes the width D of an embedding; the classifier begins at zero and so sends no noise into the encoder."""
        super().__init__()
        self.classifier = nn.utils.skip_init(nn.Linear, width, classes)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The mean of `contrastive_loss` and the classifier's cross-entropy, a number; arguments as for the former."""
        logits = self.classifier(LENGTH * functional.normalize(embeddings, dim=1))
        return (contrastive_loss(embeddings, labels) + functional.cross_entropy(logits, labels)) / 2


def contrast(
    model: MultiModalModel, dataset: Dataset, config: Config, *, pad_id: int, longest: int, device: Device, seed: int
) -> Iterator[StepReport]:
    """Trains the encoder in place, one optimiser step per report; the head is left alone.

    The result depends on the rows and the seed alone. All ranks compute the same, since a step has few rows and its loss
    needs all of them; none has a part of it to send.

    Args:
        model: On `device` already, adapters in place.
        dataset: Rows with class ids, at least two classes.
        config: `optim` and `env` are read: what a step of the ordinary training does with gradients, this does too.
        pad_id: Token to pad batches with.
        longest: Most tokens a row may have.
        device: Where to compute and in what arithmetic.
        seed: Decides which rows are compared.

    Raises:
        TrainingError: The loss is not a finite number any more, or memory does not suffice for a single row.
    """
    assert dataset.labels is not None
    accelerator = device.accelerator()
    objective = Objective(model.out_dim, model.outputs).to(device.place)
    optimizer = build_optimizer(model, config)
    optimizer.add_param_group(
        {"params": list(objective.parameters()), "lr": CLASSIFIER_RATE / RATE, "weight_decay": 0.0}
    )
    optimizer = accelerator.prepare_optimizer(optimizer, device_placement=False)
    total = steps_for(dataset.labels)
    shape = schedule(config.optim.lr_schedule, total, round(WARMUP * total), 0.0)
    rates = [RATE * group["lr"] for group in optimizer.param_groups]
    parameters = [parameter for parameter in model.text.parameters() if parameter.requires_grad]
    limit = token_limit(model, dataset, config, pad_id=pad_id, longest=longest, device=device)
    device.ranks.begin(parameters, dataset)
    began, done = time.monotonic(), 0

    def gradients(batches: list[Batch]) -> float:
        return accumulate(model, objective, limit.within(batches), accelerator, device)

    steps = balanced_batches(dataset.labels, ROWS, total, seed)
    for step, rows in enumerate(released_now_and_then(steps), start=1):
        model.train()
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * shape(step - 1)
        parts = cut_evenly(
            rows[np.argsort(-dataset.rows.lengths[rows], kind="stable")],
            dataset.rows.lengths,
            limit.tokens,
            padded=limit.padded,
        )
        batches = [collate(dataset.rows, part, pad_id, dataset.labels) for part in parts]
        with device.training_attention(model):
            loss = whatever_fits(gradients, batches, limit, optimizer, device, step, config)
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss became {loss} at step {step} of the few-label start. Likely: a learning rate that is too high "
                f"(optim.lr is {config.learning_rate():g}; try a third of it), or optim.few_shot='off' to start without it."
            )
        clip(accelerator, parameters, config.optim)
        optimizer.step()
        optimizer.zero_grad()
        done += len(rows)
        yield StepReport(
            step=step, total_steps=total, epoch=1, loss=loss, rows=done, seconds=time.monotonic() - began,
            learning_rate=max(group["lr"] for group in optimizer.param_groups[:-1]),
        )  # fmt: skip
    device.ranks.same_weights(parameters)


def accumulate(
    model: MultiModalModel, objective: Objective, batches: list[Batch], accelerator: Accelerator, device: Device
) -> float:
    """Gradients of the loss over the rows of all batches together; returns that loss.

    Of several batches the embeddings come first, without gradients; then each is computed again and gets its part of the
    loss's gradient (Gao et al. 2021, arXiv 2101.06983). So no more memory is needed than for the largest of them.

    Args:
        model: In training mode, on the accelerator's device.
        objective: The loss, whose classifier gets its gradients, too.
        batches: With labels.
        accelerator: From `Device.accelerator`.
        device: Whose random numbers a second forward takes again.
    """

    def embed(batch: Batch) -> torch.Tensor:
        with accelerator.autocast():
            return model.embed(batch.to(accelerator.device)).float()

    labels = torch.cat([batch.labels for batch in batches if batch.labels is not None]).to(accelerator.device)
    if len(batches) == 1:
        with fits(batches[0]):
            loss = objective(embed(batches[0]), labels)
            accelerator.backward(loss)
            return float(loss.detach())
    kept: list[torch.Tensor] = []
    rewinds: list[Callable[[], None]] = []
    for batch in batches:
        rewinds.append(rewinding(device.place))
        with fits(batch), torch.no_grad():
            kept.append(embed(batch))
    embeddings = torch.cat(kept).requires_grad_(True)
    loss = objective(embeddings, labels)
    own = list(objective.parameters())
    gradient, *of_own = torch.autograd.grad(loss, [embeddings, *own])
    accelerator.backward(sum((one * its).sum() for one, its in zip(own, of_own, strict=True)))
    for batch, rewind, part in zip(batches, rewinds, gradient.split([len(batch) for batch in batches]), strict=True):
        rewind()
        with fits(batch):
            accelerator.backward((embed(batch) * part).sum())
    return float(loss.detach())
