"""A backend that does what the script of a test says: it dies when it is told to, and never else.

Tasks run in the worker's thread. What goes wrong goes wrong between the worker and its runner,
where a real backend would fail.
"""

from __future__ import annotations

import contextlib
import contextvars
import enum
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ion_actors import Context, WorkerDied
from ion_actors.backends.protocol import Hopeless, NotReady, Task
from ion_actors.backends.thread import ThreadRunner
from ion_actors.context import make_current
from ion_actors.observe import Log


class Fate(enum.Enum):
    """What becomes of a start, or of a call."""

    WELL = "as it should"
    NOT_READY = "there was nothing to run it in"
    HOPELESS = "there never will be anything to run it in"
    DIES_BEFORE = "dies when it has got the task, before it begins"
    DIES_IN = "dies in the middle"
    DIES_AFTER = "dies when the task is done, before it answers"
    NEVER_ANSWERS = "until it is killed"


class Scripted:
    """The backend. All its runners share the script, and the record of what has happened.

    Args:
        calls: the fates of the calls, in their order; after them all goes well.
        starts: the fates of the starts.
        kill_at_end: the pool can end what runs.
    """

    def __init__(
        self, calls: Iterable[Fate] = (), starts: Iterable[Fate] = (), *, kill_at_end: bool = True
    ) -> None:
        self.calls = deque(calls)
        self.starts = deque(starts)
        self.kill_at_end = kill_at_end
        self.begun: list[object] = []  # the functions that were really called
        self.started = 0
        self.stopped = 0
        self.asked = threading.Semaphore(0)  # how often a call was asked for
        self._lock = threading.Lock()  # guards all of the above

    @property
    def must_start(self) -> bool:
        return True

    def make_runner(self, worker: str, context: Context, log: Log) -> Runner:
        return Runner(self, worker)

    def next_fate(self, script: deque[Fate]) -> Fate:
        with self._lock:
            return script.popleft() if script else Fate.WELL


class Runner:
    inline = False

    def __init__(self, backend: Scripted, worker: str) -> None:
        self._backend = backend
        self._worker = worker
        self._killed = threading.Event()
        self._inner = ThreadRunner()

    def start(self, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
        fate = self._backend.next_fate(self._backend.starts)
        if fate is Fate.HOPELESS:
            raise Hopeless("it is of no use")
        if fate is not Fate.WELL:
            raise self._death("in its start")
        if initializer is not None:
            initializer(*initargs)
        self._backend.started += 1

    def call(self, task: Task) -> Any:
        try:
            fate = self._backend.next_fate(self._backend.calls)
            self._backend.asked.release()
            if fate is Fate.NOT_READY:
                raise NotReady from self._death("before it was asked")
            if fate is Fate.DIES_BEFORE:
                raise self._death("before the task")
            if fate is Fate.NEVER_ANSWERS:
                return self._hang(task)
            self._backend.begun.append(task.fn)
            if fate is Fate.DIES_IN:
                raise self._death("in the task")
            context = task.task_context()
            variables = task.variables.copy()  # a wrapper may be in them
            variables.run(make_current, context)
            value = variables.run(task.fn, *task.args, **(task.kwargs or {}))
            value = self._inner.finish(value, context, variables)
            if fate is Fate.DIES_AFTER:
                raise self._death("after the task")
            return value
        finally:
            del task

    def _hang(self, task: Task) -> None:
        """Until the task's context ends, and then die of it; or until it is killed."""
        context = task.task_context()
        with contextlib.closing(_Woken(context, self._killed)):
            assert self._killed.wait(30), "nobody has ended what never answers"
        context.check()
        raise self._death("when it was killed")

    def _death(self, when: str) -> WorkerDied:
        return WorkerDied(f"the scripted worker died {when}", worker=self._worker)

    def kill(self) -> bool:
        if self._backend.kill_at_end:
            self._killed.set()
        return self._backend.kill_at_end

    def stop(self) -> None:
        self._inner.stop()
        self._backend.stopped += 1

    def finish(self, value: Any, context: Context, variables: contextvars.Context) -> Any:
        return value

    @contextlib.contextmanager
    def on_top(self) -> Iterator[None]:
        yield


class _Woken:
    """Has an event set when a context ends."""

    def __init__(self, context: Context, event: threading.Event) -> None:
        self._registration = context.add_callback(event.set)

    def close(self) -> None:
        self._registration.remove()
