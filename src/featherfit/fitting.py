"""What one `fit` does, from the user's tables to a `Fitted`; reads like the arrow in ARCHITECTURE.md."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from featherfit.config.dotted import build_config, to_flat
from featherfit.errors import ConfigError
from featherfit.preparing import (
    FitRequest,
    Prepared,
    keep_within_budget,
    prepare,
    read_request,
    split,
    without_odd_rows,
)
from featherfit.resuming import planned_before, record_of, refuse_differences, resumed_request
from featherfit.starting import begins_with_contrast, keep_prefix, start_model
from featherfit.startup import collection_paused
from featherfit.steps import Run, take_steps, undoing

if TYPE_CHECKING:
    import pandas as pd

    from featherfit.artifact.fitted import Fitted
    from featherfit.artifact.workspace import Workspace
    from featherfit.config.schema import Config
    from featherfit.data.dataset import Dataset
    from featherfit.report import Reporter


def run_fit(request: FitRequest, work: Workspace, reporter: Reporter, previous: Fitted | None = None) -> Fitted:
    """Fits a predictor, trains a fitted one further, or goes on with a fit that was interrupted.

    Args:
        request: What was asked for.
        work: Where states are kept meanwhile; with the record of the fit that is to be gone on with.
        reporter: Hears of everything a user should know.
        previous: A fitted predictor to go on from; its model is trained in place, and `work.undo` undoes that.

    Raises:
        FeatherfitError: Anything wrong with settings, tables, checkpoint or training; nothing was written then but
            states under `work.folder`.
        Interrupted: The fit was asked to end; the state it can be gone on from is written.
    """
    started, resumes = time.monotonic(), bool(work.record)
    problems: list[str] = []
    base = None if previous is None else previous.config
    if resumes:
        request, problems = resumed_request(request, work.record)
        base, previous = build_config(work.record["asked"]), _began_from(work)
    asked, frame, tuning = read_request(request, reporter, base)
    from featherfit.training.device import has_gpu

    with _seeded(request.seed, on_gpu=has_gpu()):
        with collection_paused():
            if previous is None:
                fitted, train_frame, tuning = _start(request, asked, frame, tuning, reporter, work.record)
            else:
                fitted, train_frame, tuning = _go_on(request, asked, frame, tuning, previous, reporter, work.record)
            sets = _datasets(fitted, train_frame, tuning, request.seed)
        fitted.text.release_tokenizer()
        fitted = _looked_at(fitted, train_frame, tuning, sets[0])
        reporter.findings(fitted.data_report)
        if resumes:
            refuse_differences(work.record, asked, fitted, sets, problems)
        record = work.record or record_of(request, asked, fitted, sets, further=previous is not None)
        _note(work, fitted, previous, record)
        run = Run.begun(request, work, fitted, sets, reporter, started, resumes=resumes)
        few = previous is None and begins_with_contrast(run)
        config = _epochs(fitted.config, few=few)
        run = keep_prefix(run, config, contrasts=few)
        if previous is None and run.saved is None:
            start_model(run, contrasts=few)
        return _train(run, config)


def _began_from(work: Workspace) -> Fitted | None:
    """The fitted predictor that the interrupted fit had begun from, if it trained one further."""
    from featherfit.artifact.store import load_artifact
    from featherfit.artifact.workspace import START

    if not work.record["further"]:
        return None
    previous = load_artifact(work.folder / START)
    # An artifact has the pooling that was used where the settings may say auto.
    model = build_config(work.record["asked"]).model
    return replace(previous, config=replace(previous.config, model=model))


def _note(work: Workspace, fitted: Fitted, previous: Fitted | None, record: dict[str, Any]) -> None:
    """Keeps what is needed to go on with this fit from its beginning, and what `work.undo` needs."""
    from featherfit.artifact.store import save_artifact
    from featherfit.artifact.workspace import START

    if fitted.device.ranks.first:
        if previous is not None and not work.record:
            save_artifact(
                previous,
                work.folder / START,
                standalone=any(one.source == "artifact" for one in previous.checkpoints.values()),
            )
        work.note(record)
    if previous is not None:
        work.undo = undoing(fitted, work.folder / START)


@contextlib.contextmanager
def _seeded(seed: int, *, on_gpu: bool) -> Iterator[None]:
    """Dropout that depends on `seed` alone, and the caller's random state as it was afterwards."""
    import torch

    with torch.random.fork_rng([torch.cuda.current_device()] if on_gpu else []):
        torch.manual_seed(seed)
        yield


def _start(
    request: FitRequest,
    config: Config,
    frame: pd.DataFrame,
    tuning: pd.DataFrame | None,
    reporter: Reporter,
    record: dict[str, Any],
) -> tuple[Fitted, pd.DataFrame, pd.DataFrame]:
    """A predictor ready to be trained for the first time, and its two tables; with memory as a record says, if it does."""
    from featherfit.artifact.fitted import Fitted, new_model
    from featherfit.data.modalities import unread
    from featherfit.data.slicing import only_values

    ready = prepare(request, config, frame, tuning, reporter)
    if config.plans_memory():
        ready = planned_before(record, ready) if record else keep_within_budget(ready, reporter, may_checkpoint=True)
    config, checkpoint, device = ready.config, ready.checkpoint, ready.device
    parts, further = ready.parts, ready.further
    model = new_model(config, checkpoint, parts, further, ready.label.outputs, request.seed, device)
    fitted = Fitted(config, ready.schema, ready.label, ready.text, checkpoint, model, device, *ready.metrics)
    constants = only_values(ready.train_frame, unread(ready.schema, config))
    fitted = replace(fitted, constants=constants, parts=parts, further=further, rejected=ready.rejected)
    return fitted, ready.train_frame, ready.tuning


def _go_on(
    request: FitRequest,
    config: Config,
    frame: pd.DataFrame,
    tuning: pd.DataFrame | None,
    previous: Fitted,
    reporter: Reporter,
    record: dict[str, Any],
) -> tuple[Fitted, pd.DataFrame, pd.DataFrame]:
    """The previous predictor under new `optim` and `env` settings, and its two new tables."""
    from featherfit.data.slicing import only_values
    from featherfit.training.device import device_of_fit

    before, now = to_flat(previous.config), to_flat(config)
    fixed = ("model.", "data.", "optim.peft", "optim.lora.", "optim.top_layers", "optim.extra_trainable_params")
    changed = [key for key in now if key.startswith(fixed) and now[key] != before[key]]
    if changed:
        raise ConfigError(
            [
                f"{key} was {before[key]!r} in the first fit and cannot become {now[key]!r}: the model is built. "
                "Use a new MultiModalPredictor."
                for key in changed
            ]
        )
    if request.presets is not None:
        warnings.warn(f"presets={request.presets!r}: settings of a fitted predictor are kept.", stacklevel=4)
    label, parts, schema = previous.label, previous.parts.values(), previous.schema
    frame, rejected = without_odd_rows(
        request, frame, "train_data", schema, list(previous.text.columns), label, None, parts
    )
    if tuning is not None:
        texts = list(previous.text.columns)
        tuning, rejected = without_odd_rows(request, tuning, "tuning_data", schema, texts, label, rejected, parts)
    train_frame, tuning = split(request, previous.schema, frame, tuning)
    device = device_of_fit(config)
    if device.ranks.sharded or previous.device.ranks.sharded:
        raise ConfigError(
            "env.strategy='fsdp' is for a first fit; its weights are spread before adapters train. Use ddp."
        )
    if config.plans_memory():
        metrics = previous.eval_metric, previous.validation_metric
        ready = Prepared(
            config, previous.schema, previous.label, previous.text, previous.checkpoint, device, metrics, train_frame, tuning,
            previous.parts, previous.further,
        )  # fmt: skip
        ready = planned_before(record, ready) if record else keep_within_budget(ready, reporter, may_checkpoint=False)
        config, device = ready.config, ready.device
    model = previous.model.to(device.place)
    constants = only_values(train_frame, [name for name in previous.constants if name in train_frame.columns])
    constants = dict(previous.constants.items() & constants.items())
    fitted = replace(previous, config=config, device=device, model=model, constants=constants, rejected=rejected)
    return fitted, train_frame, tuning


def _datasets(fitted: Fitted, train_frame: pd.DataFrame, tuning: pd.DataFrame, seed: int) -> tuple[Dataset, Dataset]:
    from featherfit.data.augment import augmented
    from featherfit.data.dataset import make_dataset

    schema, text, label, parts = fitted.schema, fitted.text, fitted.label, fitted.parts
    balance = fitted.config.optim.class_weights
    train_set = make_dataset(train_frame, schema, text, label, balance, parts=parts, weight=schema.sample_weight)
    if train_set.rows.truncated:
        warnings.warn(
            f"{train_set.rows.truncated} of {len(train_set)} training rows are longer than {fitted.text.max_len} tokens "
            "(model.hf_text.max_text_len) and were cut.",
            stacklevel=4,
        )
    train_set = augmented(train_set, train_frame, fitted.text, fitted.schema.text_columns, fitted.config, seed)
    by = fitted.config.optim.validation_by
    weight = schema.scoring_weight
    return train_set, make_dataset(tuning, schema, text, label, validation_by=by, parts=parts, weight=weight)


def _looked_at(fitted: Fitted, train_frame: pd.DataFrame, tuning: pd.DataFrame, train_set: Dataset) -> Fitted:
    """The same with its report about the data."""
    from featherfit.data.findings import check_data
    from featherfit.memory import release_freed_memory

    rows = train_set.rows
    read = [*fitted.text.columns, *(name for part in fitted.parts.values() for name in part.columns)]
    report = check_data(train_frame, tuning, fitted.schema, read)
    release_freed_memory()  # the detector of languages takes 0.1 GB for half a second
    return replace(fitted, data_report=report.with_lengths(len(rows), rows.truncated, rows.lost, fitted.text.max_len))


def _epochs(config: Config, *, few: bool) -> Config:
    """The settings with as many epochs as are left to train after a start for few labels."""
    epochs = min(config.optim.few_shot_epochs, config.optim.max_epochs) if few else config.optim.max_epochs
    return replace(config, optim=replace(config.optim, max_epochs=epochs))


def _train(run: Run, config: Config) -> Fitted:
    """Trains as `config` says, gives the model its best weights, and returns the fitted predictor with its summary."""
    from featherfit.evaluation.chance import warn_of_chance
    from featherfit.evaluation.metrics import METRICS
    from featherfit.inference.decide import calibrated
    from featherfit.inference.validate import Validation
    from featherfit.memory import release_freed_memory
    from featherfit.models.build import model_size
    from featherfit.models.linear import forget_backward
    from featherfit.training.loop import make_plan
    from featherfit.training.selection import BestStates

    fitted, (train_set, tuning_set), reporter = run.fitted, run.sets, run.reporter
    optim, metric = fitted.config.optim, fitted.validation_metric
    names = " + ".join(one.name for one in fitted.checkpoints.values())
    method = f"{names}, {optim.peft or 'full fine-tuning'}" if names else "no pretrained weights"
    reporter.model_table(model_size(fitted.model), method)
    plan = make_plan(len(train_set), config)
    evaluate = Validation(fitted, tuning_set, reporter.info)
    states = BestStates(run.work.folder, optim.top_k, METRICS[metric].greater_is_better, fitted.device.ranks)
    steps, reason = take_steps(run, plan, states, evaluate)
    release_freed_memory()
    used = states.restore(fitted.model, optim.top_k_average_method, evaluate)
    fitted.model.eval()
    forget_backward(fitted.model)
    release_freed_memory()
    again = len(used) > 1 or bool(evaluate.slices)
    best = evaluate() if again else states.kept[0].score
    assert train_set.labels is not None and tuning_set.labels is not None
    warn_of_chance(metric, best, train_set.labels, tuning_set.labels, fitted.label, tuning_set.weights)
    summary = {
        f"val_{metric}": best,
        "training_time": run.elapsed(),
        "steps": steps,
        "stopped": reason,
        "averaged_steps": used,
        "train_rows": len(train_set),
        "validation_rows": len(tuning_set),
        "seed": run.request.seed,
    }
    if evaluate.slices:
        summary["validation_slices"] = evaluate.slices
    reporter.info(f"Validation {metric} {best:.4f} after {steps} steps ({reason}).")
    # The best state's logits are not there if it is of before an interruption.
    logits = evaluate.logits if again else evaluate.best_logits
    return calibrated(replace(fitted, summary=summary), tuning_set, logits, reporter.info)
