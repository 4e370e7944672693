"""Long chains of derived futures, and futures that are interrupted while they are settled."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pykka
import pytest

from ion_actors import Cancelled, Context, Future, Pool
from ion_actors.testing import VirtualClock
from tests import rounds
from tests.interrupts import KINDS, LIBRARY, every_point, interrupt

PATIENCE = 30.0
LENGTH = rounds(2_500, thorough=10_000)  # both are beyond the limit of recursion
kinds = pytest.mark.parametrize("kind", KINDS)

VERBS: dict[str, Callable[[Future[Any]], Future[Any]]] = {
    "map": lambda future: future.map(lambda value: value),
    "filter": lambda future: future.filter(lambda _: True),
    "reduce": lambda future: future.reduce(lambda left, _: left, [1]),
    "join": lambda future: future.join().map(lambda values: values[0]),  # type: ignore[index]
}
every_verb = pytest.mark.parametrize("verb", VERBS)


def chain(first: Future[Any], verb: str) -> list[Future[Any]]:
    made = [first]
    for _ in range(LENGTH):
        made.append(VERBS[verb](made[-1]))
    return made


@every_verb
def test_a_long_chain_settles(verb: str) -> None:
    first: Future[Any] = Future()
    *_, last = chain(first, verb)
    first.set_result([1])
    assert last.result(PATIENCE) == [1]


@every_verb
def test_a_long_chain_fails_and_is_cancelled(verb: str) -> None:
    failing: Future[Any] = Future()
    *_, last = chain(failing, verb)
    failing.set_exception(ZeroDivisionError())
    assert isinstance(last.exception(PATIENCE), ZeroDivisionError)
    cancelled: Future[Any] = Future()
    *_, last = chain(cancelled, verb)
    cancelled.cancel()
    assert isinstance(last.exception(PATIENCE), Cancelled)


@every_verb
def test_a_long_chain_of_a_future_with_a_get_hook_settles(verb: str) -> None:
    first: Future[Any] = Future()
    first.set_get_hook(lambda _: [1])
    *_, last = chain(first, verb)
    assert last.get(timeout=PATIENCE) == [1]
    theirs: pykka.ThreadingFuture[Any] = pykka.ThreadingFuture()
    *_, last = chain(_joined(theirs), verb)
    theirs.set([1])
    assert last.get(timeout=PATIENCE)


def _joined(theirs: pykka.Future[Any]) -> Future[Any]:
    done: Future[Any] = Future()
    done.set([1])
    return done.join(theirs)  # type: ignore[return-value]


def test_sources_of_get_hooks_are_asked_once_and_in_order() -> None:
    asked: list[str] = []
    left, right = Future[str](), Future[str]()
    left.set_get_hook(lambda _: asked.append("left") or "l")  # type: ignore[func-returns-value]
    right.set_get_hook(lambda _: asked.append("right") or "r")  # type: ignore[func-returns-value]
    both = left.map(str.upper).join(right, left)
    assert both.map(list).get() == ["L", "r", "l"]
    assert sorted(asked) == ["left", "right"]


def test_a_long_chain_of_a_task_settles_and_a_worker_may_wait_for_it() -> None:
    with Pool(2) as pool:
        gate: Future[int] = Future()
        *_, last = chain(pool.submit(gate.result), "map")
        waiting = pool.submit(last.result)
        gate.set_result(3)
        assert last.result(PATIENCE) == waiting.result(PATIENCE) == 3


def test_callbacks_of_a_chain_are_called_depth_first() -> None:
    first: Future[int] = Future()
    told: list[str] = []
    second = first.map(str)
    first.add_done_callback(lambda _: told.append("first"))
    second.map(str).add_done_callback(lambda _: told.append("third"))
    second.add_done_callback(lambda _: told.append("second"))
    first.set_result(1)
    assert told == ["third", "second", "first"]


def test_a_function_of_a_chain_may_derive_and_wait() -> None:
    first: Future[int] = Future()
    done: Future[int] = Future()
    done.set_result(5)
    last = first.map(lambda one: one + done.map(lambda other: other * 2).result(PATIENCE))
    first.set_result(1)
    assert last.result(PATIENCE) == 11


def test_a_long_chain_that_is_dropped_is_freed_without_a_crash() -> None:
    length = rounds(30_000, thorough=100_000)
    program = f"""
        from ion_actors import Future
        for settle in (None, lambda f: f.set_result(1), lambda f: f.cancel()):
            first = last = Future()
            for _ in range({length}):
                last = last.map(lambda v: v)
            if settle is not None:
                settle(first)
            del last
            del first
        print("freed")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=120, check=False,
        env={"PYTHONPATH": str(LIBRARY.parent)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "freed\n"), done.stderr


# -- interrupted -----------------------------------------------------------------------------

SETTLE: dict[str, Callable[[Future[Any]], object]] = {
    "set_result": lambda future: future.set_result(1),
    "set_exception": lambda future: future.set_exception(ZeroDivisionError()),
    "cancel": lambda future: future.cancel(),
}


@kinds
@pytest.mark.parametrize("settle", SETTLE)
def test_whoever_waits_hears_of_an_end_that_was_interrupted(
    settle: str, kind: type[BaseException], threads: ThreadPoolExecutor
) -> None:
    def make(point: int) -> str:
        future: Future[Any] = Future()
        told: list[object] = []
        future.add_done_callback(told.append)
        derived = future.map(lambda value: value)
        derived.add_done_callback(told.append)
        future.add_done_callback(told.append)
        parked = threads.submit(future.exception)
        timed = threads.submit(future.exception, PATIENCE)
        counting = threads.submit(concurrent.futures.wait, [future], PATIENCE)
        while len(future._waiters) < 3:
            threads.submit(int).result()
        where, _ = interrupt(point, lambda: SETTLE[settle](future), kind)
        if not future.done():  # it had not begun
            assert told == [], where
            SETTLE[settle](future)
        assert told == [future, derived, future], where
        assert derived.done(), where
        if settle == "cancel":
            future.set_running_or_notify_cancel()
        for one in (parked, timed):
            assert one.done() or one.exception(PATIENCE) is None or settle == "cancel", where
        assert counting.result(PATIENCE).done == {future}, where
        for one in (future, derived):
            if not one.cancelled():
                one.exception()
        return where

    assert len(every_point(make)) > 10


@kinds
@pytest.mark.parametrize("under", ["nothing", "a timeout", "a context"])
def test_a_wait_that_is_interrupted_leaves_nothing_behind(
    under: str, kind: type[BaseException], clock: VirtualClock
) -> None:
    def make(point: int) -> str:
        future: Future[int] = Future()
        context = Context(timeout=5, clock=clock)
        with Context() if under != "a context" else context:
            where, _ = interrupt(point, lambda: wait(future), kind)
        assert future._waiters == [], where
        assert clock.timers == 0, where
        future.set_result(1)
        return where

    def wait(future: Future[int]) -> None:
        try:
            future.result(0.001)
        except TimeoutError as error:
            if type(error) is not TimeoutError:
                raise

    assert len(every_point(make)) > 5


@kinds
def test_an_interrupted_function_of_a_map_fails_its_future_and_comes_out(
    kind: type[BaseException],
) -> None:
    import signal

    from tests.interrupts import _install_handler, handle_signal

    before = _install_handler()
    try:
        future: Future[int] = Future()
        told: list[object] = []
        derived = future.map(lambda _: handle_signal(kind))
        derived.add_done_callback(told.append)
        future.add_done_callback(told.append)
        with pytest.raises(kind):
            future.set_result(1)
        assert isinstance(derived.exception(), kind)
        assert told == [derived, future]
    finally:
        signal.signal(signal.SIGUSR2, before)


# -- awaited -----------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["wait_for", "timeout"])
def test_awaiting_with_a_timeout_leaves_no_callback_behind(limit: str) -> None:
    async def main() -> None:
        future: Future[int] = Future()
        assert future.set_running_or_notify_cancel()
        for _ in range(20):
            with pytest.raises(TimeoutError):
                if limit == "wait_for":
                    await asyncio.wait_for(future, 0.001)
                else:
                    async with asyncio.timeout(0.001):
                        await future
        assert future._done_callbacks == []
        future.set_result(1)
        assert await future == 1

    asyncio.run(main())


def test_asyncios_tools_take_a_wrapped_future() -> None:
    async def main() -> None:
        with Pool(1) as pool:
            wrapped = asyncio.wrap_future(pool.submit(pow, 2, 3))
            done, _ = await asyncio.wait({wrapped}, timeout=PATIENCE)
            assert [one.result() for one in done] == [8]

    asyncio.run(main())
    gc.collect()
