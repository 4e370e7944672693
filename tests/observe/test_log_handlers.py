"""Log handlers are the user's code: they hold up nobody who must not block."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Iterator

import pykka
import pytest

from ion_actors import Pool, logs
from ion_actors.clock import system_clock
from ion_actors.delivery import keep_free
from ion_actors.observe import Log
from ion_actors.supervision import Supervisor, child
from tests import needs_threads_at_exit
from tests.workerpool.helpers import threads_of

PATIENCE = 30.0


class Idle(pykka.ThreadingActor):
    """Does nothing."""


class Blocking(logging.Handler):
    """As one whose pipe is full, or whose server does not answer."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.gate = threading.Event(), threading.Event()
        self.threads: list[threading.Thread] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.threads.append(threading.current_thread())
        self.begun.set()
        self.gate.wait()


@pytest.fixture
def blocking() -> Iterator[Blocking]:
    """On all that the library logs."""
    handler = Blocking()
    logger = logging.getLogger("ion_actors")
    logger.addHandler(handler)
    yield handler
    handler.gate.set()
    assert logs.flush(PATIENCE)
    logger.removeHandler(handler)


def test_a_pool_goes_on_and_ends_in_time_while_a_handler_blocks(blocking):
    began = time.monotonic()
    pool = Pool(1)
    assert pool.submit(sys.exit).exception(PATIENCE)
    assert blocking.begun.wait(PATIENCE)
    assert pool.submit(pow, 2, 2).result(PATIENCE) == 4
    pool.resize(2)
    (supervisor,) = [one for one in threads_of(pool) if one.name.endswith("-supervisor")]
    assert pool.drain(PATIENCE).completed == 0
    assert time.monotonic() - began < PATIENCE / 2
    assert supervisor not in blocking.threads


def test_a_handler_may_submit_to_the_pool_that_logs():
    class ByPool(logging.Handler):
        def emit(self, record):
            shipped.append(pool.submit(record.getMessage))

    shipped, go, begun, handler = [], threading.Event(), threading.Event(), ByPool()
    logger = logging.getLogger("ion_actors.pool")
    logger.addHandler(handler)
    try:
        with Pool(1, queue_size=1) as pool:
            pool.submit(lambda: (begun.set(), go.wait(), sys.exit()))
            assert begun.wait(PATIENCE)
            queued = pool.submit(pow, 2, 2)
            go.set()
            assert queued.result(PATIENCE) == 4
            assert logs.flush(PATIENCE)
            assert any("was lost and is replaced" in one.result(PATIENCE) for one in shipped)
    finally:
        logger.removeHandler(handler)
        assert logs.flush(PATIENCE)


def test_a_tree_restarts_and_stops_while_a_handler_blocks(blocking):
    class Fragile(pykka.ThreadingActor):
        def on_start(self):
            lives.append(self.actor_ref)
            if len(lives) == 2:
                again.set()

        def on_receive(self, message):
            raise ValueError(message)

    lives, again = [], threading.Event()
    tree = Supervisor([child(Fragile)]).start()
    lives[0].tell("die")
    assert again.wait(PATIENCE)
    assert blocking.begun.wait(PATIENCE)
    assert not tree.close(PATIENCE).abandoned


def test_no_actor_waits_for_a_handler_of_what_is_logged_in_pykkas_name(blocking, caplog):
    caplog.set_level(logging.DEBUG, "pykka")
    logger = logging.getLogger("pykka")
    logger.addHandler(blocking)
    blocking.gate.set()  # it is enough to see where it runs
    try:
        tree = Supervisor([child(Idle)]).start()
        pool = Pool(1)
        assert pool.submit(sys.exit).exception(PATIENCE)
        assert pool.submit(pow, 2, 2).result(PATIENCE) == 4
        pool.close(PATIENCE)
        tree.close(PATIENCE)
        assert blocking.begun.wait(PATIENCE)
        assert {one.name for one in blocking.threads} == {"ion_actors-log"}
    finally:
        assert logs.flush(PATIENCE)
        logger.removeHandler(blocking)
    told = [one.getMessage() for one in caplog.records if one.name == "pykka"]
    assert any(one.startswith("Registered Idle") for one in told)
    assert any(one.startswith("Unregistered Idle") for one in told)


def test_the_clock_goes_on_while_a_handler_blocks(blocking):
    fired = threading.Event()
    now = system_clock.monotonic()
    system_clock.call_at(now, lambda: 1 / 0)
    assert blocking.begun.wait(PATIENCE)
    system_clock.call_at(now, fired.set)
    assert fired.wait(PATIENCE)


def test_a_finalizer_on_the_clocks_thread_does_not_wait_for_a_handler(blocking):
    unread, fired = [], threading.Event()
    with Pool(1) as pool:
        unread.append(pool.submit(int, "x"))
    now = system_clock.monotonic()
    system_clock.call_at(now, unread.clear)
    system_clock.call_at(now, fired.set)
    assert fired.wait(PATIENCE)
    assert blocking.begun.wait(PATIENCE)


def test_a_record_tells_of_where_it_was_made(caplog):
    def work() -> None:
        keep_free()
        try:
            raise ValueError("known")
        except ValueError as error:
            log(logging.ERROR, "%s failed", "it", error=error, task="it")
        made.append((time.time(), threading.get_ident()))

    made: list[tuple[float, int]] = []
    log = Log(None, "ion_actors.pool", pool="p")
    before = time.time()
    thread = threading.Thread(target=work, name="somebody")
    thread.start()
    thread.join()
    (record,) = caplog.records
    assert record.getMessage() == "it failed"
    assert (record.threadName, record.thread) == ("somebody", made[0][1])
    assert before <= record.created <= made[0][0]
    assert record.msecs == int(record.created % 1 * 1000)
    assert (record.pool, record.task) == ("p", "it")
    assert record.exc_info is not None
    assert record.exc_info[0] is ValueError
    assert (record.filename, record.funcName) == ("test_log_handlers.py", "work")


@pytest.mark.parametrize("target", ["adapter", "subclass", "object"])
def test_any_logger_is_called_by_the_thread_for_it(target):
    class Mine(logging.Logger):
        def isEnabledFor(self, level):
            threads.append(threading.current_thread().name)
            return super().isEnabledFor(level)

        def handle(self, record):
            records.append((record.getMessage(), record.exc_info is not None))

    class Adapter(logging.LoggerAdapter):
        def process(self, msg, kwargs):
            threads.append(threading.current_thread().name)
            return f"adapted {msg}", kwargs

    class Object:
        def log(self, level, message, *args, exc_info, extra):
            threads.append(threading.current_thread().name)
            records.append((message % args, exc_info is not None))

    threads, records = [], []
    mine = Mine("mine")
    logger = {"adapter": Adapter(mine, {}), "subclass": mine, "object": Object()}[target]
    log = Log(logger, "ion_actors", later=True)
    log(logging.ERROR, "it %s", "failed", error=ValueError())
    assert logs.flush(PATIENCE)
    assert records == [("adapted it failed" if target == "adapter" else "it failed", True)]
    assert set(threads) == {"ion_actors-log"}


def test_the_level_is_looked_at_before_anything_is_made(monkeypatch):
    posted = []
    monkeypatch.setattr(logs.LOGS, "post", posted.append)
    logger = logging.getLogger("ion_actors.pool")
    log = Log(None, "ion_actors.pool", later=True)
    monkeypatch.setattr(logger, "level", logging.INFO)
    log(logging.DEBUG, "not this")
    logging.disable(logging.WARNING)
    try:
        log(logging.WARNING, "nor this")
        log(logging.ERROR, "this")
    finally:
        logging.disable(logging.NOTSET)
    assert len(posted) == 1


def test_a_pool_ends_in_time_while_the_repr_of_an_exception_blocks():
    class Silent(Exception):
        def __repr__(self):
            begun.set()
            gate.wait(PATIENCE)
            return "silent"

        __str__ = __repr__

    def fail():
        raise Silent

    gate, begun = threading.Event(), threading.Event()
    began = time.monotonic()
    pool = Pool(1, initializer=fail)
    assert begun.wait(PATIENCE)
    pool.resize(2)
    pool.close(0.1)
    assert time.monotonic() - began < PATIENCE / 2
    gate.set()


def run(source: str, *flags: str) -> tuple[int, str, str]:
    command = [sys.executable, *flags, "-c", textwrap.dedent(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


@needs_threads_at_exit
def test_exit_does_not_wait_for_a_handler_or_a_hook_of_warnings():
    code, out, _ = run(
        """
        import logging, threading, time, warnings
        from ion_actors import Pool

        class Dead(logging.Handler):
            def emit(self, record):
                threading.Event().wait()

        logging.getLogger("ion_actors").addHandler(Dead())
        logging.getLogger("ion_actors").setLevel(logging.DEBUG)
        warnings.showwarning = lambda *_: threading.Event().wait()
        import atexit
        began = time.monotonic()
        atexit.register(lambda: print(time.monotonic() - began < 10))
        pool = Pool(1)
        pool.submit(print, "accepted")
        """,
        "-W", "default",
    )  # fmt: skip
    assert (code, out.split()) == (0, ["accepted", "True"])


def test_what_is_logged_at_exit_is_still_seen():
    code, _, errors = run(
        """
        import logging, sys
        from ion_actors import Pool
        logging.basicConfig(level=logging.DEBUG)
        pool = Pool(1, name="late")
        pool.submit(sys.exit)
        """,
        "-W", "default",
    )  # fmt: skip
    assert code == 0
    assert "pool 'late' has ended" in errors
    assert "ResourceWarning: pool 'late' was not closed" in errors


@pytest.mark.filterwarnings("always")
def test_a_warning_from_a_finalizer_on_the_clocks_thread_comes_later(monkeypatch):
    shown, threads = threading.Event(), []

    def show(*_, **__):
        threads.append(threading.current_thread().name)
        shown.set()

    monkeypatch.setattr(warnings, "showwarning", show)

    class Forgotten:
        def __del__(self):
            logs.warn_in_finalizer("forgotten", ResourceWarning, source=None)

    def free() -> None:
        nonlocal one
        one = None
        gc.collect()

    one = Forgotten()
    free()
    assert shown.is_set()
    shown.clear()
    one = Forgotten()
    system_clock.call_at(system_clock.monotonic(), free)
    assert shown.wait(PATIENCE)
    assert threads == [threading.current_thread().name, "ion_actors-log"]
