"""SIGINT and SIGTERM go in while a fit runs; a wish to stop comes out that waits for the end of a step.

Whoever has a handler of its own for one of them keeps it. Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from featherfit.errors import Interrupted

_LISTENING: list[StopRequest] = []
"""The wish of every fit under way, the innermost last."""


class StopRequest:
    """Whether this fit was asked to end.

    Attributes:
        signal: The signal that asked first, or None.
    """

    def __init__(self, tell: Callable[[str], None] = lambda text: None):
        """`tell` hears that the wish has arrived."""
        self.signal: int | None = None
        self._tell, self._waits = tell, False

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Context in which a first signal is noted only; it is for whoever is in there to look at `signal`."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False

    def receive(self, number: int) -> None:
        """Notes a signal, or acts on it.

        Raises:
            Interrupted: Outside `waiting`, and at the second SIGINT.
        """
        again = number == signal.SIGINT == self.signal
        if not self._waits or again:
            raise Interrupted("Stopped at once." if again else "Interrupted.", number)
        if self.signal is None:
            self.signal = number
            with contextlib.suppress(RuntimeError):  # it came in the middle of writing to the same stream
                self._tell("Stops after this step. A second Ctrl-C stops at once, back to the last state kept.")


@contextlib.contextmanager
def listening(tell: Callable[[str], None] = lambda text: None) -> Iterator[StopRequest]:
    """Context of a fit. Python's own handlers of SIGINT and SIGTERM make room for ours, and come back afterwards,
    unless another one has been set meanwhile.

    Outside the main thread, where Python allows no handlers, signals do what they did.
    """
    request = StopRequest(tell)
    ours = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in ours}
    taken = {number: handler for number, handler in before.items() if handler is ours[number]}
    _LISTENING.append(request)
    try:
        for number in taken:
            signal.signal(number, receive)
        yield request
    finally:
        _LISTENING.remove(request)
        for number, handler in taken.items():
            if signal.getsignal(number) is receive:
                signal.signal(number, handler)


def receive(number: int, *_: Any) -> None:
    """Gives a signal to the fit under way.

    Raises:
        Interrupted: If it is not to wait, or there is no fit.
    """
    if not _LISTENING:
        raise Interrupted("Interrupted.", number)
    _LISTENING[-1].receive(number)
