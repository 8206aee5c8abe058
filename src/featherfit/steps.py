"""A model ready to train goes in; it is trained, with states on the way, until a rule or a signal ends that."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherfit.errors import Interrupted, TrainingError
from featherfit.preparing import FitRequest

if TYPE_CHECKING:
    from featherfit.artifact.fitted import Fitted
    from featherfit.artifact.workspace import Workspace
    from featherfit.data.dataset import Dataset
    from featherfit.inference.validate import Validation
    from featherfit.report import Reporter
    from featherfit.training.keeping import SavedState, StateKeeper
    from featherfit.training.selection import BestStates
    from featherfit.types import StepReport

DIVERGED = "the loss became no number"
HEAD_ALONE = "few labels: the head is fitted"
OUT_OF_TIME = "few labels: time_limit reached, the head is fitted"


@dataclass(frozen=True)
class Run:
    """One fit, ready to train.

    Attributes:
        request: What was asked for.
        work: Where states are kept.
        fitted: The predictor, before training.
        sets: Rows to train on, and to validate on.
        reporter: Hears of the progress.
        started: When the fit began, `time.monotonic()`.
        saved: The state to go on from.
    """

    request: FitRequest
    work: Workspace
    fitted: Fitted
    sets: tuple[Dataset, Dataset]
    reporter: Reporter
    started: float
    saved: SavedState | None

    @classmethod
    def begun(
        cls,
        request: FitRequest,
        work: Workspace,
        fitted: Fitted,
        sets: tuple[Dataset, Dataset],
        reporter: Reporter,
        started: float,
        *,
        resumes: bool,
    ) -> Run:
        """A run at its beginning, or, if it `resumes`, at the newest sound state, which all ranks get from the first.

        Raises:
            ArtifactError: All states are damaged.
        """
        from featherfit.training.keeping import read_latest

        saved = None
        if resumes:
            ranks = fitted.device.ranks
            saved = ranks.agreed(read_latest(work.folder) if ranks.first else None)
            from_where = (
                "its beginning: no state had been kept" if saved is None else f"step {saved.loop.facts['step']}"
            )
            reporter.info(f"The fit goes on from {from_where}.")
        return cls(request, work, fitted, sets, reporter, started, saved)

    def elapsed(self) -> float:
        """Seconds this fit has taken, those up to the state it goes on from included."""
        return time.monotonic() - self.started + (0.0 if self.saved is None else self.saved.elapsed)


def take_steps(run: Run, plan: Any, states: BestStates, evaluate: Validation) -> tuple[int, str]:
    """Steps taken, and why training stopped. Leaves at least one of the best states behind.

    Args:
        run: What to train.
        plan: From `make_plan`.
        states: Filled on the way.
        evaluate: Scores the model as it is.

    Raises:
        TrainingError: Training cannot go on, and there is nothing to show for it. If there is, the error is the
            workspace's failure.
        Interrupted: A signal asked for it; the state is written.
    """
    from featherfit.adapters.state import load_trainable_state

    saved, model = run.saved, run.fitted.model
    if saved is not None:
        states.kept, states.checks_since_best = list(saved.best), saved.checks_since_best
        states.spared = frozenset(kept.file for kept in saved.best)
    if plan.total_steps == 0:
        step, reason = 0, OUT_OF_TIME if run.work.cut_short else HEAD_ALONE
    elif saved is None or saved.ended is None:
        step, reason = _train_on(run, plan, states, evaluate)
    else:
        step, reason = saved.loop.facts["step"], saved.ended
        load_trainable_state(model, saved.loop.under("weights/"))
    if not states.kept:
        states.add(evaluate(), step, model)
        evaluate.remember()
    return step, reason


def _train_on(run: Run, plan: Any, states: BestStates, evaluate: Validation) -> tuple[int, str]:
    from featherfit.training.keeping import StateKeeper
    from featherfit.training.loop import train
    from featherfit.training.losses import objective_of

    fitted, (train_set, _), saved = run.fitted, run.sets, run.saved
    reports = train(
        fitted.model,
        train_set,
        plan,
        fitted.config,
        objective=objective_of(fitted.label, fitted.config.optim),
        pad_id=fitted.text.pad_id,
        longest=train_set.longest(fitted.text.max_len),
        device=fitted.device,
        evaluate=evaluate,
        seed=run.request.seed,
        start=None if saved is None else saved.loop,
    )
    keeper = StateKeeper(run.work.folder, fitted.config.env.state_interval, _bytes_of_state(fitted))
    step, reason = 0 if saved is None else saved.loop.facts["step"], None
    with (
        run.reporter.training_progress(plan.total_steps, fitted.validation_metric) as progress,
        run.work.stop.waiting(),
    ):
        try:
            for report in reports:
                step = report.step
                if report.score is not None:
                    states.add(report.score, step, fitted.model)
                    if states.checks_since_best == 0:
                        evaluate.remember()
                progress.update(report)
                reason = _after(run, report, states, keeper)
                if reason is not None:
                    break
        except TrainingError as error:
            if not (error.diverged and states.kept):
                raise
            reason = DIVERGED
            run.work.failure = _with_best(error, run, states)
    assert reason is not None
    return step, reason


def _after(run: Run, report: StepReport, states: BestStates, keeper: StateKeeper) -> str | None:
    """What there is to do after a step; why it was the last one, if it was."""
    fitted, request, stop = run.fitted, run.request, run.work.stop
    ranks, patience = fitted.device.ranks, fitted.config.optim.patience
    ended = None
    if states.checks_since_best >= patience:
        ended = f"no better score in {patience} validations"
    elif report.step == report.total_steps:
        ended = "all epochs done"
    limited = request.time_limit is not None and time.monotonic() - run.started > request.time_limit
    due = ranks.first and (limited or keeper.due())
    stopping, due, limited = ranks.any_of([stop.signal is not None, due, ranks.first and limited], fitted.device.place)
    if ended or stopping or due:
        assert report.state is not None
        loop = report.state()
        if ranks.first:
            keeper.write(loop, states, run.elapsed(), ended)
    if stopping:
        raise Interrupted(f"Interrupted after step {report.step} of {report.total_steps}.", stop.signal or 15)
    if ended is None and limited:
        _leave_for_later(run)
        return f"time_limit of {request.time_limit:g} s reached"
    return ended


def _leave_for_later(run: Run) -> None:
    """Keeps the state of a fit that ran out of time; where a whole encoder trains, it would be several times its size."""
    from featherfit.training.keeping import forget_states

    if run.fitted.config.optim.peft is None or run.work.cut_short:
        return
    run.work.keeps = True
    if run.fitted.device.ranks.first:
        forget_states(run.work.folder, keep=1)
        run.reporter.info(run.work.how_to_resume())


def _bytes_of_state(fitted: Fitted) -> int:
    """Weights and the optimiser's two numbers for each."""
    return 3 * sum(p.numel() * p.element_size() for p in fitted.model.parameters() if p.requires_grad)


def _with_best(error: TrainingError, run: Run, states: BestStates) -> TrainingError:
    best = states.kept[0]
    return TrainingError(
        f"{error} The best weights until then, of step {best.step} (validation {run.fitted.validation_metric} "
        f"{best.score:.4f}), are in the artifact at {run.work.path}.",
        diverged=True,
    )


def undoing(fitted: Fitted, start: Path) -> Callable[[], None]:
    """A function that gives a model the weights back that it has now.

    Args:
        fitted: A predictor that is about to be trained further.
        start: Its artifact, on rank 0.
    """
    from featherfit.adapters.state import load_trainable_state, trainable_state
    from featherfit.artifact.format import WEIGHTS

    model, first = fitted.model, fitted.device.ranks.first
    held = {} if first else trainable_state(model)

    def undo() -> None:
        from safetensors.torch import load_file

        load_trainable_state(model, load_file(start / WEIGHTS) if first else held)
        model.zero_grad(set_to_none=True)
        model.eval()

    return undo
