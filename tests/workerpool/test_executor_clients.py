"""What the clients of an executor expect beyond its methods, found by running them."""

from __future__ import annotations

import concurrent.futures
import itertools
import logging
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ion_actors import (
    BrokenPool,
    Close,
    Context,
    Drain,
    Future,
    PanicRecovery,
    Pool,
    PoolClosed,
    TaskPanicked,
)
from ion_actors.workerpool.model.backoff import Backoff
from tests.workerpool.helpers import until_waiting

PATIENCE = 30.0
Occupy = Callable[[Pool], list[Future[Any]]]
Until = Callable[[Callable[[], object]], None]


class Thing:
    """Something that can be watched going."""

    def __call__(self, *args: object, **kwargs: object) -> Thing:
        return Thing()

    def fail(self, *args: object) -> None:
        raise Failure

    def panic(self, *args: object) -> None:
        raise Stray


class Failure(Exception):
    """Unlike a built-in exception, it can be watched going."""


class Stray(BaseException):
    """The same, as a panic."""


# pytest keeps all log records, and with them exceptions, and with these the frames of tasks.
SILENT = logging.getLogger("silent")
SILENT.setLevel(logging.CRITICAL + 1)


# -- calling ---


@pytest.mark.parametrize("verb", ["submit", "try_submit"])
def test_no_keyword_is_reserved(verb: str) -> None:
    keywords = dict.fromkeys(("self", "fn", "timeout", "args", "kwargs", "context", "name"), 1)
    with Pool(1) as pool:
        assert getattr(pool, verb)(dict, **keywords).result() == keywords


@pytest.mark.parametrize("verb", ["submit", "try_submit"])
def test_a_missing_function_is_a_type_error(verb: str) -> None:
    with Pool(1) as pool:
        with pytest.raises(TypeError):
            getattr(pool, verb)()
        with pytest.raises(TypeError):
            getattr(pool, verb)(fn=str)


@pytest.mark.parametrize("end", ["close", "drain", "shutdown"])
def test_submitting_after_the_end_is_a_runtime_error(end: str) -> None:
    pool = Pool(1)
    getattr(pool, end)()
    for verb in (pool.submit, pool.try_submit):
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            verb(str)


def test_submitting_is_refused_as_soon_as_shutdown_has_returned(occupy: Occupy) -> None:
    pool = Pool(1)
    occupy(pool)
    pool.shutdown(wait=False)
    with pytest.raises(RuntimeError):
        pool.submit(str)
    pool.close(timeout=0)


def test_the_number_of_workers_can_be_read_as_dask_does() -> None:
    with Pool(3) as pool:
        assert pool._max_workers == 3


# -- a failed initializer ---


def fail() -> None:
    raise LookupError("no database")


def test_a_failed_initializer_breaks_the_pool_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    policy = PanicRecovery(backoff=Backoff(initial=0, retries=0))
    go = threading.Event()
    pool = Pool(1, initializer=lambda: go.wait(PATIENCE) and fail(), panic_recovery=policy)
    pending = [pool.submit(str) for _ in range(3)]
    go.set()
    for one in pending:
        with pytest.raises(concurrent.futures.BrokenExecutor):
            one.result(PATIENCE)
    with pytest.raises(BrokenPool):
        pool.submit(str)
    assert "failed to start" in caplog.text
    assert "no database" in caplog.text
    pool.close()


# -- references ---


@pytest.mark.parametrize("outcome", ["return", "fail", "panic", "cancel", "overrun"])
def test_nothing_keeps_a_reference_to_a_settled_task(
    outcome: str, occupy: Occupy, gate: threading.Event, without_gc: None, until: Until
) -> None:
    call, argument, keyword = Thing(), Thing(), Thing()
    fn = {"fail": call.fail, "panic": call.panic}.get(outcome, call)
    with Pool(1, logger=SILENT) as pool:
        if outcome in ("cancel", "overrun"):
            occupy(pool)
        options = pool.options(timeout=0.001) if outcome == "overrun" else pool
        future = (
            options.submit(fn, argument, keyword)
            if fn != call
            else options.submit(fn, argument, keyword=keyword)
        )
        if outcome == "cancel":
            future.cancel()
        concurrent.futures.wait([future], PATIENCE)
        watched = [weakref.ref(one) for one in (call, argument, keyword)]
        if outcome == "return":
            watched.append(weakref.ref(future.result()))
        watched.append(weakref.ref(future))  # type: ignore[arg-type]
        if not future.cancelled() and future.exception() is not None:
            watched.append(weakref.ref(future.exception()))  # type: ignore[arg-type]
        del call, argument, keyword, fn, options, future

        def gone() -> bool:
            # The worker lets go of the last of it just after the future is done. Without the GIL,
            # what a thread made goes when that thread runs again, so it must not stay asleep.
            if outcome not in ("cancel", "overrun"):
                pool.submit(str).result(PATIENCE)
            return not any(one() for one in watched)

        until(gone)
        gate.set()


def test_a_task_that_is_over_before_submit_returns_is_not_kept_by_its_own_context(
    without_gc: None, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    """Its place on its context refers to it, so each would keep the other."""
    accepted = Pool._accepted

    def late(self: Pool, task: Any) -> None:
        concurrent.futures.wait([task], PATIENCE)
        accepted(self, task)

    with Pool(1) as pool, Context():
        monkeypatch.setattr("ion_actors.workerpool.submission.submitter.Submitter._accepted", late)
        watched = weakref.ref(pool.submit(str))
        monkeypatch.undo()
        until(lambda: pool.submit(str).result(PATIENCE) == "" and watched() is None)


def test_a_future_that_is_kept_does_not_keep_its_call(without_gc: None, until: Until) -> None:
    with Pool(1) as pool:
        call, argument = Thing(), Thing()
        watched = [weakref.ref(call), weakref.ref(argument)]
        future = pool.submit(call, argument)
        future.result()
        del call, argument
        until(lambda: not any(one() for one in watched))
        assert future.done()


def test_what_close_dropped_is_kept_by_nobody_but_the_report(
    occupy: Occupy, gate: threading.Event, without_gc: None, until: Until
) -> None:
    pool = Pool(1)
    occupy(pool)
    argument = Thing()
    watched = weakref.ref(argument)
    dropped = pool.submit(print, argument)
    dropped.add_done_callback(lambda _: gate.set())
    report = pool.close()
    del argument
    assert watched() is report.cancelled[0].args[0]
    del report
    until(lambda: watched() is None)
    assert dropped.cancelled()


# -- cancelled futures are announced ---


@pytest.mark.parametrize("end", ["cancel", "close", "drain deadline", "shutdown"])
def test_futures_wait_never_hangs_on_what_was_cancelled_in_the_queue(
    end: str, occupy: Occupy, gate: threading.Event, threads: ThreadPoolExecutor, until: Until
) -> None:
    pool = Pool(1)
    occupy(pool)
    queued = [pool.submit(str) for _ in range(10)]
    waiting = threads.submit(concurrent.futures.wait, queued, PATIENCE)
    coming = threads.submit(lambda: set(concurrent.futures.as_completed(queued, PATIENCE)))
    until(lambda: all(len(one._waiters) == 2 for one in queued))
    if end == "cancel":
        assert all(one.cancel() for one in queued)
    elif end == "close":
        pool.actor_ref.tell(Close())
    elif end == "drain deadline":
        pool.actor_ref.tell(Drain(0))
    else:
        pool.shutdown(wait=False, cancel_futures=True)
    assert waiting.result(PATIENCE).done == coming.result(PATIENCE) == set(queued)
    gate.set()
    pool.close()


# -- order ---


def test_the_tasks_of_one_submitter_are_started_in_order(threads: ThreadPoolExecutor) -> None:
    started: list[tuple[int, int]] = []
    with Pool(1, 4) as pool:

        def submit(who: int) -> None:
            for number in range(500):
                pool.submit(started.append, (who, number))

        for one in [threads.submit(submit, who) for who in range(4)]:
            one.result(PATIENCE)
    for _, mine in itertools.groupby(sorted(started, key=lambda one: one[0]), lambda one: one[0]):
        numbers = [number for _, number in mine]
        assert numbers == list(range(500))


@pytest.mark.parametrize("end", ["close", "drain"])
def test_a_blocked_submitter_is_released_by_the_end(
    end: str, occupy: Occupy, gate: threading.Event, threads: ThreadPoolExecutor, until: Until
) -> None:
    pool = Pool(1, 0)
    occupy(pool)
    blocked = threads.submit(pool.submit, str)
    until_waiting(pool, 1)
    ending = threads.submit(getattr(pool, end))
    assert isinstance(blocked.exception(PATIENCE), PoolClosed)
    gate.set()
    ending.result(PATIENCE)


# -- what a callback raises ---


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_what_a_done_callback_raises_is_logged_and_the_others_are_called(
    error: type[BaseException],
    caplog: pytest.LogCaptureFixture,
    occupy: Occupy,
    gate: threading.Event,
) -> None:
    def bad(_: object) -> None:
        raise error("in a callback")

    called: list[object] = []
    with Pool(1) as pool:
        (held,) = occupy(pool)
        held.add_done_callback(bad)
        held.add_done_callback(called.append)
        gate.set()
    assert called == [held]
    assert "exception calling callback" in caplog.text
    assert (pool.metrics().panicked, pool.metrics().restarts) == (0, 0)


def test_a_panic_is_seen_by_wait_and_by_callbacks() -> None:
    seen: list[Future[Any]] = []
    with Pool(1) as pool:
        future = pool.submit(exit)
        future.add_done_callback(seen.append)
        assert concurrent.futures.wait([future], PATIENCE).done == {future}
        assert isinstance(future.exception(), TaskPanicked)
    assert seen == [future]
