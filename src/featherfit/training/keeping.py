"""What a fit goes on from goes in after some steps; the last two of it are kept in a folder, and the newest sound one comes out.

A state is `state-<step>.safetensors` and, written after it, `state-<step>.json` with the checksums of it, of the best
weights it refers to, and of itself: without that file, or with other content, there is no state.
"""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featherfit.checkpoints.fingerprints import sha256
from featherfit.errors import ArtifactError
from featherfit.storage import storing, write_json_whole, write_tensors_whole
from featherfit.training.selection import BestStates, Kept
from featherfit.types import LoopState

FORMAT = 1
STATES_KEPT = 2
LEAST_SECONDS = 60.0
"""Between two states, where the interval is `auto`."""
MOST_SHARE = 0.01
"""Of the time, that writing states may take where the interval is `auto`."""
_EXPECTED_RATE = 5e8
"""Bytes a second, until a state has been written and its time is known."""
_BEST, _STATE = "step-*.safetensors", "state-*"


@dataclass(frozen=True)
class SavedState:
    """A fit after one of its steps.

    Attributes:
        loop: What the training loop goes on from.
        best: The best weights so far, best first.
        checks_since_best: Validations since the best score.
        elapsed: Seconds the fit had taken, preparation included.
        ended: Why training was over, or None if steps were left.
    """

    loop: LoopState
    best: list[Kept]
    checks_since_best: int
    elapsed: float
    ended: str | None


class StateKeeper:
    """Decides when a state is due, writes it, and removes what no state needs any more.

    Attributes:
        seconds: Seconds spent on writing so far.
    """

    def __init__(self, folder: Path, interval: float | str, size: int):
        """For rank 0.

        Args:
            folder: Where the best weights lie too.
            interval: `env.state_interval`.
            size: About how many bytes a state will have.
        """
        self.seconds = 0.0
        self._folder, self._interval = folder, interval
        self._last, self._cost = time.monotonic(), size / _EXPECTED_RATE
        self._digests: dict[Path, str] = {}

    def due(self) -> bool:
        """Whether it is time for a state."""
        if isinstance(self._interval, str):
            return time.monotonic() - self._last >= max(LEAST_SECONDS, self._cost / MOST_SHARE)
        return time.monotonic() - self._last >= self._interval

    def write(self, loop: LoopState, best: BestStates, elapsed: float, ended: str | None) -> None:
        """Keeps a state, and the one before it.

        Raises:
            StorageError: It cannot be written; what was there is there.
        """
        began = time.monotonic()
        step = loop.facts["step"]
        tensors, facts = (self._folder / f"state-{step:06d}{ending}" for ending in (".safetensors", ".json"))
        with storing(f"The state of step {step}", self._folder):
            write_tensors_whole(tensors, loop.tensors)
            state = {
                "format": FORMAT,
                "loop": loop.facts,
                "tensors": sha256(tensors),
                # As text, since JSON has no NaN and no infinity.
                "best": [[str(kept.score), kept.step, kept.file.name, self._digest(kept.file)] for kept in best.kept],
                "checks_since_best": best.checks_since_best,
                "elapsed": elapsed,
                "ended": ended,
            }
            write_json_whole(facts, {"sha256": _digest_of(state), "state": state})
            forget_states(self._folder, keep=STATES_KEPT)
            best.spared = tidy(self._folder, [kept.file.name for kept in best.kept])
        self._last = time.monotonic()
        self._cost = self._last - began
        self.seconds += self._cost

    def _digest(self, file: Path) -> str:
        if file not in self._digests:
            self._digests[file] = sha256(file)
        return self._digests[file]


def read_latest(folder: Path) -> SavedState | None:
    """The newest sound state, or None if the fit has to begin at its beginning. Newer ones, which are damaged, are removed.

    Raises:
        ArtifactError: All are damaged.
    """
    tidy(folder, [])
    files = sorted(folder.glob(f"{_STATE}.json"), key=_step_of, reverse=True)
    damaged = []
    for file in files:
        try:
            saved = _read(file)
        except (OSError, ValueError, KeyError, TypeError) as error:
            damaged.append(file)
            if file is files[-1]:
                raise ArtifactError(
                    f"No state in {folder} can be used ({file.name}: {error}). Remove {folder.parent} and fit anew."
                ) from None
            warnings.warn(
                f"The state of step {_step_of(file)} in {folder} is damaged ({error}); the one before it is used.",
                stacklevel=2,
            )
            continue
        for newer in damaged:
            _remove(newer)
        tidy(folder, [])
        return saved
    return None


def forget_states(folder: Path, *, keep: int) -> None:
    """Removes all but the newest states."""
    for file in sorted(folder.glob(f"{_STATE}.json"), key=_step_of, reverse=True)[keep:]:
        _remove(file)


def tidy(folder: Path, more: list[str]) -> frozenset[Path]:
    """Removes weights and parts of files that neither a state nor the caller needs; the weights that stay.

    Args:
        folder: Where states and best weights are.
        more: Names of weights that stay though no state refers to them.
    """
    stays = set(more)
    whole = set()
    for file in folder.glob(f"{_STATE}.json"):
        whole.add(file.with_suffix(".safetensors").name)
        try:
            stays |= {name for _, _, name, _ in json.loads(file.read_text(encoding="utf-8"))["state"]["best"]}
        except (OSError, ValueError, KeyError, TypeError):
            continue  # damaged; whoever reads it says so
    for file in [
        *folder.glob(_BEST),
        *folder.glob(f"{_STATE}.safetensors"),
        *folder.glob("*.part"),
        *folder.glob(".tmp*"),
    ]:
        if file.name not in stays | whole:
            file.unlink(missing_ok=True)
    return frozenset(folder / name for name in stays)


def _read(file: Path) -> SavedState:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    content = json.loads(file.read_text(encoding="utf-8"))
    state = content["state"]
    if content["sha256"] != _digest_of(state):
        raise ValueError("its checksum is not the recorded one")
    if state["format"] != FORMAT:
        raise ValueError(f"it has format {state['format']}, and this featherfit reads {FORMAT}")
    tensors = file.with_suffix(".safetensors")
    needed = {tensors.name: state["tensors"], **{name: digest for _, _, name, digest in state["best"]}}
    for name, digest in needed.items():
        if Path(name).name != name or not (file.parent / name).is_file():
            raise ValueError(f"{name} is missing")
        if sha256(file.parent / name) != digest:
            raise ValueError(f"the checksum of {name} is not the recorded one")
    try:
        loop = LoopState(state["loop"], load_file(tensors))
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    best = [Kept(float(score), step, file.parent / name) for score, step, name, _ in state["best"]]
    return SavedState(loop, best, state["checks_since_best"], state["elapsed"], state["ended"])


def _remove(file: Path) -> None:
    """A state's JSON first: a state without it is none."""
    file.unlink(missing_ok=True)
    file.with_suffix(".safetensors").unlink(missing_ok=True)


def _step_of(file: Path) -> int:
    digits = file.stem.rpartition("-")[2]
    return int(digits) if digits.isdigit() else 0


def _digest_of(state: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
