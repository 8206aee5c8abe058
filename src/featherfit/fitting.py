"""What one `fit` does, from the user's tables to a `Fitted`; reads like the arrow in ARCHITECTURE.md."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherfit.config.dotted import Overrides, to_flat
from featherfit.config.resolve import resolve_config
from featherfit.errors import ConfigError
from featherfit.startup import collection_paused

if TYPE_CHECKING:
    import pandas as pd

    from featherfit.artifact.fitted import Fitted
    from featherfit.config.schema import Config
    from featherfit.data.dataset import Dataset
    from featherfit.report import Reporter
    from featherfit.training.selection import BestStates


@dataclass(frozen=True)
class FitRequest:
    """The arguments of one `fit`, under the names the user knows them by."""

    label: str
    train_data: Any
    tuning_data: Any
    presets: str | None
    hyperparameters: Overrides
    problem_type: str | None
    eval_metric: Any
    validation_metric: Any
    column_types: Mapping[str, str] | None
    holdout_frac: float | None
    time_limit: float | None
    seed: int
    work_folder: Path


def run_fit(request: FitRequest, reporter: Reporter, previous: Fitted | None = None) -> Fitted:
    """Fits a predictor, or trains a fitted one further.

    Args:
        request: What was asked for.
        reporter: Hears of everything a user should know.
        previous: A fitted predictor to go on from; its model is trained in place.

    Raises:
        FeatherfitError: Anything wrong with settings, tables, checkpoint or training; nothing was written then but
            states under `work_folder`.
    """
    started = time.monotonic()
    _check_arguments(request)
    with collection_paused():  # torch, on the first call
        from featherfit.data.load import load_table
        from featherfit.training.device import has_gpu

    resolved = resolve_config(
        request.presets, request.hyperparameters, has_gpu=has_gpu(), base=None if previous is None else previous.config
    )
    for note in resolved.notes:
        reporter.info(note)
    frame = load_table(request.train_data, name="train_data")
    tuning = None if request.tuning_data is None else load_table(request.tuning_data, name="tuning_data")
    with _seeded(request.seed, on_gpu=has_gpu()):
        with collection_paused():
            if previous is None:
                fitted, train_frame, tuning = _start(request, resolved.config, frame, tuning, reporter)
            else:
                fitted, train_frame, tuning = _go_on(request, resolved.config, frame, tuning, previous)
            sets = _datasets(fitted, train_frame, tuning)
        fitted.text.release_tokenizer()
        if previous is None and fitted.config.optim.head_init == "probe":
            _probe(fitted, sets[0])
        return _train(request, fitted, sets, reporter, started)


@contextlib.contextmanager
def _seeded(seed: int, *, on_gpu: bool) -> Iterator[None]:
    """Dropout that depends on `seed` alone, and the caller's random state as it was afterwards."""
    import torch

    with torch.random.fork_rng([torch.cuda.current_device()] if on_gpu else []):
        torch.manual_seed(seed)
        yield


def _check_arguments(request: FitRequest) -> None:
    problems = []
    if request.time_limit is not None and not request.time_limit > 0:
        problems.append(f"time_limit={request.time_limit!r} has to be a number of seconds above 0.")
    if request.holdout_frac is not None and not 0 < request.holdout_frac < 1:
        problems.append(f"holdout_frac={request.holdout_frac!r} has to lie between 0 and 1.")
    if isinstance(request.seed, bool) or not isinstance(request.seed, int) or request.seed < 0:
        problems.append(f"seed={request.seed!r} has to be a whole number of at least 0.")
    if problems:
        raise ConfigError(problems)


def _start(
    request: FitRequest, config: Config, frame: pd.DataFrame, tuning: pd.DataFrame | None, reporter: Reporter
) -> tuple[Fitted, pd.DataFrame, pd.DataFrame]:
    """A predictor ready to be trained for the first time, and its two tables."""
    from featherfit.artifact.fitted import Fitted, new_model, outputs_of
    from featherfit.checkpoints import resolve_checkpoint
    from featherfit.data.processors.label import LabelProcessor
    from featherfit.data.processors.text import TextProcessor
    from featherfit.data.schema import infer_schema
    from featherfit.training.device import device_of_fit

    schema = infer_schema(
        frame,
        request.label,
        column_types=request.column_types,
        problem_type=request.problem_type,
        pos_label=config.data.pos_label,
        eval_metric=request.eval_metric if isinstance(request.eval_metric, str) else None,
    )
    reporter.info(schema.problem_reason)
    _tell_ignored(schema)
    eval_metric, validation_metric = _metrics(request, schema.problem_type)
    train_frame, tuning = _split(request, schema, frame, tuning)
    assert schema.problem_type is not None
    label = LabelProcessor.fit(
        train_frame[request.label],
        schema.problem_type,
        config.data.pos_label,
        config.data.label.numerical_preprocessing,
    )
    device = device_of_fit(config)
    checkpoint = resolve_checkpoint(config.model.hf_text.checkpoint_name)
    reporter.info(
        f"Checkpoint {checkpoint.name} from {checkpoint.source} on {device.place.type}{device.ranks.told}"
        + (f": {checkpoint.note}" if checkpoint.note else ".")
    )
    text = TextProcessor.from_checkpoint(checkpoint, schema.text_columns, config.model.hf_text)
    model = new_model(config, checkpoint, outputs_of(label), request.seed, device)
    fitted = Fitted(config, schema, label, text, checkpoint, model, device, eval_metric, validation_metric)
    return fitted, train_frame, tuning


def _go_on(
    request: FitRequest, config: Config, frame: pd.DataFrame, tuning: pd.DataFrame | None, previous: Fitted
) -> tuple[Fitted, pd.DataFrame, pd.DataFrame]:
    """The previous predictor under new `optim` and `env` settings, and its two new tables."""
    from featherfit.training.device import device_of_fit

    before, now = to_flat(previous.config), to_flat(config)
    fixed = ("model.", "data.", "optim.peft", "optim.lora.", "optim.extra_trainable_params")
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
    train_frame, tuning = _split(request, previous.schema, frame, tuning)
    device = device_of_fit(config)
    if device.ranks.sharded or previous.device.ranks.sharded:
        raise ConfigError(
            "env.strategy='fsdp' is for a first fit; its weights are spread before adapters train. Use ddp."
        )
    model = previous.model.to(device.place)
    return replace(previous, config=config, device=device, model=model), train_frame, tuning


def _tell_ignored(schema: Any) -> None:
    idle = [name for name in schema.ignored if schema.columns[name] != "null"]
    if idle:
        shown = ", ".join(f"{name!r} ({schema.columns[name]})" for name in idle)
        warnings.warn(
            f"Columns {shown} are not used: this version models text columns. To read them as text, pass "
            f"column_types={dict.fromkeys(idle, 'text')!r}.",
            stacklevel=5,
        )


def _metrics(request: FitRequest, problem_type: Any) -> tuple[str, str]:
    from featherfit.evaluation.metrics import DEFAULTS, metric_name

    names: list[str] = []
    problems: list[str] = []
    for argument in ("eval_metric", "validation_metric"):
        wanted = getattr(request, argument)
        default = names[0] if names else DEFAULTS[problem_type]
        try:
            names.append(default if wanted is None else metric_name(wanted, problem_type, argument))
        except ConfigError as error:
            problems += error.problems
            names.append(default)
    if problems:
        raise ConfigError(problems)
    return names[0], names[1]


def _split(
    request: FitRequest, schema: Any, frame: pd.DataFrame, tuning: pd.DataFrame | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    from featherfit.data.split import split_holdout

    if tuning is None:
        return split_holdout(frame, schema, request.holdout_frac, seed=request.seed)
    if request.holdout_frac is not None:
        raise ConfigError("holdout_frac and tuning_data were both given. Give one: tuning_data is the holdout.")
    return frame, tuning


def _datasets(fitted: Fitted, train_frame: pd.DataFrame, tuning: pd.DataFrame) -> tuple[Dataset, Dataset]:
    from featherfit.data.dataset import make_dataset

    train_set = make_dataset(train_frame, fitted.schema, fitted.text, fitted.label, fitted.config.optim.class_weights)
    if train_set.rows.truncated:
        warnings.warn(
            f"{train_set.rows.truncated} of {len(train_set)} training rows are longer than {fitted.text.max_len} tokens "
            "(model.hf_text.max_text_len) and were cut.",
            stacklevel=4,
        )
    return train_set, make_dataset(tuning, fitted.schema, fitted.text, fitted.label)


def _probe(fitted: Fitted, train_set: Dataset) -> None:
    """Starts the head from a linear fit to the training rows."""
    from featherfit.inference.predict import outputs
    from featherfit.training.probe import probe_head

    assert train_set.labels is not None
    embeddings = outputs(fitted, train_set, embeddings=True)
    probe_head(fitted.model.head.linear, embeddings, train_set.labels, fitted.label.problem_type, train_set.weights)


def _train(
    request: FitRequest, fitted: Fitted, sets: tuple[Dataset, Dataset], reporter: Reporter, started: float
) -> Fitted:
    """Trains, gives the model its best weights, and returns the fitted predictor with its summary."""
    from featherfit.evaluation.metrics import METRICS
    from featherfit.memory import release_freed_memory
    from featherfit.models.build import model_size
    from featherfit.models.linear import forget_backward
    from featherfit.training.loop import make_plan
    from featherfit.training.selection import BestStates

    train_set, tuning_set = sets
    optim, metric = fitted.config.optim, fitted.validation_metric
    reporter.model_table(model_size(fitted.model), f"{fitted.checkpoint.name}, {optim.peft or 'full fine-tuning'}")
    plan = make_plan(len(train_set), fitted.config)
    evaluate = _scorer(fitted, tuning_set)
    states = BestStates(request.work_folder, optim.top_k, METRICS[metric].greater_is_better, fitted.device.ranks)
    steps, reason = _run_steps(request, fitted, train_set, plan, states, evaluate, reporter, started)
    used = states.restore(fitted.model, optim.top_k_average_method, evaluate)
    fitted.model.eval()
    forget_backward(fitted.model)
    release_freed_memory()
    best = evaluate() if len(used) > 1 else states.kept[0].score
    summary = {
        f"val_{metric}": best,
        "training_time": time.monotonic() - started,
        "steps": steps,
        "stopped": reason,
        "averaged_steps": used,
        "train_rows": len(train_set),
        "validation_rows": len(tuning_set),
        "seed": request.seed,
    }
    reporter.info(f"Validation {metric} {best:.4f} after {steps} steps ({reason}).")
    return replace(fitted, summary=summary)


def _scorer(fitted: Fitted, tuning_set: Dataset) -> Callable[[], float]:
    from featherfit.evaluation.outputs import score_outputs
    from featherfit.inference.predict import outputs

    def evaluate() -> float:
        assert tuning_set.labels is not None
        metric, logits = fitted.validation_metric, outputs(fitted, tuning_set)
        return fitted.device.ranks.agreed(score_outputs([metric], logits, tuning_set.labels, fitted.label)[metric])

    return evaluate


def _run_steps(
    request: FitRequest,
    fitted: Fitted,
    train_set: Dataset,
    plan: Any,
    states: BestStates,
    evaluate: Callable[[], float],
    reporter: Reporter,
    started: float,
) -> tuple[int, str]:
    """Steps taken, and why training stopped. Leaves at least one state behind."""
    from featherfit.training.loop import train

    reports = train(
        fitted.model,
        train_set,
        plan,
        fitted.config,
        problem_type=fitted.label.problem_type,
        pad_id=fitted.text.pad_id,
        longest=fitted.text.max_len or int(train_set.rows.lengths.max()),
        device=fitted.device,
        evaluate=evaluate,
        seed=request.seed,
    )
    report, reason, agreed = None, "all epochs done", fitted.device.ranks.agreed
    with reporter.training_progress(plan.total_steps, fitted.validation_metric) as progress:
        for report in reports:
            if report.score is not None:
                states.add(report.score, report.step, fitted.model)
            progress.update(report)
            if states.checks_since_best >= fitted.config.optim.patience:
                reason = f"no better score in {fitted.config.optim.patience} validations"
                break
            if request.time_limit is not None and agreed(time.monotonic() - started) > request.time_limit:
                reason = f"time_limit of {request.time_limit:g} s reached"
                break
    assert report is not None
    if not states.kept:
        states.add(evaluate(), report.step, fitted.model)
    return report.step, reason
