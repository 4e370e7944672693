"""Small things that the pool's tests share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ion_actors import Pool
from ion_actors.futures import Future

PATIENCE = 30.0  # seconds after which a wait in a test is a failure


class Gate:
    """A task that says when it has begun, and then waits to be let through."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self._open = threading.Event()

    def __call__(self) -> str:
        self.entered.release()
        assert self._open.wait(PATIENCE), "the gate was never opened"
        return "through"

    def await_entered(self, times: int = 1) -> None:
        for _ in range(times):
            assert self.entered.acquire(timeout=PATIENCE), "nobody came to the gate"

    def open(self) -> None:
        self._open.set()


@contextmanager
def busy(pool: Pool) -> Iterator[Gate]:
    """All workers of the pool are busy inside the block."""
    gate = Gate()
    futures = [pool.submit(gate) for _ in range(pool.size)]
    gate.await_entered(pool.size)
    try:
        yield gate
    finally:
        gate.open()
        for future in futures:
            if not future.cancelled():
                future.exception(PATIENCE)


def run_in_thread(call: object, *args: object) -> Future[object]:
    """Call it in a thread; the future tells what came of it."""
    future: Future[object] = Future()

    def run() -> None:
        try:
            future.set_result(call(*args))  # type: ignore[operator]
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="test-helper").start()
    return future


def eventually(condition: Callable[[], object]) -> None:
    """Wait until it is so: for what other threads do and nobody announces."""
    pause = threading.Event()
    for _ in range(int(PATIENCE * 1000)):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("it never came true")


def until_waiting(pool: Pool, submitters: int) -> None:
    """Wait until so many submitters are blocked on the pool's full mailbox."""
    eventually(lambda: len(pool._mailbox._waiters) == submitters)
