"""Small things that the pool's tests share."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ion_actors import BrokenPool, IonError, Pool, logs
from ion_actors.awaitables import running_loop
from ion_actors.delivery import CALLBACK_THREADS
from ion_actors.futures import Future
from ion_actors.observe import HOOKS
from tests.waiting import PATIENCE, eventually


class Gate:
    """A task that says when it has begun, and then waits to be let through.

    Where it is sent to another process, a folder stands between the two.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards that the folder knows whether it is open
        self._open = threading.Event()
        self.entered = threading.Semaphore(0)
        self._folder: Path | None = None
        self._awaited = 0

    def __call__(self) -> Any:
        self.entered.release()
        if running_loop() is not None:
            return self._on_loop()
        assert self._open.wait(PATIENCE), "the gate was never opened"
        return "through"

    async def _on_loop(self) -> str:
        """What it does among others on an event loop, which it must not block.

        Like a thread, it does not listen.
        """
        until = time.monotonic() + PATIENCE
        while not self._open.is_set():
            assert time.monotonic() < until, "the gate was never opened"
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.001)
        return "through"

    def await_entered(self, times: int = 1) -> None:
        for _ in range(times):
            eventually(self._came_another, "nobody came to the gate")

    def _came_another(self) -> bool:
        if self.entered.acquire(timeout=0.001):
            return True
        if self._folder is None or len(list(self._folder.glob("entered-*"))) <= self._awaited:
            return False
        self._awaited += 1
        return True

    def open(self) -> None:
        with self._lock:
            self._open.set()
            if self._folder is not None:
                (self._folder / "open").touch()

    def __reduce__(self) -> tuple[Any, ...]:
        with self._lock:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="ion_actors-gate-"))
                weakref.finalize(self, shutil.rmtree, self._folder)
            if self._open.is_set():
                (self._folder / "open").touch()
            return functools.partial, (_at_gate, self._folder)


def _at_gate(folder: Path) -> str:
    """What a gate does in another process."""
    os.close(tempfile.mkstemp(prefix="entered-", dir=folder)[0])
    opened = folder / "open"
    eventually(lambda: opened.exists() or not folder.exists(), "the gate was never opened")
    return "through"


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


def is_logged(text: str, caplog: pytest.LogCaptureFixture) -> bool:
    """Whether it is logged by now, also if it is logged when an object is freed.

    Without the GIL, references that another thread has released are settled later.
    """
    if text not in caplog.text:
        gc.collect()
    return text in caplog.text


def is_alive(pid: int) -> bool:
    """Whether a process runs; not if it only waits for somebody to take note of its end."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def until_waiting(pool: Pool, submitters: int) -> None:
    """Wait until so many submitters are blocked on the pool's full mailbox."""
    eventually(lambda: pool.dump().waiting == submitters)


def all_is_told() -> None:
    """Wait until handlers, hooks and loggers, which other threads call, have had all news so far.

    Before a test asserts what they were told, and above all that they were not.
    """
    assert CALLBACK_THREADS.flush(PATIENCE)
    assert HOOKS.flush(PATIENCE)
    assert logs.flush(PATIENCE)


def threads_of(pool: Pool) -> list[threading.Thread]:
    """Those of its workers and of its supervisor that run."""
    return [one for one in threading.enumerate() if one.name.startswith(f"{pool.name}-")]


def await_threads(pool: Pool) -> None:
    """Wait until none of its threads runs, not even one that it has given up."""
    for thread in threads_of(pool):
        thread.join(PATIENCE)
        assert not thread.is_alive(), thread


def why_broken(pool: Pool) -> BrokenPool:
    """The error that a pool gives whoever submits, once it has failed for good."""
    try:
        error = pool.submit(int).exception(PATIENCE)
    except IonError as refused:
        error = refused
    assert isinstance(error, BrokenPool), error
    return error
