"""One fit in a process of its own, which kills itself at a moment it is told; or goes on with one that was killed.

Moments are counted, never timed: the n-th forward of a step, the n-th validation, and the n-th operation on files while the
n-th state, or the artifact, is written. So a moment is the same one however busy the machine is.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiny_checkpoints import quick_fit, reviews

from featherfit import MultiModalPredictor
from featherfit.artifact import store
from featherfit.errors import ArtifactError
from featherfit.inference import predict
from featherfit.training import keeping, loop

LATER = (
    "accelerate",
    "featherfit.fitting",
    "featherfit.preparing",
    "rich.progress",
    "scipy.stats",
    "sklearn.metrics",
    "torch._dynamo",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.bert.modeling_bert",
)
"""What a fit imports when it comes to it; the server that all processes are forked from has it already."""

for module in LATER:
    importlib.import_module(module)

SETTINGS: dict[str, Any] = {
    "optim.peft": "lora_norm",
    "optim.lora.dropout": 0.2,
    "model.hf_text.dropout": "on",
    "optim.ema_decay": 0.8,
    "optim.max_epochs": 3,
    "optim.val_check_interval": 0.25,
    "optim.class_weights": "balanced",
    "optim.top_k_average_method": "uniform_soup",
}
EVERY = 3
"""Steps between states, instead of seconds."""
FILE_OPERATIONS = ("fsync", "replace", "rename", "unlink", "rmdir", "mkdir")


@dataclass
class Moments:
    """Counts what happens, and kills the process when its moment has come.

    Attributes:
        kind, number, operation: `step` or `validation`, the n-th of them; `state`, the n-th written, or `artifact`, at the
            n-th operation on files.
        seen: How often each happened; for states and the artifact, operations on files in each.
    """

    kind: str = ""
    number: int = 0
    operation: int = 0
    seen: dict[str, list[int]] = field(
        default_factory=lambda: {"step": [0], "validation": [0], "state": [], "artifact": []}
    )
    _window: str = ""

    def happens(self, kind: str) -> None:
        """A step or a validation is under way."""
        self.seen[kind][0] += 1
        if (self.kind, self.number) == (kind, self.seen[kind][0]):
            die()

    def opens(self, window: str) -> None:
        """From here on operations on files are those of a state, or of the artifact and all that follows it."""
        self._window = window
        self.seen[window].append(0)

    def closes(self) -> None:
        """They are not any more."""
        self._window = ""

    def touches(self, name: str, *arguments: Any) -> None:
        """An operation on files is about to begin."""
        if not self._window:
            return
        self.seen[self._window][-1] += 1
        here = (self._window, len(self.seen[self._window]), self.seen[self._window][-1])
        if here == (self.kind, self.number, self.operation):
            if name == "fsync":
                half_of(arguments[0])
            die()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def half_of(descriptor: int) -> None:
    """Leaves a file half-written, as it is when the machine stops in the middle of it."""
    path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
    if path.is_file():
        os.truncate(path, path.stat().st_size // 2)


@contextlib.contextmanager
def counted(moments: Moments) -> Iterator[None]:
    """Puts the counters where things happen."""

    def after(function: Callable[..., Any], kind: str) -> Callable[..., Any]:
        def wrapped(*args: Any, **named: Any) -> Any:
            result = function(*args, **named)
            moments.happens(kind)
            return result

        return wrapped

    def operation(function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def wrapped(*args: Any, **named: Any) -> Any:
            moments.touches(name, *args)
            return function(*args, **named)

        return wrapped

    def written(self: Any, *args: Any, **named: Any) -> None:
        moments.opens("state")
        write(self, *args, **named)
        moments.closes()

    def saved(*args: Any, **named: Any) -> Any:
        moments.opens("artifact")  # to the end of the fit
        return save(*args, **named)

    write, save, steps = keeping.StateKeeper.write, store.save_artifact, itertools.count(1)
    originals = [
        (loop, "accumulate"),
        (predict, "outputs"),
        (keeping.StateKeeper, "write"),
        (keeping.StateKeeper, "due"),
    ]
    originals += [(store, "save_artifact"), *((os, name) for name in FILE_OPERATIONS)]
    before = [(owner, name, getattr(owner, name)) for owner, name in originals]
    loop.accumulate = after(loop.accumulate, "step")
    predict.outputs = after(predict.outputs, "validation")
    keeping.StateKeeper.write = written
    keeping.StateKeeper.due = lambda self: next(steps) % EVERY == 0
    store.save_artifact = saved
    for name in FILE_OPERATIONS:
        setattr(os, name, operation(getattr(os, name), name))
    try:
        yield
    finally:
        for owner, name, original in before:
            setattr(owner, name, original)


def begin(checkpoint: Path, path: Path, kind: str = "", number: int = 0, operation: int = 0) -> None:
    """Fits, and writes down what was counted, unless the moment comes before."""
    moments = Moments(kind, number, operation)
    with counted(moments):
        predictor = quick_fit(checkpoint, path, reviews(120), hyperparameters=SETTINGS)
    note(path, {"seen": moments.seen, **told(predictor)})


def go_on(path: Path, *moment: Any) -> None:
    """Goes on to the end, or to its own moment; before that, what can be loaded has to be right."""
    complete = None
    with contextlib.suppress(ArtifactError):
        complete = told(MultiModalPredictor.load(path, verbosity=0))
    note(path, {"loaded": complete})
    if not (path / "training" / "fit.json").is_file():
        assert complete is not None
        note(path, complete)
        return
    warnings.simplefilter("error")
    with counted(Moments(*moment)):
        predictor = MultiModalPredictor.load(path, resume=True, verbosity=0).fit(reviews(120))
    note(path, told(predictor))


def told(predictor: MultiModalPredictor) -> dict[str, Any]:
    """What a user can see of a predictor, but for the time it took."""
    summary = {key: value for key, value in predictor.fit_summary().items() if key != "training_time"}
    return {"proba": predictor.predict_proba(reviews(30, seed=9), as_pandas=False).tolist(), "summary": summary}


def note(path: Path, facts: dict[str, Any]) -> None:
    """Adds facts to those about `path`."""
    file = path.with_suffix(".json")
    known = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**known, **facts}))
