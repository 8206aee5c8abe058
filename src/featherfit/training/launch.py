"""What a launcher told this process goes in; whether it is one of several, who speaks for them, and who is lost come out.

`torchrun` and `accelerate launch` start one process, a rank, for every device and say so in environment variables. Without
a launcher there is one rank, and nothing here takes time. Nothing here imports torch before ranks have met.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from featherfit.errors import FeatherfitError, RankLostError
from featherfit.training import signals

_GRACE = 3.0
"""Seconds in which a rank that ended is seen to have ended, and in which rank 0 says first what went wrong."""

_LOST = ("gloo", "NCCL", "onnection closed", "onnection reset", "roken pipe", "imed out", "process group")
"""In the messages of the errors that torch raises where another rank does not answer."""

_PEERS: list[tuple[str, int]] = []
"""Host and process id of every rank of the latest fit."""


@dataclass(frozen=True)
class Launch:
    """What a launcher says of this process: its number among all, and among those of this machine."""

    rank: int
    world: int
    local_world: int

    @classmethod
    def of_this_process(cls) -> Launch | None:
        """None without a launcher, or with one that started a single process."""
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world < 2 or "RANK" not in os.environ:
            return None
        return cls(int(os.environ["RANK"]), world, int(os.environ.get("LOCAL_WORLD_SIZE", world)))


def met(peers: list[tuple[str, int]]) -> None:
    """Notes host and process id of every rank, in their order.

    From here on a launcher that has lost one of them and asks the others to end gives them time to clean up.
    """
    _PEERS[:] = peers
    atexit.register(_leave)  # not before: a second fit could not meet at the same address without a launcher's help
    _on_sigterm(_asked_to_end)


@contextlib.contextmanager
def together(clean_up: Callable[[], None] | None = None) -> Iterator[None]:
    """Context of a fit and all that is written of it. If a rank is lost, the others end soon, and say which.

    Args:
        clean_up: Called at the end, whatever that is, by the rank that is in charge.

    Raises:
        RankLostError: Another rank ended, or did not answer for `env.rank_timeout` seconds.
    """
    try:
        with contextlib.nullcontext() if Launch.of_this_process() is None else _among_ranks():
            yield
    finally:
        # After a lost rank was looked for: its connections close before it is seen to have ended.
        if clean_up is not None and in_charge():
            clean_up()


@contextlib.contextmanager
def _among_ranks() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except BaseException as error:
        if _PEERS:  # before ranks have met there is nothing to clean up, and all have the same error
            _on_sigterm(partial(_end_later, time.monotonic() + 2 * _GRACE))
            _give_up()
        if isinstance(error, RuntimeError) and not isinstance(error, FeatherfitError) and _is_of_ranks(error):
            raise _lost(_GRACE) from error
        raise
    else:
        _on_sigterm(before)


def speaks() -> bool:
    """Whether this process tells of the run: rank 0, or the only one there is."""
    launch = Launch.of_this_process()
    return launch is None or launch.rank == 0


def in_charge() -> bool:
    """Whether this rank cleans up and speaks for all: rank 0 does, or the lowest one that is still there."""
    launch = Launch.of_this_process()
    return launch is None or all(_gone(peer) for peer in _lower(launch))


def tells(error: Exception) -> bool:
    """Whether this rank is the one to report an error; ranks but the first wait for rank 0 to report it."""
    launch = Launch.of_this_process()
    if launch is None or launch.rank == 0:
        return True
    if isinstance(error, RankLostError):
        return in_charge()
    time.sleep(_GRACE)  # most errors are the same on all ranks, and the launcher ends this one meanwhile
    return True


def _lower(launch: Launch) -> list[tuple[str, int]]:
    return _PEERS[: launch.rank] if _PEERS else [("", 0)] * launch.rank


def _lost(seconds: float) -> RankLostError:
    """The error that names the ranks that ended; looks for them for some seconds."""
    until = time.monotonic() + seconds
    while not (gone := [rank for rank, peer in enumerate(_PEERS) if _gone(peer)]) and time.monotonic() < until:
        time.sleep(0.05)
    if gone:
        named = ", ".join(f"{rank} (process {_PEERS[rank][1]} on {_PEERS[rank][0]})" for rank in gone)
        what = f"Rank {named} ended before the others were done."
    else:
        what = "Another rank, one on another machine or one that hangs, did not answer."
    return RankLostError(
        f"{what} This fit cannot go on without it, and ends; an artifact is written whole or not at all. If that rank said "
        "nothing itself, the system may have ended it for want of memory. Ranks wait for each other for env.rank_timeout "
        "seconds."
    )


def _gone(peer: tuple[str, int]) -> bool:
    """Whether a process of this machine has ended; of other machines nothing is known."""
    host, pid = peer
    if host != socket.gethostname():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    status = Path(f"/proc/{pid}/stat")  # one that has ended and whose parent has not looked yet is still listed
    with contextlib.suppress(OSError):
        return status.read_text(errors="replace").rpartition(")")[2].split()[0] in ("Z", "X")
    return False


def _on_sigterm(handler: Any) -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _asked_to_end(number: int, *_: Any) -> None:
    """While all is well: a wish to stop. If a rank is lost: an error, so that what has to be cleaned up is."""
    if any(_gone(peer) for peer in _PEERS):
        _on_sigterm(partial(_end_later, time.monotonic() + 2 * _GRACE))
        raise _lost(0)
    signals.receive(number)


def _end_later(until: float, *_: Any) -> None:
    """While an error is on its way: nothing, so that it is told; later, the end."""
    if time.monotonic() > until:
        _on_sigterm(signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)


def _is_of_ranks(error: RuntimeError) -> bool:
    return any(part in str(error) for part in _LOST)


def _give_up() -> None:
    """Lets the others notice at once that this rank has left, where leaving does not wait for them."""
    import torch.distributed as dist

    atexit.unregister(_leave)
    if dist.is_initialized() and dist.get_backend() == "gloo":
        dist.destroy_process_group()


def _leave() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
