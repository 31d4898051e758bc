"""Signals as a flag. Oracle: POSIX signals sent to this very process."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from tunewright.engine.signals import STOP_SIGNALS, stop_on_signals
from tunewright.errors import Interrupted


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_sets_the_flag_and_handlers_come_back(number: signal.Signals) -> None:
    before = [signal.getsignal(one) for one in STOP_SIGNALS]
    with stop_on_signals() as request:
        assert not request.requested
        os.kill(os.getpid(), number)
        assert request.requested and request.name == number.name
    assert [signal.getsignal(one) for one in STOP_SIGNALS] == before


def test_the_second_interrupt_ends_at_once_with_130() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted) as caught, stop_on_signals() as request:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert request.name == "SIGTERM"
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second SIGINT must not come back")
    assert caught.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is before


def test_repeated_sigterm_only_repeats_the_request() -> None:
    with stop_on_signals() as request:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.requested


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_outside_the_loop_a_signal_ends_the_process(number: signal.Signals) -> None:
    """Before and after it; one that the loop did not act on any more ends it there."""
    with pytest.raises(Interrupted, match=f"stopped by {number.name} before training began; run the same command again"), \
            stop_on_signals() as request:
        request.end_at_once("before training began")
        os.kill(os.getpid(), number)
    with stop_on_signals() as request:
        request.end_at_once("before training began")
        request.defer()
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted, match=f"stopped by {number.name} after training"):
            request.end_at_once("after training")


def test_outside_the_main_thread_nothing_is_installed() -> None:
    found: list[bool] = []

    def work() -> None:
        with stop_on_signals() as request:
            found.append(request.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]
