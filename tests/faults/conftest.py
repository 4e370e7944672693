"""What these tests share: tasks that last until the test says so, and waits that give up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pykka
import pytest

from ion_actors import Future, Pool, PoolState

#: Seconds after which a wait has failed. Only a broken pool ever takes so long.
PATIENCE = 30.0


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
    pause = threading.Event()

    def until(condition: Callable[[], object]) -> None:
        for _ in range(int(PATIENCE * 1000)):
            if condition():
                return
            pause.wait(0.001)
        raise AssertionError("it never came true")

    return until


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
