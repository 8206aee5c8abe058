"""What a fit was given and what came of it go in; a record of it comes out, and later the same fit, or all that differs."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from featherfit.config.checks import shown
from featherfit.config.dotted import build_config, to_flat
from featherfit.errors import ConfigError
from featherfit.preparing import FitRequest, Prepared
from featherfit.types import NUMBERS

if TYPE_CHECKING:
    from featherfit.artifact.fitted import Fitted
    from featherfit.config.schema import Config
    from featherfit.data.dataset import Dataset

MAY_CHANGE = ("env.state_interval", "env.rank_timeout", "env.num_workers", "env.num_workers_inference")
"""Settings without influence on what comes out."""

_ROWS = {"train_data": "training rows", "tuning_data": "validation rows"}


def record_of(
    request: FitRequest, asked: Config, fitted: Fitted, sets: tuple[Dataset, Dataset], *, further: bool
) -> dict[str, Any]:
    """What is needed to go on with a fit, and to see that it is the same one, as JSON values.

    Args:
        request: What was asked for.
        asked: The settings that makes, before memory was planned.
        fitted: Before training.
        sets: Rows to train on, and to validate on.
        further: Whether a fitted predictor is trained further.
    """
    return {
        "request": _arguments(request),
        "further": further,
        "asked": to_flat(asked),
        "settings": to_flat(fitted.config),
        "budget_tokens": fitted.device.budget_tokens,
        "resolved": {
            "problem_type": fitted.label.problem_type,
            "eval_metric": fitted.eval_metric,
            "validation_metric": fitted.validation_metric,
        },
        "facts": _facts(fitted, sets),
        "surroundings": _surroundings(fitted),
    }


def _arguments(request: FitRequest) -> dict[str, Any]:
    def text(value: Any) -> str | None:
        return None if value is None else str(getattr(value, "name", value))

    types = request.column_types
    return {
        "label": request.label,
        "presets": request.presets,
        "problem_type": request.problem_type,
        "eval_metric": text(request.eval_metric),
        "validation_metric": text(request.validation_metric),
        "column_types": None if types is None else [[name, kind] for name, kind in types.items()],
        "holdout_frac": request.holdout_frac,
        "seed": request.seed,
        "tuning_data": request.tuning_data is not None,
        "on_error": request.on_error,
        "quantile_levels": list(request.quantile_levels) or None,
        "sample_weight": request.sample_weight,
        "weight_evaluation": request.weight_evaluation,
    }


def _facts(fitted: Fitted, sets: tuple[Dataset, Dataset]) -> dict[str, Any]:
    rows = {name: [len(part), part.fingerprint()] for name, part in zip(_ROWS, sets, strict=True)}
    facts = {
        **rows,
        "text_columns": list(fitted.schema.text_columns),
        "labels": fitted.label.to_json(),
        "checkpoint": " ".join(one.fingerprint for one in fitted.checkpoints.values()),
        "processes": fitted.device.ranks.world,
    }
    return json.loads(json.dumps(facts))


def _surroundings(fitted: Fitted) -> dict[str, Any]:
    from importlib.metadata import version

    import torch

    return {
        "featherfit": version("featherfit"),
        "torch": torch.__version__,
        "device": fitted.device.place.type,
        "arithmetic": fitted.device.precision,
        "threads": torch.get_num_threads(),
    }


def resumed_request(request: FitRequest, record: dict[str, Any]) -> tuple[FitRequest, list[str]]:
    """The request of the interrupted fit with this one's tables and time limit, and a line for everything that differs.

    What is left out, or is its default, is as it was. Settings are compared later, when they are resolved.
    """
    defaults = {"seed": 0, "on_error": "raise", "weight_evaluation": False}
    unknown = {"quantile_levels": None, "sample_weight": None}  # to earlier versions
    before, now, resolved = {**defaults, **unknown, **record["request"]}, _arguments(request), record["resolved"]
    problems = [
        f"{name} is {_shown(name, value)} now and was {_shown(name, before[name])}."
        for name, value in now.items()
        if value not in (None, defaults.get(name), before[name], resolved.get(name))
    ]
    types, holdout = before["column_types"], before["holdout_frac"] if request.tuning_data is None else None
    as_before = replace(
        request, label=before["label"], problem_type=before["problem_type"], seed=before["seed"], presets=None,
        eval_metric=before["eval_metric"], validation_metric=before["validation_metric"], holdout_frac=holdout,
        column_types=None if types is None else dict(types), on_error=before["on_error"],
        quantile_levels=tuple(before["quantile_levels"] or ()), sample_weight=before["sample_weight"],
        weight_evaluation=before["weight_evaluation"],
    )  # fmt: skip
    return as_before, problems


def _shown(name: str, value: Any) -> str:
    if name == "tuning_data":
        return "given" if value else "not given"
    return repr(dict(value) if name == "column_types" and value is not None else value)


def refuse_differences(
    record: dict[str, Any], asked: Config, fitted: Fitted, sets: tuple[Dataset, Dataset], problems: list[str]
) -> None:
    """Compares with the interrupted fit, and warns of surroundings in which the last bits may come out otherwise.

    Args:
        record: From `record_of`.
        asked: The settings as asked for now.
        fitted: As the fit would begin now.
        sets: Rows to train on, and to validate on.
        problems: From `resumed_request`.

    Raises:
        ConfigError: Anything differs; all of it in one error.
    """
    flat, before = to_flat(asked), record["asked"]
    lines = list(problems)
    for key, value in flat.items():
        if key not in MAY_CHANGE and value != before.get(key):
            lines.append(f"{key} is {value!r} now and was {before.get(key)!r}.")
    now, then = _facts(fitted, sets), record["facts"]
    for name, what in _ROWS.items():
        if now[name][0] != then[name][0]:
            lines.append(f"{name}: {now[name][0]} {what} now, and there were {then[name][0]}.")
        elif now[name] != then[name]:
            lines.append(f"{name}: the {what} are as many as there were, and others, or in another order.")
    if now["text_columns"] != then["text_columns"]:
        lines.append(f"The text columns are {shown(now['text_columns'])} now and were {shown(then['text_columns'])}.")
    if now["labels"] != then["labels"]:
        lines.append(f"The labels are {_told(now['labels'])} now and were {_told(then['labels'])}.")
    if now["checkpoint"] != then["checkpoint"]:
        lines.append(f"The pretrained weights are {now['checkpoint']} now and were {then['checkpoint']}.")
    if now["processes"] != then["processes"]:
        lines.append(f"There are {now['processes']} processes now, and there were {then['processes']}.")
    if lines:
        lines[-1] += " An interrupted fit goes on as it began; for anything else fit anew, under another path."
        raise ConfigError(lines)
    around = _surroundings(fitted)
    moved = [f"{name} {value} (was {record['surroundings'].get(name)})" for name, value in around.items()
             if value != record["surroundings"].get(name)]  # fmt: skip
    if moved:
        warnings.warn(
            f"The fit goes on, and may differ in the last bits from one that was not interrupted: {', '.join(moved)}.",
            stacklevel=2,
        )


def _told(labels: dict[str, Any]) -> str:
    if "parts" in labels:
        return f"{shown(labels['names'])} ({labels['problem_type']})"
    if labels["problem_type"] in NUMBERS:
        return f"centred at {labels['center']:g} and scaled by {labels['scale']:g}"
    return f"{shown(labels['classes'])} ({labels['problem_type']})"


def settings_kept(record: dict[str, Any], asked: Config) -> Config:
    """The interrupted fit's settings, planned memory included, with those of now that may change."""
    flat = to_flat(asked)
    return build_config({**record["settings"], **{key: flat[key] for key in MAY_CHANGE}})


def planned_before(record: dict[str, Any], ready: Prepared) -> Prepared:
    """Computes in pieces of the size that was planned for the interrupted fit."""
    from featherfit.memory import return_freed_memory

    if ready.device.place.type == "cpu":
        return_freed_memory()
    device = replace(ready.device, budget_tokens=record["budget_tokens"])
    return replace(ready, config=settings_kept(record, ready.config), device=device)
