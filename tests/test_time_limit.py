"""Tests that wait for ever fail."""

import signal
import threading
import time
from contextlib import suppress

import pytest

from time_limit import ALARMS, within

pytestmark = pytest.mark.skipif(not ALARMS, reason="the system has no alarms: nothing to do")


def test_every_test_has_a_limit():
    left, again = signal.getitimer(signal.ITIMER_REAL)
    assert left > 0
    assert again > 0


def test_what_computes_or_waits_for_ever_fails_and_the_limit_around_it_goes_on():
    def compute() -> None:
        while True:
            with suppress(Exception):  # as what reads damaged files may do
                time.sleep(1e-3)

    for act in (compute, threading.Event().wait):
        with pytest.raises(pytest.fail.Exception, match=r"longer than 0\.05 s"), within(0.05):
            act()
    assert signal.getitimer(signal.ITIMER_REAL)[0] > 60


def test_what_ends_in_time_is_left_alone():
    with within(0.05):
        pass
    time.sleep(0.1)
