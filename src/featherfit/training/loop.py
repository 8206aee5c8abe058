"""A model and a dataset go in; a `StepReport` comes out after every optimiser step.

The loop knows no progress bars, clocks, files or stopping rules: whoever iterates over it does those.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from featherfit.config.schema import Config, OptimConfig
from featherfit.data.batch import collate, load_batches, training_batches
from featherfit.data.dataset import Dataset
from featherfit.data.messages import some
from featherfit.errors import TrainingError
from featherfit.memory import released_now_and_then
from featherfit.models.build import MultiModalModel
from featherfit.training.average import WeightAverage
from featherfit.training.device import Device
from featherfit.training.losses import Objective, row_losses
from featherfit.training.mixing import Mixing, mixed_losses
from featherfit.training.oom import TokenLimit, fits, rewinding, until_it_fits
from featherfit.training.optim import build_optimizer, schedule, warmup_steps
from featherfit.training.ranks import Ranks
from featherfit.training.state import Progress
from featherfit.types import Batch, LoopState, StepReport

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Plan:
    """How many steps there will be and after which of them the model is validated (1 is the first)."""

    steps_per_epoch: int
    total_steps: int
    validations: frozenset[int]

    @property
    def epochs(self) -> float:
        """How often every row is trained on, the last time perhaps in part."""
        return self.total_steps / self.steps_per_epoch


def make_plan(rows: int, config: Config) -> Plan:
    """Counts steps and places validations.

    A fraction of `optim.val_check_interval` divides every `check_val_every_n_epoch`-th epoch, 1 stands for its end, a
    number above 1 counts steps. The last step is validated too unless `skip_final_val`.
    """
    optim = config.optim
    per_epoch = math.ceil(rows / config.rows_per_step(rows))
    total = per_epoch * optim.max_epochs
    if optim.max_steps > 0:
        total = min(total, optim.max_steps)
    interval = optim.val_check_interval
    due: set[int] = set()
    if interval > 1:
        due = set(range(round(interval), total + 1, round(interval)))
    else:
        checks = max(1, int(1 / interval + 1e-9))
        within = {max(1, round(k * interval * per_epoch)) for k in range(1, checks + 1)}
        for epoch in range(math.ceil(total / per_epoch)):
            if (epoch + 1) % optim.check_val_every_n_epoch == 0:
                due |= {epoch * per_epoch + step for step in within}
    if not optim.skip_final_val:
        due.add(total)
    return Plan(per_epoch, total, frozenset(step for step in due if step <= total))


def train(
    model: MultiModalModel,
    dataset: Dataset,
    plan: Plan,
    config: Config,
    *,
    objective: Objective,
    pad_id: int,
    longest: int,
    device: Device,
    evaluate: Callable[[], float],
    seed: int,
    start: LoopState | None = None,
) -> Iterator[StepReport]:
    """Trains in place, one optimiser step per report.

    While a report with a score is out, the model holds the weights that were scored: the running average, where
    `optim.ema_decay` asks for one. A step that memory does not suffice for is done again in smaller forwards. Ranks share
    the rows of every step and end it with the same gradients, so their weights stay the same.

    Args:
        model: On `device` already, adapters in place.
        dataset: Rows with labels.
        plan: From `make_plan`.
        config: `optim` and `env` are read.
        objective: The loss.
        pad_id: Token to pad batches with.
        longest: Most tokens a row may have.
        device: Where to compute and in what arithmetic.
        evaluate: Scores the model as it is; called after the steps the plan names, in evaluation mode.
        seed: Decides the order of rows.
        start: What a report of the same run gave as its state, to take the steps that were left then.

    Raises:
        TrainingError: The loss is not a finite number any more, or memory does not suffice for a single row.
        ArtifactError: `start` is of another run.
    """
    optim = config.optim
    accelerator, ranks = device.accelerator(), device.ranks
    optimizer = accelerator.prepare_optimizer(build_optimizer(model, config), device_placement=False)
    shape = schedule(
        optim.lr_schedule,
        plan.total_steps,
        warmup_steps(optim.warmup_steps, plan.total_steps),
        optim.end_lr / config.learning_rate(),
    )
    base_rates = [group["lr"] for group in optimizer.param_groups]
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    average = WeightAverage(parameters, optim.ema_decay)
    limit = token_limit(model, dataset, config, pad_id=pad_id, longest=longest, device=device)
    ranks.begin(parameters, dataset)
    progress = Progress(model, optimizer, average, limit, accelerator, device)
    if start is not None:
        progress.restore(start)
    steps = _steps(dataset, config, plan, pad_id, seed, ranks, progress.step, limit)

    gradients = partial(_gradients, model, limit, accelerator, objective, config)
    for step, (epoch, micro_batches) in enumerate(released_now_and_then(steps), start=progress.step + 1):
        model.train()
        for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
            group["lr"] = rate * shape(step - 1)
        with device.training_attention(model):
            loss = whatever_fits(partial(gradients, epoch), micro_batches, limit, optimizer, device, step, config)
        loss, rows = ranks.sum_step(parameters, loss, micro_batches)
        progress.step, progress.rows = step, progress.rows + rows
        if not math.isfinite(loss):
            raise _diverged(model, micro_batches, dataset, device, config, f"{loss} at step {step} (epoch {epoch})")
        clip(accelerator, parameters, optim)
        optimizer.step()
        optimizer.zero_grad()
        average.update()
        validated = step in plan.validations
        if validated:
            average.swap()
            model.eval()
        yield StepReport(
            step=step,
            total_steps=plan.total_steps,
            epoch=epoch,
            loss=loss,
            rows=progress.rows,
            seconds=progress.seconds,
            learning_rate=max(group["lr"] for group in optimizer.param_groups),
            score=evaluate() if validated else None,
            state=progress.state,
        )
        if validated:
            average.swap()


def token_limit(
    model: MultiModalModel, dataset: Dataset, config: Config, *, pad_id: int, longest: int, device: Device
) -> TokenLimit:
    """Most tokens a training forward takes to begin with; arguments as for `train`."""
    return TokenLimit(
        device.tokens_per_forward(config, longest, training=True),
        dataset,
        pad_id,
        padded=model.padded,
        remedy=f"A smaller env.per_gpu_batch_size (it is {config.env.per_gpu_batch_size}) does so from the first step.",
    )


def _steps(
    dataset: Dataset, config: Config, plan: Plan, pad_id: int, seed: int, ranks: Ranks, done: int, limit: TokenLimit
) -> Iterator[tuple[int, list[Batch]]]:
    """(epoch from 1, micro-batches) of every step of the plan but those done; cut by the limit as it is when the epoch begins.

    Rows are as `Dataset.of_epoch` has them.

    Each rank gets its own share of the step's rows, which may be none. Where all have to compute equally often, those with
    less to do get rows of weight 0.
    """

    def of_rank(rank: int, epoch: int, left: int) -> list[list[np.ndarray]]:
        return training_batches(
            dataset.lengths, config.rows_per_step(len(dataset)), limit.of_epoch, padded=limit.padded, seed=seed, epoch=epoch,
            share=rank, shares=ranks.world,
        )[skipped : skipped + left]  # fmt: skip

    whole, left = dataset, plan.total_steps - done
    epoch, skipped = divmod(done, plan.steps_per_epoch)
    while left > 0:
        dataset = whole.of_epoch(epoch)
        limit.use(dataset)
        if not skipped:
            limit.of_epoch = limit.tokens
        steps = of_rank(ranks.rank, epoch, left)
        everyones = [of_rank(rank, epoch, left) for rank in range(ranks.world)] if ranks.sharded else [steps]
        epoch += 1
        skipped = 0
        left -= len(steps)
        batches = load_batches(
            dataset.rows,
            [micro for step in steps for micro in step],
            pad_id,
            dataset.labels,
            dataset.weights,
            workers=config.env.num_workers,
            parts=dataset.parts,
        )
        for step, *all_shares in zip(steps, *everyones, strict=True):
            own = [next(batches) for _ in step]
            idle = max(map(len, all_shares)) - len(own)
            yield epoch, own + [_weightless(dataset, all_shares[0][-1][-1:], pad_id) for _ in range(idle)]


def _gradients(
    model: MultiModalModel,
    limit: TokenLimit,
    accelerator: Accelerator,
    objective: Objective,
    config: Config,
    epoch: int,
    batches: list[Batch],
) -> float:
    """`accumulate` of a step's batches, cut to the limit, with their rows mixed if the settings ask for it in this epoch."""
    mixup = config.data.mixup
    mixing = Mixing(mixup) if mixup.turn_on and epoch <= mixup.turn_off_epoch else None
    return accumulate(model, limit.within(batches), accelerator, objective, mixing)


def _weightless(dataset: Dataset, rows: np.ndarray, pad_id: int) -> Batch:
    """Rows that a rank computes to keep the others company."""
    batch = collate(dataset.rows, rows, pad_id, dataset.labels, parts=dataset.parts)
    return replace(batch, weights=torch.zeros(len(rows)))


def accumulate(
    model: MultiModalModel,
    batches: list[Batch],
    accelerator: Accelerator,
    objective: Objective,
    mixing: Mixing | None = None,
) -> float:
    """Gradients of the step's weighted mean loss, whatever the micro-batches; returns that loss.

    Args:
        model: In training mode, on the accelerator's device.
        batches: The step's micro-batches, with labels.
        accelerator: From `Device.accelerator`.
        objective: The loss.
        mixing: Mixes the rows of each micro-batch, if they are to be mixed.
    """
    total_weight = sum(batch.weight for batch in batches) or 1.0
    total = 0.0
    for batch in batches:
        with fits(batch):
            on_device = (batch if mixing is None else mixing(batch)).to(accelerator.device)
            mixed = mixing is not None and on_device.mix is not None
            wanted = objective.smoothed(mixing.config.label_smoothing) if mixing is not None and mixed else objective
            with accelerator.autocast():
                logits, own = (model(on_device), {}) if model.aux_loss_weight is None else model.all_logits(on_device)
            losses = mixed_losses(partial(_losses, model, logits, own, wanted), on_device)
            loss = losses.sum() / total_weight
            accelerator.backward(loss)
            total += float(loss.detach())
    return total


def _losses(
    model: MultiModalModel,
    logits: torch.Tensor,
    own: dict[str, torch.Tensor],
    objective: Objective,
    labels: torch.Tensor,
    weights: torch.Tensor | None,
) -> torch.Tensor:
    """The weighted loss of every row, (B,), with those of the encoders' own heads."""
    losses = row_losses(logits, labels, objective)
    for of_encoder in own.values():
        losses = losses + (model.aux_loss_weight or 0.0) * row_losses(of_encoder, labels, objective)
    return losses if weights is None else losses * weights


def whatever_fits(
    gradients: Callable[[list[Batch]], float],
    batches: list[Batch],
    limit: TokenLimit,
    optimizer: torch.optim.Optimizer,
    device: Device,
    step: int,
    config: Config,
) -> float:
    """What `gradients` returns for the step's rows, once the limit is low enough for memory to suffice.

    A second attempt starts where the first one did: no gradients, the same random numbers to come.
    """
    rewind = rewinding(device.place)

    def make_room(batch: Batch) -> None:
        if len(batch) == 1:
            raise TrainingError(
                f"Step {step}: memory does not suffice for a single row, of {batch.input_ids.shape[1]} tokens. Less is "
                "needed with model.hf_text.gradient_checkpointing=True, with fewer tokens in model.hf_text.max_text_len "
                f"(it is {config.model.hf_text.max_text_len}), or with frozen weights in bfloat16, env.precision='bf16' "
                f"(it is {config.env.precision!r}) and an optim.peft."
            )
        device.ranks.refuse_to_repeat()
        limit.lower(batch, f"Step {step}")
        optimizer.zero_grad()
        rewind()

    return until_it_fits(lambda: gradients(batches), make_room)


def _diverged(
    model: MultiModalModel, batches: list[Batch], dataset: Dataset, device: Device, config: Config, what: str
) -> TrainingError:
    """The error for a step whose loss is no number, with its rows and the likely causes; all ranks take part."""
    own = [int(row) for batch in batches for row in batch.rows]
    rows = sorted({row for some_rows in device.ranks.gathered(own) for row in some_rows})
    rate = f"a learning rate that is too high (optim.lr is {config.learning_rate():g}; try a third of it)"
    causes = [rate]
    if device.precision == "fp16":
        beyond = any(encoder.family.beyond_float16 for encoder in model.pretrained().values())
        known = ", which this family of models is known for" if beyond else ""
        causes.insert(0, f"overflow in float16{known} (env.precision is {config.env.precision!r}; try 'bf16' or '32')")
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters() if p.requires_grad):
        causes = [f"the step before, which left weights that are no numbers, with {rate}"]
    return TrainingError(
        f"The training loss became {what}, in the batch of the rows with index {some(dataset.index[rows], 10)}. "
        f"Likely: {'; or '.join(causes)}.",
        diverged=True,
    )


def clip(accelerator: Accelerator, parameters: list[torch.nn.Parameter], optim: OptimConfig) -> None:
    """Clips the gradients as the settings say, in place."""
    if optim.gradient_clip_val == 0:
        return
    if optim.gradient_clip_algorithm == "norm":
        accelerator.clip_grad_norm_(parameters, optim.gradient_clip_val)
    else:
        accelerator.clip_grad_value_(parameters, optim.gradient_clip_val)
