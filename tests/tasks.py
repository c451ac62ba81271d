"""Work for worker processes, which must be able to import it."""

import multiprocessing
import os
import signal
import time

from lucency.phantom.cohort import Film, Patient
from lucency.phantom.render import phantom_film

DIES, FAILS = 7, 13


def square(task: int) -> tuple[int, int]:
    """Return a task's square and who found it; even tasks take longer, so others overtake them."""
    time.sleep(0.004 * (task % 2 == 0))
    if task == DIES and multiprocessing.parent_process():
        os.kill(os.getpid(), signal.SIGKILL)
    if task == FAILS:
        raise ValueError(f"film {task} is broken")
    return task * task, os.getpid()


def mean_grey(drawn: tuple[Patient, Film]) -> float:
    """Return the mean grey of a phantom film; without the checks of annotations that tests make."""
    return float(phantom_film(*drawn, size=8).pixels.mean())
