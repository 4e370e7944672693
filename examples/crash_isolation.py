"""A native crash in the middle of the work: what a ProcessPoolExecutor loses, and what a Pool does.

::

    pip install .                             # nothing else is needed
    python examples/crash_isolation.py
    python examples/crash_isolation.py --tasks 100 --crash 60 --how kill

The same tasks are given to ``concurrent.futures.ProcessPoolExecutor`` and to a ``Pool`` with child
processes. One of them takes its process down. What to look for:

- *ProcessPoolExecutor* is broken by it: every task that had not ended yet fails, too, and nothing
  more is accepted.
- *Pool*: exactly one task fails, with the signal that killed its process, and with the place where
  it was. The worker gets a new process, and all others never notice.
- *Again*: a task that may safely run twice says so by ``retry_on_worker_death``. If it was bad luck
  (the crash happens only once), it succeeds. If it kills every process that it meets, it is given
  up, with its history.

Exit code: 0, or 1 if a task is lost that should not be, 2 for wrong arguments, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from pathlib import Path

from ion_actors import Pool, TaskPanicked, TaskQuarantined, WorkerDied

WORK = 0.005  # seconds of each task


def work(number: int) -> int:
    """Keep a CPU busy for a moment."""
    until = time.perf_counter() + WORK
    while time.perf_counter() < until:
        pass
    return number


def segfault() -> None:
    """Read what is not there, as a faulty extension module does."""
    ctypes.string_at(0)


def leave() -> None:
    """End the process behind everybody's back."""
    os._exit(3)


def kill() -> None:
    """End as the system ends a process for want of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


CRASHES: dict[str, Callable[[], None]] = {"segfault": segfault, "exit": leave, "kill": kill}


def crash(how: str) -> None:
    """Take the process down."""
    CRASHES[how]()


def work_or_crash(number: int, fatal: int, how: str) -> int:
    """One of the tasks; the fatal one takes the process down."""
    if number == fatal:
        crash(how)
    return work(number)


def crash_once(how: str, mark: Path) -> str:
    """Take the process down, but only the first time."""
    if not mark.exists():
        mark.touch()
        crash(how)
    return "worked at the second try"


def run(executor: Executor, args: argparse.Namespace) -> tuple[Counter[str], BaseException | None]:
    """Submit all tasks, and count how they end. Returns the error of the one that crashes, too."""
    futures: list[Future[int]] = []
    lost = 0
    for number in range(args.tasks):
        try:
            futures.append(executor.submit(work_or_crash, number, args.crash, args.how))
        except RuntimeError:  # it is broken, and accepts nothing
            lost += 1
    errors = [future.exception() for future in futures]
    counts = Counter("done" if error is None else type(error).__name__ for error in errors)
    counts["refused"] = lost
    return +counts, errors[args.crash] if args.crash < len(errors) else None


def show(name: str, counts: Counter[str]) -> None:
    """One line for one executor."""
    print(f"{name:<20} " + ", ".join(f"{count} {what}" for what, count in counts.items()))


def show_death(error: BaseException | None) -> None:
    """How the process ended, and where it was."""
    died = None if error is None else error.__cause__
    if isinstance(died, WorkerDied):
        print(f"  {died.args[0]}")
        for line in died.last_words.splitlines():
            if __file__ in line:
                print(f"  {line.strip()}")


def try_again(pool: Pool, how: str, folder: Path) -> bool:
    """Tasks that may run twice. Returns whether they end as they should."""
    patient = pool.options(retry_on_worker_death=2)
    unlucky = patient.submit(crash_once, how, folder / "crashed")
    poison = patient.submit(crash, how)
    print(f"  a task with bad luck {unlucky.result()}")
    error = poison.exception()
    if not isinstance(error, TaskQuarantined):
        return False
    workers = ", ".join(death.worker for death in error.history)
    print(f"  a poison task was given up after it had taken down {workers}")
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Run it."""
    args = parse(argv)
    logging.getLogger("ion_actors").setLevel(logging.CRITICAL)  # each panic would be logged
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(args.workers, mp_context=context) as executor:
        counts, _ = run(executor, args)
        show("ProcessPoolExecutor", counts)
    with (
        Pool(args.workers, backend="process", name="pool") as pool,
        tempfile.TemporaryDirectory() as folder,
    ):
        counts, error = run(pool, args)
        show("Pool", counts)
        show_death(error)
        well = try_again(pool, args.how, Path(folder))
    expected = Counter(done=args.tasks - 1, TaskPanicked=1)
    return 0 if well and counts == expected and isinstance(error, TaskPanicked) else 1


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--tasks", type=int, default=200, help="how many (default: 200)")
    parser.add_argument("--crash", type=int, default=50, help="which of them crashes (default: 50)")
    parser.add_argument("--workers", type=int, default=4, help="processes (default: 4)")
    parser.add_argument(
        "--how", choices=CRASHES, default="segfault", help="what it does (default: segfault)"
    )
    args = parser.parse_args(argv)
    if not 0 <= args.crash < args.tasks:
        parser.error("--crash must be the number of one of the tasks, from 0")
    if args.workers < 1:
        parser.error("--workers must be at least 1")
    return args


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
