"""One submitter of a soak: does its part of a round's plan, whatever comes in between."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections import Counter
from types import FrameType
from typing import Any

from ion_actors import Backoff, Future, IonError, Pool, QueueFull, Retry, TaskPanicked
from ion_actors.testing import VirtualClock
from tests.soak import errands
from tests.soak.blows import strike
from tests.soak.plan import Blow, Job, Lot, Round

__all__ = ["SoftLimit", "Submitting", "interrupting"]

MIB = 1 << 20
BEAT = 0.003  # seconds between two interruptions

# What a want of memory, threads or descriptors raises, wherever it is felt.
WANT = (MemoryError, OSError, RuntimeError)

#: What is submitted for each lot: the function and its arguments.
ERRANDS: dict[Lot, tuple[Any, ...]] = {
    Lot.WELL: (errands.echo, 1),
    Lot.FAIL: (errands.fail,),
    Lot.PANIC: (errands.stray,),
    Lot.EXIT: (errands.leave_politely,),
    Lot.PAUSES: (errands.pause,),
    Lot.DEAF: (errands.be_deaf,),
    Lot.COROUTINE: (errands.rest,),
    Lot.HUNGRY: (errands.want_too_much,),
    Lot.LATE: (errands.linger,),
    Lot.UNWANTED: (errands.linger,),
    Lot.KILLED: (errands.die,),
    Lot.LEAVES: (errands.leave,),
}
#: The same on an event loop, which must not be blocked.
ON_A_LOOP = {
    Lot.PAUSES: (errands.rest,),
    Lot.LATE: (errands.linger_async,),
    Lot.UNWANTED: (errands.linger_async,),
}


class SoftLimit(Exception):
    """What the handler of a signal raises."""


class Submitting:
    """See the module.

    Args:
        pool: where it submits.
        drawn: the round.
        part: what it does of that.
        clock: the pool's, if that is a virtual one.
    """

    def __init__(
        self, pool: Pool, drawn: Round, part: tuple[Job | Blow, ...], clock: VirtualClock | None
    ) -> None:
        self.kept: list[tuple[Job, Future[Any]]] = []
        self.told: Counter[Future[Any]] = Counter()  # how often the callback of each was called
        self.refused = 0  # submissions
        self.unsure = 0  # submissions that were interrupted, or made several tasks
        self.faults: list[str] = []
        self.may_be_interrupted = False
        self._pool = pool
        self._round = drawn
        self._part = part
        self._clock = clock
        self._at = 0

    def run(self) -> None:
        """Do all of it."""
        while self._at < len(self._part):
            try:
                self._go_on()
            except SoftLimit:
                self.unsure += 1
            except Exception as error:
                self.may_be_interrupted = False
                self.faults.append(f"{self._part[self._at - 1]} raised {error!r}")
        self.may_be_interrupted = False

    def let_go(self) -> None:
        """Refer to the pool no more, so that it can be forgotten."""
        del self._pool

    def _go_on(self) -> None:
        while self._at < len(self._part):
            action = self._part[self._at]
            self._at += 1  # first: what is interrupted is not done again
            if isinstance(action, Blow):
                self._strike(action)
                continue
            self.may_be_interrupted = not self._runs_loop_here(action)
            try:
                self._submit(action)
            finally:
                self.may_be_interrupted = False

    def _runs_loop_here(self, job: Job) -> bool:
        """Whether an event loop may run in this thread: interrupted, it may forget to go on."""
        by_caller = self._round.overflow == "caller_runs" and job.lot is Lot.COROUTINE
        return by_caller or job.lot is Lot.FLOCK

    def _strike(self, blow: Blow) -> None:
        try:
            fault = strike(blow.strike, blow.amount, self._pool, self._clock)
        except IonError:
            return  # the pool has ended
        except WANT:
            if not self._round.exhausts:
                raise
            return
        if fault is not None:
            self.faults.append(fault)

    def _submit(self, job: Job) -> None:
        try:
            if job.lot in (Lot.BURST, Lot.STREAM, Lot.FLOCK):
                self.unsure += 1
                self._submit_several(job)
            else:
                self._submit_one(job)
        except (IonError, asyncio.CancelledError) as error:
            self._refuse(error)
        except WANT:
            if not self._round.exhausts:
                raise
            self.unsure += 1

    def _refuse(self, error: BaseException) -> None:
        self.refused += 1
        if isinstance(error, QueueFull) or self._round.exhausts or self._round.calls_off:
            return
        if self._round.overflow != "block" and not self._round.interrupted:
            return
        if isinstance(error, TaskPanicked) and self._round.kills:  # of a map or a stream
            return
        raise error

    def _submit_several(self, job: Job) -> None:
        if job.lot is Lot.BURST:
            size = 1 if job.size < 100 else 50
            found = sum(1 for _ in self._pool.map(errands.echo, range(job.size), chunksize=size))
        elif job.lot is Lot.STREAM:
            found = len(list(self._pool.stream(errands.count, job.size)))
        else:
            found = asyncio.run(errands.flock(self._pool, job.size)) // 2
        if found != job.size:
            raise AssertionError(f"{found} results of {job.size}")

    def _submit_one(self, job: Job) -> None:
        options = dict(job.options)
        if (tries := options.get("retry")) is not None:
            options["retry"] = Retry(tries, Backoff(initial=0.001))
        submitter = self._pool.options(**options) if options else self._pool
        submit = submitter.try_submit if job.verb == "try_submit" else submitter.submit
        if job.lot is Lot.NESTED:
            self.unsure += 1
        future = submit(*self._errand(job.lot))
        self.kept.append((job, future))
        future.add_done_callback(self._note)
        if job.cancel:
            future.cancel()

    def _note(self, future: Future[Any]) -> None:
        self.told[future] += 1  # by whoever ends it: nobody else does

    def _errand(self, lot: Lot) -> tuple[Any, ...]:
        on_loop = self._round.backend == "asyncio"
        if lot is Lot.NESTED:
            return (errands.nest_async if on_loop else errands.nest, self._pool.name)
        if lot is Lot.BIG:
            return errands.echo, b"x" * MIB
        if lot is Lot.UNSENDABLE:
            return errands.echo, threading.Lock()
        return (ON_A_LOOP if on_loop else ERRANDS).get(lot) or ERRANDS[lot]


class interrupting:
    """A block in which a signal interrupts the submitter of the main thread again and again."""

    def __init__(self, submitter: Submitting) -> None:
        self._submitter = submitter

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self._submitter.may_be_interrupted:
            self._submitter.may_be_interrupted = False
            raise SoftLimit

    def __enter__(self) -> None:
        signal.signal(signal.SIGALRM, self._handle)
        signal.setitimer(signal.ITIMER_REAL, BEAT, BEAT)

    def __exit__(self, *_: object) -> None:
        # The handler stays: one that is taken away while its signal is on the way is an error.
        signal.setitimer(signal.ITIMER_REAL, 0)
