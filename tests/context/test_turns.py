"""Waiting in a line, by threads and by coroutines: who ends a wait, and what is undone."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ion_actors import Cancelled, Context, DeadlineExceeded, background
from ion_actors.context import Terms, Turn, await_turn, wait_turn
from ion_actors.testing import VirtualClock
from tests.inside import callbacks_on

PATIENCE = 30.0


class Tickets:
    """A line at a counter: whoever calls ``next`` serves the first one."""

    def __init__(self, at_once: bool = False) -> None:
        self.at_once = at_once
        self.lock = threading.Lock()  # guards the line
        self.line: deque[Turn[str]] = deque()
        self.forsaken: list[str] = []
        self.joined = threading.Semaphore(0)

    def join(self, turn: Turn[str]) -> bool:
        if self.at_once:
            return True
        with self.lock:
            self.line.append(turn)
        self.joined.release()
        return False

    def give_up(self, turn: Turn[str], error: BaseException | None) -> bool:
        with self.lock:
            if turn.over:
                return False
            self.line.remove(turn)
            turn.error, turn.over = error, True
        turn.wake()
        return True

    def forsake(self, turn: Turn[str]) -> None:
        self.forsaken.append(turn.item)

    def next(self) -> str:
        with self.lock:
            turn = self.line.popleft()
            turn.over = True
        turn.wake()
        return turn.item

    def await_joined(self, times: int = 1) -> None:
        for _ in range(times):
            assert self.joined.acquire(timeout=PATIENCE)


Wait = Callable[..., None]


def by_thread(line: Tickets, item: str, context: Context, **how: Any) -> None:
    wait_turn(line, item, Terms(context, context.clock, **how))


def by_coroutine(line: Tickets, item: str, context: Context, **how: Any) -> None:
    asyncio.run(await_turn(line, item, Terms(context, context.clock, **how)))


both = pytest.mark.parametrize("wait", [by_thread, by_coroutine])


@both
def test_one_who_is_served_at_once_does_not_wait(wait: Wait) -> None:
    context = Context()
    wait(Tickets(at_once=True), "a", context)
    assert not callbacks_on(context)


@both
def test_turns_come_in_the_order_of_the_line(wait: Wait, threads: ThreadPoolExecutor) -> None:
    line = Tickets()
    waits = []
    for item in "abc":
        waits.append(threads.submit(wait, line, item, background()))
        line.await_joined()
    for number, item in enumerate("abc"):
        assert line.next() == item
        assert waits[number].result(PATIENCE) is None
    assert line.forsaken == []


@both
def test_the_end_of_the_context_ends_the_wait(wait: Wait, threads: ThreadPoolExecutor) -> None:
    line, context = Tickets(), Context()
    waiting = threads.submit(wait, line, "a", context)
    line.await_joined()
    context.cancel("enough")
    with pytest.raises(Cancelled, match="enough"):
        waiting.result(PATIENCE)
    assert not line.line
    assert line.forsaken == []


@both
def test_a_context_that_has_ended_ends_the_wait_at_once(wait: Wait) -> None:
    context = Context(timeout=0)
    with pytest.raises(DeadlineExceeded):
        wait(Tickets(), "a", context)


@both
def test_the_deadline_ends_the_wait_with_the_error_for_it(
    wait: Wait, threads: ThreadPoolExecutor, clock: VirtualClock
) -> None:
    line, context = Tickets(), Context(clock=clock)
    waiting = threads.submit(wait, line, "a", context, deadline=5.0, late=lambda: LookupError("x"))
    clock.wait_for_timers(1)
    clock.advance(4.9)
    assert not waiting.done()
    clock.advance(0.2)
    with pytest.raises(LookupError, match="x"):
        waiting.result(PATIENCE)
    assert not line.line
    assert clock.timers == 0


@both
def test_a_wait_leaves_nothing_on_its_context_or_clock(
    wait: Wait, threads: ThreadPoolExecutor, clock: VirtualClock
) -> None:
    line, context = Tickets(), Context(clock=clock)
    waiting = threads.submit(wait, line, "a", context, deadline=5.0)
    clock.wait_for_timers(1)
    line.next()
    waiting.result(PATIENCE)
    assert clock.timers == 0
    assert not callbacks_on(context)


@both
def test_who_is_served_and_late_in_the_same_moment_was_served(wait: Wait) -> None:
    """The line decides, once; the other one comes too late."""
    line, context = Tickets(), Context()

    def serve_then(turn: Turn[str]) -> bool:
        Tickets.join(line, turn)
        line.next()
        context.cancel()
        return False

    line.join = serve_then  # type: ignore[method-assign]
    wait(line, "a", context, deadline=0.0)
    assert line.forsaken == []


# -- interruptions ---------------------------------------------------------------------------


class Interrupted(BaseException):
    pass


class Interrupting(VirtualClock):
    """A clock on which every wait is interrupted, as by Ctrl-C, after something has happened."""

    def __init__(self, first: Callable[[], object]) -> None:
        super().__init__()
        self.first = first

    def park(self, signal: object, deadline: float | None) -> bool:
        self.first()
        raise Interrupted


def test_an_interrupted_thread_leaves_the_line() -> None:
    line = Tickets()
    with pytest.raises(Interrupted):
        by_thread(line, "a", Context(clock=Interrupting(lambda: None)))
    assert not line.line
    assert line.forsaken == []


def test_a_thread_interrupted_when_it_was_served_hands_it_on() -> None:
    line = Tickets()
    with pytest.raises(Interrupted):
        by_thread(line, "a", Context(clock=Interrupting(line.next)))
    assert line.forsaken == ["a"]


def test_a_thread_interrupted_when_it_was_late_hands_on_nothing() -> None:
    line = Tickets()
    context: Context
    context = Context(clock=Interrupting(lambda: context.cancel("late")))
    with pytest.raises(Interrupted):
        by_thread(line, "a", context)
    assert not line.line
    assert line.forsaken == []


def test_an_interruption_in_the_clean_up_hands_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was served and awake, but not out of the function yet."""
    line, context = Tickets(), Context()
    add_callback = context.add_callback

    def add_one_that_cannot_be_removed(callback: Callable[[], object]) -> object:
        registration = add_callback(callback)

        class Cursed:
            def remove(self) -> None:
                registration.remove()
                raise Interrupted

        line.next()
        return Cursed()

    monkeypatch.setattr(context, "add_callback", add_one_that_cannot_be_removed)
    for wait in (by_thread, by_coroutine):
        with pytest.raises(Interrupted):
            wait(line, "a", context)
    assert line.forsaken == ["a", "a"]


def test_a_coroutine_that_is_cancelled_leaves_the_line() -> None:
    async def main() -> None:
        line = Tickets()
        task = asyncio.create_task(await_turn(line, "a", Terms(background(), background().clock)))
        await asyncio.sleep(0)
        assert line.line
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not line.line
        assert line.forsaken == []

    asyncio.run(main())


def test_a_coroutine_cancelled_when_it_was_served_hands_it_on() -> None:
    async def main() -> None:
        line = Tickets()
        task = asyncio.create_task(await_turn(line, "a", Terms(background(), background().clock)))
        await asyncio.sleep(0)
        line.next()  # it will only hear of it in the next round of the loop
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert line.forsaken == ["a"]

    asyncio.run(main())


def test_a_coroutine_that_is_forgotten_hands_it_on(clock: VirtualClock) -> None:
    """A loop that was stopped and closed never resumes it; its end is that of an object."""
    line = Tickets()
    loop = asyncio.new_event_loop()
    try:
        # Driven by hand: a task that is destroyed while it is pending would be logged.
        steps = await_turn(line, "a", Terms(Context(clock=clock), clock, 5.0))

        async def first_step() -> None:
            steps.send(None)

        loop.run_until_complete(first_step())
    finally:
        loop.close()
    line.next()
    steps.close()
    assert line.forsaken == ["a"]
    assert clock.timers == 0


@both
def test_a_wait_that_failed_leaves_no_cycle(
    wait: Wait, clock: VirtualClock, without_gc: None
) -> None:
    """Its error refers to the frame by the traceback, and must not be referred to from there."""

    class Failure(Exception):
        pass

    async def in_loop() -> weakref.ref[Failure]:
        try:
            await await_turn(Tickets(), "a", Terms(background(), clock, 0.0, Failure))
        except Failure as error:
            return weakref.ref(error)
        raise AssertionError

    def fail() -> weakref.ref[Failure]:
        if wait is by_coroutine:
            return asyncio.run(in_loop())
        try:
            wait_turn(Tickets(), "a", Terms(background(), clock, 0.0, Failure))
        except Failure as error:
            return weakref.ref(error)
        raise AssertionError

    assert fail()() is None
