"""Random misfortunes in Ray actors, from several threads at once, and a close in the middle.

What happens to the tasks, and how each has to end, is the same as in child processes.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from pathlib import Path

import pytest

from ion_actors import Pool, RayBackend
from tests.backends.process.test_chaos import TIRELESS, Submitting, run_out
from tests.workerpool.helpers import eventually, is_alive

pytest.importorskip("ray", reason="Ray is not installed: it is the extra 'ray'")

pytestmark = pytest.mark.cluster

SUBMITTERS, TASKS = 3, 24

# Whatever is late is forced soon.
HASTY = RayBackend(num_cpus=0, grace=0.02, kill_after=0.3)


@pytest.mark.parametrize("close_in_the_middle", [False, True])
def test_each_task_ends_once_and_as_it_would_have_alone(
    close_in_the_middle: bool, tmp_path: Path
) -> None:
    half = threading.Barrier(SUBMITTERS + 1) if close_in_the_middle else None
    pool = Pool(2, 16, backend=HASTY, panic_recovery=TIRELESS, name="chaos")
    submitters = [
        Submitting(pool, seed, tmp_path, half, TASKS) for seed in range(11, 11 + SUBMITTERS)
    ]
    run_out(pool, submitters, half, signals=False)


def test_whoever_is_killed_from_outside_costs_no_task_that_may_run_twice() -> None:
    chance = random.Random(7)
    with Pool(2, 16, backend=HASTY, panic_recovery=TIRELESS) as pool:
        patient = pool.options(retry_on_worker_death=1000)
        pids = set[int]()
        for number, (found, pid) in enumerate(patient.map(_with_pid, range(400))):
            assert found == number
            pids.add(pid)
            if number % 80 == 40:  # at a task, or between two
                os.kill(chance.choice([*filter(is_alive, pids)]), signal.SIGKILL)
        numbers = pool.metrics()
        assert (numbers.completed, numbers.panicked) == (400, 0)
    eventually(lambda: not any(map(is_alive, pids)))


def _with_pid(number: int) -> tuple[int, int]:
    return number, os.getpid()
