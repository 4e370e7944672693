"""Plays one round: makes its pool, lets its submitters loose, ends it, and checks the books."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ion_actors import (
    Backoff,
    Context,
    Future,
    IonError,
    PanicRecovery,
    Pool,
    PoolMetrics,
    ProcessBackend,
)
from ion_actors.delivery import CALLBACK_THREADS
from ion_actors.testing import VirtualClock
from tests.soak import errands
from tests.soak.books import allowed, balance, blurred, outcome
from tests.soak.plan import Ending, Round
from tests.soak.submitting import Submitting, interrupting

__all__ = ["Played", "play", "pool_of"]

PATIENCE = 20.0  # seconds, for what ought to come at once
TIDE = 0.25  # seconds that a virtual clock goes on for each millisecond

# Workers are lost all the time, and a start may fail for want of something.
TIRELESS = PanicRecovery(
    max_restarts=None, backoff=Backoff(initial=0.0, maximum=0.01, retries=10_000)
)


@dataclass(slots=True)
class Played:
    """What became of a round."""

    faults: list[str] = field(default_factory=list)
    tasks: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)


def pool_of(name: str, backend: str, **settings: Any) -> Pool:
    """A pool that goes on whatever happens to its workers."""
    chosen = ProcessBackend(grace=0.1, kill_after=0.5) if backend == "process" else backend
    pool = Pool(name=name, backend=chosen, panic_recovery=TIRELESS, **settings)
    errands.POOLS[name] = pool
    return pool


def play(drawn: Round) -> Played:
    """Play it to its end."""
    clock = VirtualClock() if drawn.virtual else None
    context = Context() if clock is None else Context(clock=clock)
    pool: Pool | None = pool_of(
        f"soak-{drawn.number}", drawn.backend, size=drawn.size, queue_size=drawn.queue_size,
        overflow=drawn.overflow, helping=drawn.helping, context=context,
        drain_timeout=None if drawn.virtual else PATIENCE,
    )  # fmt: skip
    assert pool is not None
    submitters = [Submitting(pool, drawn, part, clock) for part in drawn.submitters]
    with _tide(clock):
        _let_loose(submitters, interrupted=drawn.interrupted)
        for one in submitters:
            one.let_go()
        numbers = _end(pool, drawn.ending, context)
        del pool
        return _settled(drawn, submitters, numbers)


def _let_loose(submitters: list[Submitting], *, interrupted: bool) -> None:
    first, *others = submitters
    go = threading.Event()  # when all have their thread: one of them may take all memory

    def run(one: Submitting) -> None:
        go.wait()
        one.run()

    threads = [threading.Thread(target=run, args=(one,), name="soak-submitter") for one in others]
    for thread in threads:
        thread.start()
    go.set()
    with interrupting(first) if interrupted else contextlib.nullcontext():
        first.run()
    for thread in threads:
        thread.join()  # if one hangs, the program's watchdog says where


@contextlib.contextmanager
def _tide(clock: VirtualClock | None) -> Iterator[None]:
    """A virtual clock that goes on by itself, much faster than the real one."""
    if clock is None:
        yield
        return
    over = threading.Event()

    def rise() -> None:
        while not over.wait(0.001):
            clock.advance(TIDE)

    thread = threading.Thread(target=rise, name="soak-tide")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _end(pool: Pool, ending: Ending, context: Context) -> PoolMetrics | None:
    """End the pool. Returns its last numbers, if anybody can still ask it."""
    if ending is Ending.FORGOTTEN:
        return None
    with contextlib.suppress(IonError):  # it was ended before, or could not finish in time
        if ending is Ending.CLOSE:
            pool.close(PATIENCE)
        elif ending is Ending.SHUTDOWN:
            pool.shutdown(cancel_futures=True)
        elif ending is Ending.BLOCK:
            with pool:
                pass
        else:
            if ending is Ending.CONTEXT:
                context.cancel()
            pool.drain()
    until = time.monotonic() + PATIENCE
    while not pool.is_closed and time.monotonic() < until:
        time.sleep(0.001)
    return pool.metrics()


def _settled(drawn: Round, submitters: list[Submitting], numbers: PoolMetrics | None) -> Played:
    played = Played()
    gc.collect()  # a pool that was forgotten ends once nothing refers to it
    kept = [(job, future) for one in submitters for job, future in one.kept]
    concurrent.futures.wait([future for _, future in kept], PATIENCE)
    CALLBACK_THREADS.flush(PATIENCE)
    certain: Counter[str] = Counter()
    for job, future in kept:
        ended = outcome(future)
        played.outcomes[ended] += 1
        certain[ended] += not blurred(job, ended)
        if ended not in allowed(job, drawn):
            played.faults.append(f"{job} is {ended}: {_shown(future)}")
    played.faults += [fault for one in submitters for fault in one.faults]
    played.faults += _told(submitters)
    if numbers is not None:
        unsure = any(one.unsure for one in submitters)
        complete = certain == played.outcomes and not (drawn.exhausts or unsure)
        played.faults += balance(numbers, certain, complete=complete)
        played.tasks = numbers.submitted
    else:
        played.tasks = len(kept)
    return played


def _shown(future: Future[Any]) -> str:
    return repr(future) if not future.done() or future.cancelled() else repr(future.exception())


def _told(submitters: list[Submitting]) -> list[str]:
    until = time.monotonic() + PATIENCE
    for one in submitters:
        while len(one.told) < len(one.kept) - one.unsure and time.monotonic() < until:
            time.sleep(0.001)
    counts = Counter(count for one in submitters for count in one.told.values())
    faults = [f"{n} callbacks were called {k} times" for k, n in counts.items() if k != 1]
    for one in submitters:
        silent = [(job, future) for job, future in one.kept if future not in one.told]
        # The callback of a submission that was interrupted may not have been added.
        if len(silent) > one.unsure:
            shown = "; ".join(f"{job}: {_shown(future)}" for job, future in silent)
            faults.append(f"callbacks were never called: {shown}")
    return faults
