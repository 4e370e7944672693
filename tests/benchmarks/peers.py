"""The pool and its peers, behind one protocol. Each has started all its threads when it is made."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, Protocol

import pykka

from ion_actors import Pool

__all__ = ["Actors", "Bare", "Executing", "MakePeer", "Peer", "actors", "bare", "pool", "threads"]

Task = Callable[[], object]


class Peer(Protocol):
    """Workers that call functions."""

    def submitter(self) -> Callable[[Task], Any]:
        """What one producer submits with; it returns what to wait for."""
        ...

    def finish(self, submitted: list[Any]) -> None:
        """Wait until all these are done."""
        ...

    def call(self, task: Task) -> None:
        """Submit one and wait for it."""
        ...

    def close(self) -> None:
        """End it; drop what is queued, if there is a way."""
        ...


MakePeer = Callable[[int], Peer]


class Executing:
    """Anything with the interface of ``concurrent.futures``."""

    def __init__(self, executor: Executor, size: int) -> None:
        self.executor = executor
        # ThreadPoolExecutor starts a thread only when it has none that is free.
        together = threading.Barrier(size)
        self.finish([executor.submit(together.wait) for _ in range(size)])

    def submitter(self) -> Callable[[Task], Any]:
        return self.executor.submit

    def finish(self, submitted: list[Any]) -> None:
        for future in submitted:
            future.result()

    def call(self, task: Task) -> None:
        self.executor.submit(task).result()

    def close(self) -> None:
        self.executor.shutdown(cancel_futures=True)


class _Callee(pykka.ThreadingActor):
    def on_receive(self, message: Any) -> Any:
        return message()


class Actors:
    """Plain pykka actors that are asked in turn."""

    def __init__(self, size: int) -> None:
        self._refs = [_Callee.start() for _ in range(size)]
        self._turns = itertools.cycle(self._refs)

    def submitter(self) -> Callable[[Task], Any]:
        turns = itertools.cycle(self._refs)  # each producer has its own: no need of a lock
        return lambda task: next(turns).ask(task, block=False)

    def finish(self, submitted: list[Any]) -> None:
        pykka.get_all(submitted)

    def call(self, task: Task) -> None:
        next(self._turns).ask(task)

    def close(self) -> None:
        for ref in self._refs:
            ref.stop(block=False)
        for ref in self._refs:
            ref.actor_stopped.wait()


class Bare:
    """A queue and threads: no futures, no errors, no end but this. The limit of what can be had."""

    def __init__(self, size: int) -> None:
        self._queue: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._replies: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._flushing = threading.Lock()  # two flushes at once would share out the workers
        self._threads = [threading.Thread(target=self._work) for _ in range(size)]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        get = self._queue.get
        while (task := get()) is not None:
            task()

    def submitter(self) -> Callable[[Task], Any]:
        return self._queue.put

    def finish(self, submitted: list[Any]) -> None:
        # Nothing says that a task is done, but when all workers meet, all before it are.
        with self._flushing:
            together = threading.Barrier(len(self._threads) + 1)
            for _ in self._threads:
                self._queue.put(together.wait)
            together.wait()

    def call(self, task: Task) -> None:
        self._queue.put(lambda: self._replies.put(task()))
        self._replies.get()

    def close(self) -> None:
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()


def pool(size: int, queue_size: int | None = None) -> Executing:
    """The pool, with everything as it is by default."""
    return Executing(Pool(size, queue_size), size)


def threads(size: int) -> Executing:
    """The standard library's executor."""
    return Executing(ThreadPoolExecutor(size), size)


def actors(size: int) -> Actors:
    """See :class:`Actors`."""
    return Actors(size)


def bare(size: int) -> Bare:
    """See :class:`Bare`."""
    return Bare(size)
