"""Threads and coroutines at one semaphore, moved by a test one step at a time, beside a model.

Whose turn it is gets decided in the call that changes something, so the model knows after each step
who must have been granted; those are then waited for, and nobody else may have been.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from ion_actors import AcquireTimeout, Cancelled, Context
from ion_actors.semaphore import Fairness, WeightedSemaphore
from ion_actors.testing import VirtualClock
from tests.semaphore.helpers import PATIENCE, Loop, eventually, in_thread
from tests.semaphore.test_line import Model, waiter

KINDS = ("thread", "coroutine")


@dataclass(eq=False)
class Actor:
    """A thread or a coroutine that wants permits."""

    kind: str
    permits: int
    context: Context
    deadline: float | None
    done: Future[Any] = field(default_factory=Future)  # of a thread
    task: asyncio.Task[Any] | None = None  # of a coroutine

    def __post_init__(self) -> None:
        self.turn = waiter(self.permits)  # its stand-in in the model

    def outcome(self, loop: Loop) -> BaseException | None:
        """How its wait ended, which it must have by now or very soon."""
        if self.task is None:
            return self.done.exception(PATIENCE)
        loop.settle(self.task)
        return asyncio.CancelledError() if self.task.cancelled() else self.task.exception()

    @property
    def over(self) -> bool:
        return self.done.done() if self.task is None else self.task.done()


class Stage:
    """See the module."""

    def __init__(self, capacity: int, fairness: Fairness, loop: Loop) -> None:
        self.clock = VirtualClock()
        self.semaphore = WeightedSemaphore(capacity, fairness=fairness)
        self.model = Model(capacity, fairness)
        self.loop = loop
        self.waiting: list[Actor] = []
        self.holding: list[Actor] = []
        self.granted: list[Actor] = []  # ever, in order

    # -- steps -----------------------------------------------------------------------------

    def enter(self, kind: str, permits: int, timeout: float | None = None) -> Actor:
        """Somebody comes for permits."""
        deadline = None if timeout is None else self.clock.monotonic() + timeout
        actor = Actor(kind, permits, Context(clock=self.clock), deadline)
        if kind == "thread":
            acquire = self.semaphore.acquire
            actor.done = in_thread(acquire, permits, timeout=timeout, context=actor.context)
        else:
            coroutine = self.semaphore.aacquire(permits, timeout, actor.context)
            actor.task = self.loop.start(coroutine)
        self.waiting.append(actor)
        self.model.line.append(actor.turn)
        self.follow()
        if actor in self.waiting and timeout is not None:
            limited = sum(one.deadline is not None for one in self.waiting)
            self.clock.wait_for_timers(limited)
        return actor

    def try_to_enter(self, permits: int) -> None:
        """Somebody comes who would not wait, and goes at once."""
        expected = self.model.may_pass(permits)
        assert self.semaphore.try_acquire(permits) == expected
        if expected:
            self.semaphore.release(permits)
        self.follow()

    def release(self, actor: Actor) -> None:
        """One who holds permits gives them back."""
        self.holding.remove(actor)
        self.semaphore.release(actor.permits)
        self.model.free += actor.permits
        self.follow()

    def release_and_cancel(self, actor: Actor) -> None:
        """The same, but the first coroutine that is granted by it is cancelled before it knows."""
        self.holding.remove(actor)
        self.model.free += actor.permits
        served = self.find(self.model.served())
        victim = next((one for one in served if one.task is not None), None)

        def at_once() -> None:
            self.semaphore.release(actor.permits)
            if victim is not None and victim.task is not None:
                assert victim.task.cancel()

        self.loop.call(at_once)
        if victim is not None:
            served.remove(victim)
            self.end(victim, asyncio.CancelledError)
            self.model.free += victim.permits
        self.grant(served)
        self.follow()

    def call_off(self, actor: Actor, by_context: bool) -> None:
        """One who waits does no longer: its context is cancelled, or its asyncio task."""
        self.model.line.remove(actor.turn)
        if actor.task is not None and not by_context:
            self.loop.call(actor.task.cancel)
            self.end(actor, asyncio.CancelledError)
        else:
            actor.context.cancel()
            self.end(actor, Cancelled)
        self.follow()

    def pass_time(self, seconds: float) -> None:
        """Some who wait may be late, one after the other; each may make room for others."""
        now = self.clock.monotonic() + seconds
        late, granted = [], []
        for actor in sorted(self.waiting, key=lambda one: one.deadline or 0.0):
            if actor.deadline is not None and actor.deadline <= now and actor not in granted:
                self.model.line.remove(actor.turn)
                late.append(actor)
                granted += self.find(self.model.served())
        self.clock.advance(seconds)
        for actor in late:
            self.end(actor, AcquireTimeout)
        self.grant(granted)
        self.follow()

    def finish(self) -> None:
        """Everybody gets what he waits for, in turn, and gives it back."""
        while self.holding or self.waiting:
            self.release(self.holding[0])
        assert self.semaphore.available == self.semaphore.capacity
        assert self.clock.timers == 0

    # -- what must be true -----------------------------------------------------------------

    def find(self, turns: list[Any]) -> list[Actor]:
        return [next(one for one in self.waiting if one.turn is turn) for turn in turns]

    def follow(self) -> None:
        """The model says who is granted now, and the semaphore must agree."""
        self.grant(self.find(self.model.served()))
        # One that has just come may be on its way into the line; all else has happened.
        eventually(lambda: self.semaphore.waiting == len(self.model.line))
        assert self.semaphore.available == self.model.free
        assert not any(one.over for one in self.waiting)
        assert len(self.waiting) == len(self.model.line)

    def grant(self, actors: list[Actor]) -> None:
        for actor in actors:
            self.end(actor, type(None))
            self.holding.append(actor)
            self.granted.append(actor)

    def end(self, actor: Actor, kind: type[BaseException] | type[None]) -> None:
        outcome = actor.outcome(self.loop)
        assert isinstance(outcome, kind), outcome
        self.waiting.remove(actor)
