"""A path to write a predictor to goes in; the folder in it where a fit works, locked for it alone, comes out.

`<path>/training` holds the states of a fit under way, or of one that was interrupted, and `fit.json`, which says what that
fit is. Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from featherfit.artifact.format import CONFIG, RECORD, WORK, is_free
from featherfit.artifact.strict_json import parse_object
from featherfit.errors import ArtifactError, ConfigError, Interrupted, PathExistsError, TrainingError
from featherfit.storage import expanded, storing, write_json_whole
from featherfit.training.launch import speaks, together
from featherfit.training.signals import StopRequest, listening

FORMAT = 1
START = "start"
"""Folder with the artifact that a second fit began from."""
_LOCK = "lock"
_OURS = re.compile(r"lock|start|artifact|(state|step)-\d+\..*|.*\.part|\.tmp.*")
"""Names of what a fit writes there, but for the record."""
RESUME = "MultiModalPredictor.load({path!r}, resume=True).fit(data), or featherfit fit ... --path {path} --resume"


@dataclass
class Workspace:
    """Where one fit works.

    Attributes:
        path: Where the artifact is to be.
        record: What the fit under `path` is, where it is to be gone on with; empty for a new one.
        standalone: What `fit` was told about the artifact.
        keeps: Whether the states stay though the fit is over.
        cut_short: Whether time was over before the model was as training is to begin with it, so that no state leads to
            what a whole fit gives.
        failure: What is to be raised once the artifact with the best weights so far is written.
        stop: Whether the fit was asked to end.
        undo: Gives a model that was there before this fit the weights it had.
    """

    path: Path
    record: dict[str, Any] = field(default_factory=dict)
    standalone: bool | None = None
    keeps: bool = False
    cut_short: bool = False
    failure: TrainingError | None = None
    stop: StopRequest = field(default_factory=StopRequest)
    undo: Callable[[], None] = field(default=lambda: None)

    @property
    def folder(self) -> Path:
        """Where states are."""
        return self.path / WORK

    def note(self, record: dict[str, Any]) -> None:
        """Says on disk what this fit is, so that it can be gone on with from here on.

        Raises:
            StorageError: It cannot be written.
        """
        now = {"format": FORMAT, "standalone": self.standalone, "process": [socket.gethostname(), os.getpid()]}
        self.record = {**record, **now}
        with storing("What this fit is", self.folder):
            write_json_whole(self.folder / RECORD, self.record)

    def how_to_resume(self) -> str:
        """A sentence for messages, or nothing where there is no state to go on from."""
        step = last_step(self.folder)
        return f"The state of step {step} is kept: {RESUME.format(path=str(self.path))} goes on." if step else ""


def output_path(save_path: str | Path | None, path: str | Path | None, *, resumes: bool = False) -> Path:
    """The first of these that is given, or a new folder under `featherfit-models`.

    Args:
        save_path: What `fit` was told.
        path: What the constructor was told, or the folder of the fit that is gone on with.
        resumes: Whether one is.

    Raises:
        PathExistsError: It holds something, such as an interrupted fit.
        ConfigError: A fit that is gone on with is to write elsewhere.
    """
    given = path if save_path is None else save_path
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    chosen = Path("featherfit-models") / now if given is None else expanded(given)
    if resumes:
        if path is not None and chosen != Path(path):
            raise ConfigError(f"save_path={str(save_path)!r}: the fit at {path} goes on where it is. Leave it out.")
        return chosen
    # Of a fit in several processes the first may be at work there already.
    if not (is_vacant(chosen) if speaks() else is_free(chosen) or _holds_work_only(chosen)):
        raise PathExistsError(
            f"path {chosen} holds a fit that is under way or was interrupted. To go on with an interrupted one: "
            f"{RESUME.format(path=str(chosen))}. Otherwise choose another path."
            if (chosen / WORK / RECORD).is_file() and not (chosen / CONFIG).is_file()
            else f"path {chosen} exists and is not empty. Choose another one; fit overwrites nothing."
        )
    return chosen


def is_vacant(path: Path) -> bool:
    """Whether there is nothing at `path` but what is left of a fit that died before it had begun, or while it tidied up."""
    if is_free(path):
        return True
    if not _holds_work_only(path):
        return False
    left = {entry.name for entry in (path / WORK).iterdir()}
    return not left or (_LOCK in left and all(_OURS.fullmatch(name) for name in left))


def _holds_work_only(path: Path) -> bool:
    return path.is_dir() and [entry.name for entry in path.iterdir()] == [WORK]


def last_step(folder: Path) -> int:
    """Of the newest state in a working folder, sound or not; 0 without one."""
    steps = (file.stem.rpartition("-")[2] for file in folder.glob("state-*.json"))
    return max((int(step) for step in steps if step.isdigit()), default=0)


def read_record(path: Path) -> dict[str, Any]:
    """What the interrupted fit at `path` is.

    Raises:
        ArtifactError: There is none.
    """
    file = path / WORK / RECORD
    if file.is_file():
        try:
            content = file.read_bytes()
        except OSError as error:
            raise ArtifactError(f"{file} cannot be read: {error}.") from None
        record = parse_object(content, str(file))
        if record.get("format") == FORMAT:
            return record
        raise ArtifactError(
            f"{file} was not written by this version of featherfit, so that fit cannot be gone on with."
        )
    if (path / CONFIG).is_file():
        raise ArtifactError(f"The fit at {path} is finished: there is nothing to resume. Load it without resume=True.")
    raise ArtifactError(f"There is no interrupted fit at {path}, so nothing can be resumed. Fit without resume.")


@contextlib.contextmanager
def at_work(
    path: Path,
    record: dict[str, Any] | None,
    *,
    clean: bool,
    standalone: bool | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Iterator[Workspace]:
    """Context of a fit and all that is written of it.

    At its end states are removed, unless there is something to go on from: the fit failed or was interrupted after a state
    had been kept, or was ended by its time limit. A folder that was there before stays, even if it is empty.

    Args:
        path: Where the artifact is to be.
        record: From `read_record`, to go on with that fit.
        clean: Remove states that nothing goes on from.
        standalone: For the artifact; None is what the record says.
        tell: Hears that a signal has arrived.

    Raises:
        PathExistsError: Another process works there.
        StorageError: The folder cannot be written to.
        TrainingError: The workspace's failure.
        Interrupted: The fit was asked to end.
    """
    told = (record or {}).get("standalone") if standalone is None else standalone
    work = Workspace(path, dict(record or {}), told)
    first = speaks()
    # To the other processes, a folder the first one works in already is one that it made.
    was_there = path.exists() and (first or not work.folder.exists())
    leave = partial(_leave, work, was_there, clean)
    lock = _locked(work, leave) if first else contextlib.nullcontext()
    with together(clean_up=None if first else leave), lock, listening(tell) as work.stop:
        try:
            yield work
            if work.failure is not None:
                raise work.failure
        except BaseException as error:
            work.keeps = error is not work.failure and (bool(record) or last_step(work.folder) > 0)
            work.undo()
            if isinstance(error, Interrupted) and work.keeps:
                raise Interrupted(f"{error} {work.how_to_resume()}".strip(), error.signal) from None
            raise


@contextlib.contextmanager
def _locked(work: Workspace, leave: Callable[[], None]) -> Iterator[None]:
    """Holds the folder's lock, which the system takes back from a process that dies, and leaves the folder under it."""
    from filelock import FileLock, Timeout

    file, resumes = work.folder / _LOCK, bool(work.record)
    with storing("States of the fit", work.folder):
        work.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise PathExistsError(
                f"path {work.path} is in use: {_owner(work)} fits there. Wait for it to end, or choose another path."
            ) from None
    try:
        if not file.exists() or not (resumes or is_vacant(work.path)):
            raise PathExistsError(f"Another process has just used path {work.path}. Choose another path.")
        try:
            yield
        finally:
            leave()
    finally:
        lock.release()


def _owner(work: Workspace) -> str:
    with contextlib.suppress(ArtifactError, ValueError, TypeError):
        host, process = read_record(work.path)["process"]
        return f"process {process} on {host}"
    return "another process"


def _leave(work: Workspace, was_there: bool, clean: bool) -> None:
    """Removes what no later fit needs: first the record, without which nothing is gone on with; the lock last."""
    if work.keeps or not work.folder.is_dir():
        return
    if clean:
        (work.folder / RECORD).unlink(missing_ok=True)
        for entry in work.folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != _LOCK:
                entry.unlink()
        shutil.rmtree(work.folder)
    if not was_there and work.path.is_dir() and not any(work.path.iterdir()):
        work.path.rmdir()
