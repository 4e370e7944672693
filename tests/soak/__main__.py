"""The command line of the soak."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import faulthandler
import functools
import gc
import itertools
import logging
import platform
import random
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ion_actors import logs
from ion_actors.testing import assert_no_leaks
from tests.soak import errands, figure, gauges, plan
from tests.soak.play import play
from tests.soak.residents import Resident
from tests.soak.submitting import SoftLimit

HANG = 110  # seconds after which a round hangs: all stacks are shown, and that is the end
PATIENCE = 30.0

# CPython issue 148874: `with lock:` keeps the lock if a signal handler raises in between.
INTERRUPTS = sys.version_info[:2] != (3, 14)
# asyncio is safe in several threads without the GIL "since Python 3.14", as its documentation says.
GIL = getattr(sys, "_is_gil_enabled", lambda: True)()
LOOPS = GIL or sys.version_info >= (3, 14)
# A child that was forked while other threads ran has hung in a look-up in `sys.modules`.
FORKS = GIL


def main() -> int:
    """Soak, and say what came out. Returns the exit code."""
    options = _parser().parse_args()
    seed = random.SystemRandom().randrange(10**9) if options.seed is None else options.seed
    name = f"{platform.python_implementation()} {platform.python_version()}{sys.abiflags}"
    faulthandler.enable()  # also in a forked child that hangs, which is aborted
    print(f"soak of {options.seconds:g} s on {name}; seed {seed}", flush=True)
    if not INTERRUPTS:
        print("without interruptions: on 3.14 a lock may be lost to them (CPython 148874)")
    if not LOOPS:
        print("without event loops: before 3.14, several need the GIL")
        options.backends = tuple(one for one in options.backends if one != "asyncio")
    if not FORKS:
        print("without forks: a forked child may hang there without the GIL")
    options.into.mkdir(parents=True, exist_ok=True)
    soak = Soak(seed, options)
    with _all_errors_are_faults(soak.faults):
        try:
            with assert_no_leaks(PATIENCE):
                soak.run()
        except AssertionError as error:
            soak.faults.append(str(error))
    soak.report(f"{name}, seed {seed}")
    return bool(soak.faults)


class Soak:
    """The program: rounds, one after the other, and what was seen of them."""

    def __init__(self, seed: int, options: argparse.Namespace) -> None:
        self.faults: list[str] = []
        self._seed = seed
        self._options = options
        self._samples: list[gauges.Sample] = []
        self._outcomes: Counter[str] = Counter()
        self._tasks = 0
        self._rounds = 0

    def run(self) -> None:
        """Until the time is up, or something is wrong."""
        options = self._options
        draw = functools.partial(
            plan.draw,
            backends=options.backends,
            interrupts=INTERRUPTS,
            loops=LOOPS,
            forks=FORKS,
        )
        residents = [Resident(backend, loops=LOOPS) for backend in options.backends]
        began = time.monotonic()
        if options.round is not None:
            chosen: Iterator[plan.Round] = iter([draw(self._seed, options.round)])
        else:
            chosen = map(functools.partial(draw, self._seed), itertools.count())
        for one in chosen:
            if time.monotonic() - began >= options.seconds or self.faults:
                break
            self._play(one, residents)
            self._samples.append(gauges.read(time.monotonic() - began, self._tasks))
        with _watched():
            for resident in residents:
                wrong, tasks = resident.leave()
                self.faults += wrong
                self._tasks += tasks

    def _play(self, drawn: plan.Round, residents: list[Resident]) -> None:
        # First: whoever hangs or dies is to be known by its number.
        with (self._options.into / "rounds.txt").open("a", encoding="utf-8") as file:
            strikes = ", ".join(sorted(one.name for one in drawn.strikes))
            print(f"{self._seed}/{drawn.number} {drawn.backend} {strikes}", file=file)
        before = len(self.faults)
        with _watched():
            played = play(drawn)
            for resident in residents:
                self.faults += resident.visit()
            self.faults += played.faults
            gc.collect()
        self._outcomes += played.outcomes
        self._tasks += played.tasks
        self._rounds += 1
        if len(self.faults) > before:
            print(
                f"in round {drawn.number}: --seed {self._seed} --round {drawn.number}", flush=True
            )
            print(dataclasses.replace(drawn, submitters=()), sorted(drawn.strikes, key=str))

    def report(self, title: str) -> None:
        """Write what was measured, and print what came out."""
        into = self._options.into
        gauges.write(into / "soak.csv", self._samples)
        self.faults += gauges.grown(self._samples)
        drawn = figure.draw(into / "soak.svg", self._samples, title)
        print(f"{self._rounds} rounds, {self._tasks} tasks: {dict(self._outcomes)}")
        if self._samples:
            print(f"first {self._samples[0]}\nlast  {self._samples[-1]}")
        print(f"written to {into}: soak.csv{', soak.svg' if drawn else ''}, rounds.txt")
        print("\n".join(self.faults) or "nothing was wrong")


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """A block that hangs if it takes too long: then all is shown, and the program ends."""
    faulthandler.dump_traceback_later(HANG + 10, exit=True)
    timer = threading.Timer(HANG, _show_pools)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        faulthandler.cancel_dump_traceback_later()


def _show_pools() -> None:
    for pool in list(errands.POOLS.values()):
        print(f"HANGS: {pool.metrics()}\n{pool.dump()}", flush=True)
    for task in list(errands.FLOCKS):
        task.print_stack(file=sys.stdout)


@contextlib.contextmanager
def _all_errors_are_faults(faults: list[str]) -> Iterator[None]:
    """What nobody catches, in threads, finalizers and event loops, counts."""

    def thread(args: threading.ExceptHookArgs) -> None:
        faults.append(f"a thread ended with {args.exc_value!r}")
        threading.__excepthook__(args)

    def unraisable(args: sys.UnraisableHookArgs) -> None:
        if args.exc_type in (SoftLimit, MemoryError):
            return
        try:
            shown = f"{args.err_msg or 'ignored'} {args.object!r}: {args.exc_value!r}"
        except MemoryError:
            return  # of what happens then, this is the least
        if "BaseEventLoop.__del__" not in shown:  # half made, for want of descriptors
            faults.append(shown)
            sys.__unraisablehook__(args)

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            error = record.exc_info[1] if record.exc_info else None
            if not isinstance(error, MemoryError | OSError):
                faults.append(f"logged: {record.getMessage()}: {error!r}")

    threading.excepthook, sys.unraisablehook = thread, unraisable
    quiet = logging.getLogger("ion_actors")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    logging.getLogger("asyncio").addHandler(Handler(logging.ERROR))
    warnings.simplefilter("ignore", DeprecationWarning)  # a fork while other threads run
    # A coroutine that was called for, when the pool ended or the submission was interrupted.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    try:
        yield
    finally:
        logs.flush(PATIENCE)
        threading.excepthook, sys.unraisablehook = threading.__excepthook__, sys.__unraisablehook__


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600, help="by default an hour")
    parser.add_argument("--seed", type=int, help="of what happens; printed, and by default new")
    parser.add_argument("--round", type=int, help="play this one only")
    parser.add_argument(
        "--backends",
        type=lambda names: tuple(names.split(",")),
        default=plan.BACKENDS,
        help="by default thread,process,asyncio",
    )
    parser.add_argument(
        "--into", type=Path, default=Path("build/soak"), help="where the curves are written"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
