"""The arguments of a `fit` go in; all that is known before a model is built, or a plan of the fit, comes out."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from featherfit.config.dotted import Overrides
from featherfit.config.resolve import resolve_config
from featherfit.errors import ConfigError
from featherfit.startup import collection_paused

if TYPE_CHECKING:
    import pandas as pd

    from featherfit.checkpoints import Checkpoint
    from featherfit.config.schema import Config
    from featherfit.data.parts import PartProcessor
    from featherfit.data.processors.notext import NoText
    from featherfit.data.processors.several import Target
    from featherfit.data.processors.text import TextProcessor
    from featherfit.data.schema import Schema
    from featherfit.planning.plan import Plan
    from featherfit.planning.task import Task
    from featherfit.report import Reporter
    from featherfit.training.device import Device


@dataclass(frozen=True)
class FitRequest:
    """The arguments of one `fit`, under the names the user knows them by."""

    label: str | list[str]
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
    on_error: str = "raise"
    quantile_levels: tuple[float, ...] = ()
    sample_weight: str | None = None
    weight_evaluation: bool = False


@dataclass(frozen=True)
class Prepared:
    """All that is known before a model is built."""

    config: Config
    schema: Schema
    label: Target
    text: TextProcessor | NoText
    checkpoint: Checkpoint | None
    device: Device
    metrics: tuple[str, str]
    train_frame: pd.DataFrame
    tuning: pd.DataFrame
    parts: dict[str, PartProcessor]
    further: dict[str, Checkpoint]
    rejected: pd.DataFrame | None = None


@collection_paused()  # torch is imported here
def read_request(
    request: FitRequest, reporter: Reporter, base: Config | None
) -> tuple[Config, pd.DataFrame, pd.DataFrame | None]:
    """The settings of a request and its tables.

    Args:
        request: What was asked for.
        reporter: Hears what is to be said about the settings.
        base: Settings of the previous fit, to start from instead of the defaults.

    Raises:
        ConfigError: Wrong arguments or settings.
        DataError: A table that cannot be read.
    """
    _check_arguments(request)
    from featherfit.data.load import load_table
    from featherfit.training.device import has_gpu

    resolved = resolve_config(request.presets, request.hyperparameters, has_gpu=has_gpu(), base=base)
    for note in resolved.notes:
        reporter.info(note)
    frame = load_table(request.train_data, name="train_data")
    tuning = None if request.tuning_data is None else load_table(request.tuning_data, name="tuning_data")
    return resolved.config, frame, tuning


def prepare(
    request: FitRequest, config: Config, frame: pd.DataFrame, tuning: pd.DataFrame | None, reporter: Reporter
) -> Prepared:
    """Works out schema, label, checkpoint and tokenizer, and splits the rows.

    Args:
        request: What was asked for.
        config: All settings.
        frame: The training table.
        tuning: The table to validate on, or None for a holdout.
        reporter: Hears of everything a user should know.

    Raises:
        FeatherfitError: Anything wrong with settings, tables or checkpoint.
    """
    from featherfit.data.modalities import columns_by_encoder
    from featherfit.data.processors.fitting import fit_parts, text_processor
    from featherfit.data.schema import infer_schema
    from featherfit.training.device import device_of_fit
    from featherfit.training.targets import fit_target

    frame, rejected = _trainable(request, frame)
    schema = infer_schema(
        frame,
        request.label,
        column_types=request.column_types,
        problem_type=request.problem_type or ("quantile" if request.quantile_levels else None),
        pos_label=config.data.pos_label,
        eval_metric=request.eval_metric if isinstance(request.eval_metric, str) else None,
        sample_weight=request.sample_weight,
        weight_evaluation=request.weight_evaluation,
    )
    reporter.info(schema.problem_reason)
    columns = columns_by_encoder(schema, config)
    _tell_unread(schema, config, reporter)
    _tell_idle(columns, config, reporter)
    if "hf_text" not in columns or len(columns) > 1:
        for encoder, own in columns.items():
            reporter.info(f"{encoder} reads {', '.join(f'{name} ({schema.columns[name]})' for name in own)}.")
    metrics = _metrics(request, schema.problem_type)
    train_frame, held = split(request, schema, frame, tuning)
    label = fit_target(schema, config, frame, train_frame, request.quantile_levels)
    device = device_of_fit(config)
    checkpoints = _checkpoints(columns, config)
    for one in checkpoints.values():
        told = f"Checkpoint {one.name} from {one.source} on {device.place.type}{device.ranks.told}"
        reporter.info(f"{told}: {one.note}" if one.note else f"{told}.")
    parts = fit_parts(train_frame, columns, schema, config, checkpoints)
    if tuning is not None:
        texts = columns.get("hf_text", [])
        held, rejected = without_odd_rows(request, held, "tuning_data", schema, texts, label, rejected, parts.values())
    checkpoint = checkpoints.pop("hf_text", None)
    text = text_processor(checkpoint, columns.get("hf_text", []), schema, config)
    return Prepared(
        config, schema, label, text, checkpoint, device, metrics, train_frame, held, parts, checkpoints, rejected
    )  # fmt: skip


def _checkpoints(columns: Mapping[str, Any], config: Config) -> dict[str, Checkpoint]:
    """The pretrained weights of the encoders that find columns, by their name."""
    from featherfit.checkpoints import resolve_checkpoint

    names = {"hf_text": config.model.hf_text.checkpoint_name, "timm_image": config.model.timm_image.checkpoint_name}
    return {encoder: resolve_checkpoint(names[encoder]) for encoder in columns if encoder in names}


def _trainable(request: FitRequest, frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """A table to learn from without the rows that cannot be, if that was asked for, and the list of those."""
    from featherfit.data.label_columns import label_columns
    from featherfit.data.rows import left_out, screen_training

    if request.on_error == "raise":
        return frame, None
    types, wanted = request.column_types or {}, str(request.problem_type).lower()
    if request.quantile_levels or any(types.get(name) == "numerical" for name in label_columns(request.label)):
        wanted = "regression"
    rows = screen_training(frame, request.label, types, problem_type=wanted, weight=request.sample_weight)
    return rows.frame, left_out(rows, "train_data")


def without_odd_rows(
    request: FitRequest,
    frame: pd.DataFrame,
    name: str,
    schema: Schema,
    texts: list[str],
    label: Target,
    rejected: pd.DataFrame | None,
    parts: Iterable[PartProcessor] = (),
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """A table without the rows that cannot be processed, if that was asked for, and all rows that are left out so far.

    Args:
        request: What was asked for.
        frame: The table.
        name: What the user calls it.
        schema: Has the label and the weights.
        texts: Text columns that are read.
        label: Which labels there are.
        rejected: Rows of other tables that are left out.
        parts: Processors of columns that are read otherwise.
    """
    import pandas as pd

    from featherfit.data.rows import left_out, screen

    if request.on_error == "raise":
        return frame, rejected
    weight = schema.sample_weight if name == "train_data" else schema.scoring_weight
    rows = screen(frame, texts, schema.label, label, parts, weight)
    listed = left_out(rows, name)
    return rows.frame, listed if rejected is None else pd.concat([rejected, listed], ignore_index=True)


def keep_within_budget(ready: Prepared, reporter: Reporter, *, may_checkpoint: bool) -> Prepared:
    """The same, computing in pieces small enough for `env.memory_budget`, or for what the machine has.

    From here on, until the next fit, freed memory goes back to the system at once, as the forecast takes for granted.

    Args:
        ready: Its settings want memory planned.
        reporter: Hears how it will compute.
        may_checkpoint: Whether activations may be recomputed where the settings do not ask for it.

    Raises:
        ConfigError: Nothing fits, with what it would take in the message; or there are several ranks.
    """
    from featherfit.config.text import show_bytes
    from featherfit.memory import return_freed_memory
    from featherfit.planning.budget import within_budget

    config = ready.config
    if ready.device.ranks.world > 1:
        raise ConfigError(
            "env.memory_budget and env.per_gpu_batch_size='auto' plan the memory of one process, and a launcher started "
            f"{ready.device.ranks.world}. Set env.per_gpu_batch_size to a number."
        )
    if ready.device.place.type == "cpu":
        return_freed_memory()
    task = _task(ready)
    choice, differs = within_budget(task, may_checkpoint=may_checkpoint)
    if config.env.per_gpu_batch_size == "auto":  # for prediction, and whoever loads the artifact
        config = replace(config, env=replace(config.env, per_gpu_batch_size=max(1, choice.tokens // task.longest)))
    said = f"Memory: this run takes about {show_bytes(choice.peak)}"
    if not differs:
        reporter.info(f"{said} with forwards of {choice.tokens} tokens.")
        return replace(ready, config=config)
    recomputes = choice.checkpointing and not config.model.hf_text.gradient_checkpointing
    also = " and model.hf_text.gradient_checkpointing, which recomputes activations" if recomputes else ""
    reporter.info(f"{said} with at most {choice.tokens} tokens a forward{also}.")
    if recomputes:
        hf_text = replace(config.model.hf_text, gradient_checkpointing=True)
        config = replace(config, model=replace(config.model, hf_text=hf_text))
    return replace(ready, config=config, device=replace(ready.device, budget_tokens=choice.tokens))


def _task(ready: Prepared) -> Task:
    """What planning has to know of a run."""
    from featherfit.planning.task import task_of

    return task_of(
        ready.config, ready.checkpoint, ready.device, ready.label, ready.text, ready.train_frame, ready.parts,
        ready.further,
    )  # fmt: skip


def plan_fit(request: FitRequest, reporter: Reporter, base: Config | None, *, standalone: bool) -> Plan:
    """What a fit would need for the same request; nothing is trained and no weights are read.

    Args:
        request: What was asked for.
        reporter: Hears of everything a user should know.
        base: Settings of the previous fit, to start from instead of the defaults.
        standalone: Whether the pretrained weights would go into the artifact.

    Raises:
        FeatherfitError: Anything wrong with settings, tables or checkpoint.
    """
    config, frame, tuning = read_request(request, reporter, base)
    from featherfit.planning.plan import plan_run

    ready = prepare(request, config, frame, tuning, reporter)
    task = _task(ready)
    return plan_run(task, standalone=standalone)


def _check_arguments(request: FitRequest) -> None:
    from featherfit.data.rows import check_on_error

    problems = []
    try:
        check_on_error(request.on_error)
    except ConfigError as error:
        problems += error.problems
    if request.time_limit is not None and not request.time_limit > 0:
        problems.append(f"time_limit={request.time_limit!r} has to be a number of seconds above 0.")
    if request.holdout_frac is not None and not 0 < request.holdout_frac < 1:
        problems.append(f"holdout_frac={request.holdout_frac!r} has to lie between 0 and 1.")
    if isinstance(request.seed, bool) or not isinstance(request.seed, int) or request.seed < 0:
        problems.append(f"seed={request.seed!r} has to be a whole number of at least 0.")
    if request.weight_evaluation and request.sample_weight is None:
        problems.append("weight_evaluation=True weighs rows by sample_weight, which names no column. Name one.")
    if request.quantile_levels and request.problem_type not in (None, "quantile"):
        problems.append(
            f"quantile_levels are for problem_type='quantile', and it is {request.problem_type!r}. Drop one of them."
        )
    if problems:
        raise ConfigError(problems)


def _tell_unread(schema: Schema, config: Config, reporter: Reporter) -> None:
    from featherfit.data.modalities import unread

    names = unread(schema, config)
    for name in names:
        if schema.columns[name] == "null":
            reporter.info(f"{schema.reasons[name]} It is not used.")
    idle = [name for name in names if schema.columns[name] != "null"]
    if idle:
        shown = ", ".join(f"{name!r} ({schema.columns[name]})" for name in idle)
        warnings.warn(
            f"Columns {shown} are not used: model.names={config.model.names!r} has nothing that reads them. To read them as "
            f"text, pass column_types={dict.fromkeys(idle, 'text')!r}.",
            stacklevel=6,
        )


def _tell_idle(columns: Mapping[str, Any], config: Config, reporter: Reporter) -> None:
    """Says which settings have no effect with this table, of those that are not at their default."""
    from featherfit.config.dotted import to_flat
    from featherfit.config.schema import ENCODERS, FUSIONS, Config

    idle = [f"model.{name}." for name in ENCODERS if name not in columns and name in config.model.names]
    idle += [] if len(columns) > 1 else [*(f"model.{name}." for name in FUSIONS), "data.modality_dropout"]
    usual, now = to_flat(Config()), to_flat(config)
    for key in now:
        # A checkpoint may come from a preset.
        if key.startswith(tuple(idle)) and now[key] != usual[key] and key != "model.hf_text.checkpoint_name":
            reporter.info(f"{key} has no effect: the table has columns for {' and '.join(columns)} only.")


def _metrics(request: FitRequest, problem_type: Any) -> tuple[str, str]:
    from featherfit.evaluation.metrics import DEFAULTS, metric_name

    names: list[str] = []
    problems: list[str] = []
    for argument in ("eval_metric", "validation_metric"):
        wanted = getattr(request, argument)
        default = names[0] if names else DEFAULTS[problem_type]
        try:
            weighted = request.weight_evaluation
            names.append(
                default
                if wanted is None
                else metric_name(wanted, problem_type, argument, weighted=weighted, chooses=True)
            )
        except ConfigError as error:
            problems += error.problems
            names.append(default)
    if problems:
        raise ConfigError(problems)
    return names[0], names[1]


def split(
    request: FitRequest, schema: Any, frame: pd.DataFrame, tuning: pd.DataFrame | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows to train on and those to validate on."""
    from featherfit.data.split import split_holdout

    if tuning is None:
        return split_holdout(frame, schema, request.holdout_frac, seed=request.seed)
    if request.holdout_frac is not None:
        raise ConfigError("holdout_frac and tuning_data were both given. Give one: tuning_data is the holdout.")
    return frame, tuning
