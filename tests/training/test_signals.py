"""A wish to stop waits for the end of a step, and handlers come back."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from featherfit.errors import Interrupted
from featherfit.training.signals import listening, receive


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
class TestOneSignal:
    def test_waits(self, number, code):
        heard: list[str] = []
        with listening(heard.append) as request, request.waiting():
            assert request.signal is None
            send(number)
            assert request.signal == number
        assert len(heard) == 1 and "Stops after this step" in heard[0]

    def test_acts_at_once_where_nothing_waits(self, number, code):
        with listening() as request, pytest.raises(Interrupted) as stopped:
            with request.waiting():
                pass
            send(number)
        assert (stopped.value.signal, stopped.value.exit_code) == (number, code)

    def test_pythons_handlers_come_back(self, number, code):
        own = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}[number]
        with pytest.raises(KeyError), listening():
            assert signal.getsignal(number) is receive
            raise KeyError
        assert signal.getsignal(number) is own

    def test_a_handler_of_the_users_own_stays(self, number, code):
        own: list[int] = []
        before = signal.signal(number, lambda number, frame: own.append(number))
        try:
            with listening() as request, request.waiting():
                send(number)
            assert own == [number] and request.signal is None
        finally:
            signal.signal(number, before)

    def test_one_that_was_set_meanwhile_stays(self, number, code):
        before, other = signal.getsignal(number), lambda number, frame: None
        try:
            with listening():
                signal.signal(number, other)
            assert signal.getsignal(number) is other
        finally:
            signal.signal(number, before)


def test_a_second_interrupt_does_not_wait():
    with listening() as request, pytest.raises(Interrupted, match="at once"), request.waiting():
        send(signal.SIGINT)
        send(signal.SIGINT)


def test_a_second_request_to_end_waits_too():
    """A launcher asks its processes after a terminal already has."""
    with listening() as request, request.waiting():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            send(number)
        assert request.signal == signal.SIGINT


def test_outside_the_main_thread_nothing_changes():
    seen: list[object] = []

    def work() -> None:
        with listening():
            seen.extend([signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)])

    expected = [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)]
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == expected


def test_it_arrives_in_the_middle_of_writing():
    def writing(text: str) -> None:
        raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")

    with listening(writing) as request, request.waiting():
        send(signal.SIGTERM)
        assert request.signal == signal.SIGTERM
