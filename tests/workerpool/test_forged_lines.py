"""Names and messages that a stranger has made cannot begin a line of a log or of a report."""

from __future__ import annotations

import functools
import logging
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pykka
import pytest

from ion_actors import ChildStartFailed, Context, Pool, QueueFull, TaskAbandoned
from ion_actors.circuit import CircuitBreaker
from ion_actors.logs import flush
from ion_actors.naming import printable
from ion_actors.observe.structured import LoggingTracer
from ion_actors.ratelimit import SharedLimiter, TokenBucket, per, per_second
from ion_actors.semaphore import WeightedSemaphore
from ion_actors.supervision import Lifecycle, Supervisor, child
from ion_actors.testing import RecordingMetrics, VirtualClock

BREAKS = ["\n", "\r", "\u2028", "\x1b[2K", "\ud800"]  # all others: tests/unit/test_printable.py
FORGED = "2026-01-01 CRITICAL forged"
PATIENCE = 30.0


@pytest.fixture(params=BREAKS, ids=ascii)
def evil(request: pytest.FixtureRequest) -> str:
    return f"a{request.param}{FORGED} %s%d"


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    """All that the library logs, with all names that a format may use."""
    found: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record)

    handler, logger = Keep(), logging.getLogger("ion_actors")
    level, spread = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield found
    logger.removeHandler(handler)
    logger.setLevel(level)
    logger.propagate = spread


def check(text: str) -> None:
    """Nothing in it can be taken for a line of the log."""
    first, *rest = text.split("\n")
    assert first.isprintable(), ascii(text)
    for line in rest:
        assert line.isprintable(), ascii(text)
        assert not line or line.startswith((" ", "│", "├", "└")), ascii(text)


def check_all(records: list[logging.LogRecord], at_least: int = 1) -> None:
    assert flush(PATIENCE)
    assert len(records) >= at_least
    facts = ("pool", "task", "worker", "child", "limiter", "threadName", "span", "error_type")
    for record in records:
        check(record.getMessage())
        for fact in facts:
            if isinstance(found := getattr(record, fact, ""), str):
                assert found.isprintable(), (fact, ascii(found))


class Evil(Exception):
    def __repr__(self) -> str:
        return str(self)


def fail(text: str) -> None:
    raise Evil(text)


def panic(text: str) -> None:
    raise SystemExit(text)


class EvilPanic(BaseException):
    def __repr__(self) -> str:
        return str(self)


def panic_with_repr(text: str) -> None:
    raise EvilPanic(text)


def print_and_crash(text: str) -> None:
    os.write(2, text.encode("utf-8", "surrogatepass"))
    os.abort()


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_tasks_that_fail(backend: str, evil: str, records: list[logging.LogRecord]) -> None:
    tracer = LoggingTracer(logging.getLogger("ion_actors.trace"))
    with Pool(size=1, backend=backend, name=evil, tracer=tracer) as pool:
        named = pool.options(name=evil)
        for call in (fail, panic, panic_with_repr):
            error = named.submit(call, evil).exception(PATIENCE)
            assert error is not None
            if call is not fail:
                check(str(error))
        unread = named.submit(fail, evil)
        pool.submit(int).result(PATIENCE)
        del unread
    check_all(records, at_least=4)
    assert any(r"forged" in record.getMessage() for record in records)


def test_a_child_that_dies(evil: str, records: list[logging.LogRecord]) -> None:
    with Pool(size=1, backend="process", name=evil) as pool:
        error = pool.options(name=evil).submit(print_and_crash, evil).exception(PATIENCE)
        assert error is not None
        check(str(error))
        cause = error.__cause__
        assert cause is not None
        check(str(cause))
        assert FORGED in str(cause)
    check_all(records)


def is_measured() -> bool:
    coverage = sys.modules.get("coverage")
    return coverage is not None and coverage.Coverage.current() is not None


def test_tasks_that_would_not_end(evil: str, records: list[logging.LogRecord]) -> None:
    file = evil.replace("\0", "")
    if is_measured():  # coverage itself fails at a file name that cannot be encoded
        file = file.encode("utf-8", "replace").decode()
    code = compile("def stuck(go, on):\n    go.set()\n    on.wait(30)", file, "exec")
    made: dict[str, Any] = {}
    exec(code, made)
    began, on = threading.Event(), threading.Event()
    told = threading.Event()
    pool = Pool(size=1, name=evil, stuck_after=0.01, on_stuck=lambda _: told.set(), queue_size=1)
    task = pool.options(name=evil).submit(made["stuck"], began, on)
    assert began.wait(PATIENCE)
    assert told.wait(PATIENCE)
    queued = pool.options(name=evil).submit(int)
    with pytest.raises(QueueFull) as caught:
        pool.options(name=evil).try_submit(int)
    check(str(caught.value))
    check(str(pool.dump()))
    report = pool.close(timeout=0)
    check(str(report))
    check(repr(report.running[0].name))
    error = task.exception(PATIENCE)
    assert isinstance(error, TaskAbandoned)
    check(str(error))
    assert error.task == evil  # the name itself is not changed
    assert queued.cancelled()
    on.set()
    for thread in threading.enumerate():
        if FORGED in thread.name:
            assert thread.name.isprintable()
            thread.join(PATIENCE)
    check_all(records, at_least=3)


def test_functions_by_their_own_names(evil: str, records: list[logging.LogRecord]) -> None:
    def function() -> None:
        raise SystemExit

    function.__qualname__ = function.__name__ = evil
    with Pool(size=1) as pool:
        for one in (function, functools.partial(function)):
            error = pool.submit(one).exception(PATIENCE)
            assert error is not None
            check(str(error))
    check_all(records)


def test_a_callers_thread(evil: str, records: list[logging.LogRecord]) -> None:
    go, began = threading.Event(), threading.Event()

    def hold() -> None:
        began.set()
        go.wait(PATIENCE)

    with Pool(size=1, queue_size=0, overflow="caller_runs") as pool:
        held = pool.submit(hold)
        assert began.wait(PATIENCE)
        dumps = []
        caller = threading.Thread(
            target=lambda: pool.submit(lambda: dumps.append(str(pool.dump()))), name=evil
        )
        caller.start()
        caller.join(PATIENCE)
        go.set()
        held.result(PATIENCE)
    [dump] = dumps
    check(dump)
    assert "forged" in dump


def test_workers_with_state(evil: str, records: list[logging.LogRecord]) -> None:
    class Shop(pykka.ThreadingActor):
        def on_receive(self, message: object) -> None:
            raise Evil(message)

    Shop.__name__ = Shop.__qualname__ = evil.replace("\0", "").replace("\ud800", "")
    with Pool(size=1, name=evil, worker=Shop) as pool:
        pool.tell(evil)
        with pytest.raises(Evil):
            pool.ask(evil).result(PATIENCE)
        check(str(pool.dump()))
    check_all(records)


def test_a_pool_that_cannot_start(evil: str, records: list[logging.LogRecord]) -> None:
    with Pool(size=1, name=evil, initializer=fail, initargs=(evil,)) as pool:
        error = pool.submit(int).exception(PATIENCE)
        assert error is not None
        check(str(error))
    check_all(records)


def test_trees(evil: str, records: list[logging.LogRecord]) -> None:
    events: list[str] = []

    class Actor(pykka.ThreadingActor):
        def on_receive(self, message: object) -> None:
            raise Evil(message)

    tree = Supervisor(
        [child(Actor, id=evil), child(lambda: Pool(size=1, name=evil), id=evil + "2")], name=evil
    )
    restarted = threading.Event()
    with tree:
        tree.subscribe(lambda event: events.append(str(event)))
        tree.subscribe(lambda event: event.kind is Lifecycle.RESTARTED and restarted.set())
        tree[evil].tell(evil)
        assert restarted.wait(PATIENCE)
        check(str(tree))
        assert "forged" in str(tree)
    tree = Supervisor([child(functools.partial(fail, evil), id=evil)], name=evil)
    with pytest.raises(ChildStartFailed) as caught:
        tree.start()
    check(str(caught.value))
    for event in events:
        check(event)
    assert events
    check_all(records)


def test_around_the_pool(evil: str, records: list[logging.LogRecord]) -> None:
    metrics = RecordingMetrics()
    clock = VirtualClock()
    with Context(clock=clock):
        bucket = TokenBucket(per_second(1), 1, name=evil, metrics=metrics)
        assert bucket.allow()
        bucket.set_rate(per_second(2))
        with pytest.raises(TimeoutError) as limited:
            bucket.wait(timeout=0.1)
        shared = SharedLimiter(per(1, 60), storage="memory://", key="k", name=evil)
        assert shared.allow()
        with pytest.raises(TimeoutError) as refused:
            shared.wait(timeout=0)
        semaphore = WeightedSemaphore(1, name=evil)
        assert semaphore.try_acquire()
        with pytest.raises(TimeoutError) as none_left:
            semaphore.acquire(timeout=0)
        breaker = CircuitBreaker(failure_threshold=1, name=evil)
        with pytest.raises(Evil):
            breaker.execute(fail, evil)
        with pytest.raises(RuntimeError) as rejected:
            breaker.execute(int)
        context = Context()
        context.cancel(evil)
        check(repr(context))
    for caught in (limited, refused, none_left, rejected):
        check(str(caught.value))
    assert metrics.count("ion_ratelimit_requests_total", limiter=printable(evil)) == 2
    check_all(records)
