"""Work that outlives its process: what a drain leaves undone is done by the next run.

::

    pip install .                             # nothing else is needed
    python examples/dead_letters.py --tasks 40 --time 0.3
    python examples/dead_letters.py           # goes on where the last run had to stop
    python examples/dead_letters.py           # until nothing is left

Each task is a call of ``square`` that takes a while. A run has so many seconds (as a container has
that is being stopped); then its pool is drained, and what was not done by the deadline becomes dead
letters. A subscriber writes each as a line of JSON: the name of the function, the arguments, and
the reason. The next run reads the lines, and puts them into its own pool. One task in ten takes its
worker down, each time: it is tried twice, and then put aside as poison for somebody to look at.

Exit code: 0 if all is done, 3 if something is left for the next run, 2 for wrong arguments, 130
after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ion_actors import (
    DeadLetter,
    DrainTimeout,
    DropReason,
    Future,
    PanicRecovery,
    Pool,
    current_context,
)

QUIET = logging.getLogger("dead_letters")
LEFT, POISON, DONE = "left.jsonl", "poison.jsonl", "done.jsonl"


class WorkerLost(Exception):
    """Stands for what takes a worker down: a crash in a library, a connection that is gone."""


def square(number: int, takes: float) -> int:
    """The work. One in ten is poison."""
    if number % 10 == 9:
        raise WorkerLost(f"{number} took it down")
    current_context().sleep(takes)
    return number * number


FUNCTIONS: dict[str, Callable[..., Any]] = {"square": square}


# --- lines of JSON ------------------------------------------------------------------------------


class Lines:
    """A file of JSON lines that several threads append to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()  # guards the order of the lines
        self.written = 0

    def append(self, facts: dict[str, Any]) -> None:
        """Write one line."""
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(facts) + "\n")
            self.written += 1


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a file, if there is one."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def as_line(letter: DeadLetter) -> dict[str, Any]:
    """What it takes to make the call again, in another process."""
    return {
        "call": letter.task,
        "args": list(letter.args),
        "reason": letter.reason.value,
        "history": [f"{death.worker}: {death.error}" for death in letter.history],
    }


# --- one run ------------------------------------------------------------------------------------


def run(folder: Path, new: int, takes: float, seconds: float) -> int:
    """Do what is left and what is new; returns how much is left then."""
    folder.mkdir(parents=True, exist_ok=True)
    calls = [(line["call"], line["args"]) for line in read(folder / LEFT)]
    print(f"{len(calls)} calls were left by the last run, {new} are new")
    calls += [("square", [number, takes]) for number in range(new)]
    part = folder / f"{LEFT}.part"
    part.unlink(missing_ok=True)  # of a run that was killed: what it had to do is in the other file
    left, poison, done = Lines(part), Lines(folder / POISON), Lines(folder / DONE)

    def keep(letter: DeadLetter) -> None:
        (poison if letter.reason is DropReason.QUARANTINED else left).append(as_line(letter))

    pool = Pool(4, len(calls) + 1, panic_recovery=PanicRecovery(is_panic=WorkerLost), logger=QUIET)
    pool.dead_letters.subscribe(keep)
    try:
        for name, args in calls:
            submit(pool, done, name, args)
        pool.drain(seconds)
    except DrainTimeout as late:
        print(f"the time is up: {len(late.report.unfinished)} calls are not done")
    finally:
        pool.close(0)
        pool.dead_letters.join()
        part.touch()
        part.replace(folder / LEFT)  # every letter is on disk: from here on, this is what is left
        print(f"{done.written} done, {poison.written} put aside as poison, {left.written} left")
    return left.written


def submit(pool: Pool, done: Lines, name: str, args: list[Any]) -> None:
    """Have a call made, and its result written down."""

    def note(future: Future[Any]) -> None:
        if not future.cancelled() and future.exception() is None:
            done.append({"call": name, "args": args, "result": future.result()})

    work = pool.options(name=name, retry_on_worker_death=1)
    work.submit(FUNCTIONS[name], *args).add_done_callback(note)


# --- the command line ---------------------------------------------------------------------------


def command_line() -> argparse.ArgumentParser:
    """The options and their defaults."""
    parser = argparse.ArgumentParser(description="What one run leaves undone, the next one does.")
    parser.add_argument(
        "--folder", type=Path, default=Path("build/letters"), metavar="DIR",
        help="for the JSON lines (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--tasks", type=whole, default=0, help="new ones (%(default)s)")
    parser.add_argument(
        "--time", type=positive, default=0.5, metavar="SECONDS",
        help="for one run, from when the drain begins (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--takes", type=positive, default=0.05, metavar="SECONDS", help="each task (%(default)s)"
    )
    return parser


def whole(text: str) -> int:
    """An argument type: a whole number up to 100 000."""
    if not 0 <= (value := int(text)) <= 100_000:
        raise argparse.ArgumentTypeError(f"{value} is not in 0..100000")
    return value


def positive(text: str) -> float:
    """An argument type: seconds."""
    if not 0 < (value := float(text)) <= 3600:
        raise argparse.ArgumentTypeError(f"{value} is not more than 0 and at most 3600")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    options = command_line().parse_args(arguments)
    QUIET.setLevel(logging.CRITICAL + 1)  # the poison is in a file of its own
    try:
        return 3 if run(options.folder, options.tasks, options.takes, options.time) else 0
    except KeyboardInterrupt:
        print("interrupted; what was not done is left for the next run")
        return 130


if __name__ == "__main__":
    sys.exit(main())
