"""A run goes in; its rows and, if it is new, its model, as training proper is to begin with them, come out.

Whatever is done here is done again if the fit is broken off before its first state, and comes out the same.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from featherfit.errors import ConfigError, Interrupted, StorageError

if TYPE_CHECKING:
    from featherfit.config.schema import Config
    from featherfit.data.dataset import Dataset
    from featherfit.steps import Run


def start_model(run: Run, *, contrasts: bool) -> None:
    """Does what `optim.few_shot` and `optim.head_init` ask for, to the model in place.

    Args:
        run: At its beginning.
        contrasts: What `begins_with_contrast` says of it.

    Raises:
        TrainingError: It cannot go on.
        Interrupted: A signal asked for it.
    """
    if contrasts:
        _contrast(run)
    if contrasts or run.fitted.config.optim.head_init == "probe":
        _probe(run, contrasts=contrasts)


def keep_prefix(run: Run, config: Config, *, contrasts: bool) -> Run:
    """The run with what frozen layers make of its rows, as `optim.prefix_cache` asks for.

    Args:
        run: At its beginning.
        config: With as many epochs as there will be.
        contrasts: What `begins_with_contrast` says of it.

    Raises:
        ConfigError: The settings ask for it, and it cannot be.
        StorageError: They ask for it, and the disk has no room.
    """
    from featherfit.training.prefix import keeps_states, why_not

    fitted, wanted = run.fitted, config.optim.prefix_cache
    if wanted == "on" and (reason := why_not(fitted.model, config, fitted.device)) is not None:
        raise ConfigError(f"optim.prefix_cache='on' is not possible here: {reason}")
    if not keeps_states(fitted.model, config, fitted.device, _visits(run, config, contrasts)):
        return run
    try:
        return replace(run, sets=(_with_states(run, run.sets[0]), _with_states(run, run.sets[1])))
    except StorageError as error:
        if wanted == "on":
            raise
        run.reporter.warn(
            f"The frozen layers are computed again in every epoch, for the same result up to rounding. {error}"
        )
        return run


def _visits(run: Run, config: Config, contrasts: bool) -> float:
    """How often a training row passes through the model."""
    from featherfit.training.contrastive import ROWS, steps_for
    from featherfit.training.loop import make_plan

    rows, labels = len(run.sets[0]), run.sets[0].labels
    assert labels is not None
    return (
        make_plan(rows, config).epochs
        + (steps_for(labels) * ROWS / rows if contrasts else 0)
        + (contrasts or config.optim.head_init == "probe")
    )


def _with_states(run: Run, rows: Dataset) -> Dataset:
    from featherfit.checkpoints.cache import cache_dir
    from featherfit.models.prefix import layers_beneath
    from featherfit.training.prefix import IN_MEMORY, with_states

    fitted = run.fitted
    device, config, longest = fitted.device, fitted.config, rows.longest(fitted.text.max_len)
    kept = with_states(
        fitted.model,
        rows,
        tokens=device.tokens_per_forward(config, longest, training=False),
        pad_id=fitted.text.pad_id,
        device=device,
        in_memory=0 if config.plans_memory() else IN_MEMORY,
        folder=cache_dir() / "prefix",
    )
    assert kept.rows.states is not None
    beneath, layers = layers_beneath(fitted.model.text), len(fitted.model.text.layers())
    run.reporter.info(
        f"What the lowest {beneath} of {layers} layers make of {len(rows)} rows was computed once, since nothing beneath layer "
        f"{beneath + 1} trains ({kept.rows.states.told()}); optim.prefix_cache=off computes it in every epoch."
    )
    return kept


def begins_with_contrast(run: Run) -> bool:
    """Whether the settings, or the number of labels where they leave it to that, ask for the few-label start.

    Raises:
        ConfigError: They ask for it, and there are no classes.
    """
    from featherfit.training.contrastive import is_few

    wanted, labels = run.fitted.config.optim.few_shot, run.sets[0].labels
    problem = run.fitted.label.problem_type
    read = list(run.fitted.model.encoders())
    if wanted == "on" and problem not in ("binary", "multiclass"):
        raise ConfigError(f"optim.few_shot='on' tells classes apart, and this problem is {problem}. Leave it out.")
    weight = run.fitted.schema.sample_weight
    if wanted == "on" and weight is not None:
        raise ConfigError(
            f"optim.few_shot='on' compares rows that all count alike, and sample_weight={weight!r} weighs them. Leave one out."
        )
    if wanted == "on" and read != ["hf_text"]:
        raise ConfigError(
            f"optim.few_shot='on' is for text alone, and this table is read by {', '.join(read)}. Leave it out, or name "
            "model.names=['hf_text']."
        )
    assert labels is not None
    fits = problem in ("binary", "multiclass") and read == ["hf_text"] and weight is None
    return wanted == "on" or (wanted == "auto" and fits and is_few(labels))


def _contrast(run: Run) -> None:
    """Trains the encoder to tell the classes apart, with a bar."""
    from featherfit.training.contrastive import MOST_ROWS_A_CLASS, contrast, steps_for

    fitted, (train_set, _), ranks = run.fitted, run.sets, run.fitted.device.ranks
    assert train_set.labels is not None
    classes, steps = len(fitted.label.classes), steps_for(train_set.labels)
    optim = fitted.config.optim
    why = f" (at most {MOST_ROWS_A_CLASS} a class)" if optim.few_shot == "auto" else ""
    then = f", and {optim.few_shot_epochs} epochs at most follow" if optim.few_shot_epochs else ""
    run.reporter.info(
        f"Few labels: {len(train_set)} training rows for {classes} classes{why}. So {steps} steps compare rows with each other, "
        f"then the head is fitted{then}; optim.few_shot='off' trains for optim.max_epochs={optim.max_epochs} instead."
    )
    reports = contrast(
        fitted.model,
        train_set,
        fitted.config,
        pad_id=fitted.text.pad_id,
        longest=train_set.longest(fitted.text.max_len),
        device=fitted.device,
        seed=run.request.seed,
    )
    stop, limit = run.work.stop, run.request.time_limit
    with run.reporter.training_progress(steps, fitted.validation_metric, "few labels") as progress, stop.waiting():
        for report in reports:
            progress.update(report)
            limited = limit is not None and time.monotonic() - run.started > limit
            flags = [stop.signal is not None, ranks.first and limited]
            stopping, limited = ranks.any_of(flags, fitted.device.place)
            if stopping:
                raise Interrupted(
                    f"Interrupted after step {report.step} of {steps} of the few-label start.", stop.signal or 15
                )
            if limited:
                run.work.cut_short = True
                run.reporter.warn(
                    f"time_limit of {limit:g} s was over after step {report.step} of {steps} of the few-label start, so the "
                    "fit cannot be gone on with. Give it more time, or optim.few_shot='off'."
                )
                break
    fitted.model.eval()


def _probe(run: Run, *, contrasts: bool) -> None:
    """Starts the head from a linear fit to the training rows, whose labels the encoder may have seen."""
    from featherfit.inference.predict import outputs
    from featherfit.training.probe import probe_head

    fitted, train_set = run.fitted, run.sets[0]
    assert train_set.labels is not None
    embeddings = outputs(fitted, train_set, embeddings=True)
    for linear, start in fitted.model.probed():
        own = embeddings[:, start : start + linear.in_features]
        probe_head(linear, own, train_set.labels, fitted.label, train_set.weights, seen=contrasts)
