"""Every test leaves nothing behind; and the fixtures that several folders share."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hypothesis
import pykka
import pytest
from _pytest.logging import LogCaptureHandler

from ion_actors import Future, Pool, PoolState, logs
from ion_actors.testing import VirtualClock, assert_no_leaks
from tests import collect_garbage, slow_first
from tests.waiting import PATIENCE, eventually

# A hang is ended by pytest-timeout, which shows all stacks: see pyproject.toml. Deadlines of
# hypothesis would only find that the machine is busy.
hypothesis.settings.register_profile("quick", deadline=None, max_examples=40)
hypothesis.settings.register_profile("ci", parent=hypothesis.settings.get_profile("quick"),
                                     derandomize=True)  # fmt: skip
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=2000)
hypothesis.settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "quick")
)


def pytest_configure() -> None:
    """Ctrl-C interrupts programs of the tests, also if a shell runs the tests in the background.

    There, it has Ctrl-C ignored, and what a process ignores its children ignore, too.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)  # pytest-randomly comes first
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The slow tests begin: the other processes would wait for one that comes last."""
    processes = getattr(config, "workerinput", {}).get("workercount", 1)
    if processes > 1:
        slow = [one.get_closest_marker("slow") is not None for one in items]
        items[:] = [items[number] for number in slow_first(slow, processes)]


def pytest_collection_finish() -> None:
    """What was collected lasts as long as the process: no garbage collection looks at it."""
    collect_garbage()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Whatever a test has printed or logged can be sent to the process that shows it."""
    report = yield
    report.sections = [tuple(map(_sendable, section)) for section in report.sections]
    return report


def _sendable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """No thread, actor, child process or timer outlives its test."""
    with assert_no_leaks(patience=30.0):
        yield


class _Delivered(pytest.LogCaptureFixture):
    """Shows what was logged so far, also what another thread has still to handle."""

    @property
    def handler(self) -> LogCaptureHandler:
        assert logs.flush(30)
        return super().handler


@pytest.fixture
def caplog(caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Of this test only: what others have left may be logged when the collector comes to it."""
    collect_garbage()
    logs.flush()
    caplog.clear()
    found = _Delivered(request.node, _ispytest=True)
    yield found
    found._finalize()


@pytest.fixture
def throw() -> Iterator[Callable[[int, type[BaseException]], int]]:
    """Raises something in the thread of that ident, and says in how many there were."""
    yield _throw
    # CPython 3.11 notes for all threads that something was thrown, until it is raised, which never
    # happens if the thread ends before. Until then, threads that are profiled run in circles. To
    # raise anything ends that.
    try:
        _throw(threading.get_ident(), _Thrown)
        while True:
            pass
    except _Thrown:
        return


class _Thrown(BaseException):
    """By the fixture, in its own thread."""


def _throw(thread: int, error: type[BaseException]) -> int:
    return ctypes.pythonapi.PyThreadState_SetAsyncExc(  # type: ignore[no-any-return]
        ctypes.c_ulong(thread), ctypes.py_object(error)
    )


@pytest.fixture
def clock() -> VirtualClock:
    """Time that only the test moves."""
    return VirtualClock()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Helpers: what they raise, ``result()`` raises in the test."""
    with ThreadPoolExecutor(max_workers=32, thread_name_prefix="test-helper") as executor:
        yield executor


@pytest.fixture
def without_gc() -> Iterator[None]:
    """Only reference counts free anything, so a reference cycle is seen."""
    collect_garbage()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


#: Seconds after which a wait has failed. Only a broken pool ever takes so long.


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Something for tasks to wait at; open at the latest when the test is over."""
    event = threading.Event()
    yield event
    event.set()


Occupy = Callable[[Pool], list[Future[Any]]]


@pytest.fixture
def occupy(gate: threading.Event) -> Occupy:
    """Keeps every worker of a pool busy until the gate opens; returns the tasks' futures.

    The tasks are deaf: they do not look at their contexts.
    """

    def occupy(pool: Pool) -> list[Future[Any]]:
        started = threading.Barrier(pool.size + 1)

        def hold() -> str:
            started.wait(PATIENCE)
            return "let go" if gate.wait(PATIENCE) else "forgotten"

        futures = [pool.submit(hold) for _ in range(pool.size)]
        started.wait(PATIENCE)
        return futures

    return occupy


Until = Callable[[Callable[[], object]], None]


@pytest.fixture
def until() -> Until:
    """Waits for a condition that nobody announces, such as a state or a number."""
    return eventually


@pytest.fixture
def draining(until: Until) -> Callable[[Pool], None]:
    """Waits until a pool has heard that it is to end."""
    return lambda pool: until(lambda: pool.state is not PoolState.RUNNING)


class Bystander(pykka.ThreadingActor):
    """Another actor of the same process, which has nothing to do with any pool."""

    use_daemon_thread = True

    def on_receive(self, message: Any) -> Any:
        return message


@pytest.fixture
def bystander() -> Iterator[pykka.ActorRef[Bystander]]:
    """An actor that must not be harmed: it is alive at the start, and must be at the end."""
    ref = Bystander.start()
    try:
        yield ref
        assert ref.ask("still there?", timeout=PATIENCE) == "still there?"
    finally:
        ref.stop(timeout=PATIENCE)
