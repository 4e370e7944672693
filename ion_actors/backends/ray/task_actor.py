"""What runs in a Ray actor: the tasks of one worker, one after the other.

Ray runs the methods of each concurrency group in threads of their own. ``run`` and what else has to
do with tasks are in the default group, which has one thread. ``control`` ends a task's context
meanwhile, and the task itself when its time to end by itself has passed. ``recall`` cuts the line
of tasks (:mod:`ion_actors.backends.ray.line`). ``listen`` returns the next news.

What the line, the journal and the news have to do with tasks is here. How a task is called, and
ended, is the business of :mod:`ion_actors.backends.ray.placement`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import threading
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from ion_actors.backends.process.transport.messages import Cancel
from ion_actors.backends.process.transport.pickling import Packed, pack_result
from ion_actors.backends.process.transport.remote_errors import pack_error
from ion_actors.backends.ray.journal import Journal
from ion_actors.backends.ray.line import FarLine
from ion_actors.backends.ray.placement.direct import DirectPlacement
from ion_actors.backends.ray.placement.placement import CurrentTask, Placement, Refused
from ion_actors.backends.ray.wire import ActorStart, Batch, Call, CallEnd, News, Reply

__all__ = ["CONTROL", "NEWS", "TaskActor"]

CONTROL, NEWS = "ion_control", "ion_news"  # concurrency groups


class TaskActor:
    """The methods that Ray calls. It wraps each method of an actor, which costs time."""

    def __init__(self) -> None:
        server = self._server = ActorServer()
        self._perform = server.run

    def hello(self) -> tuple[int, str, str, str]:
        """That it has been placed: its process id, the name of its machine, Ray's of it, and the
        file of its standard error.
        """
        ray: Any = importlib.import_module("ray")
        errors = ""
        with contextlib.suppress(OSError):
            errors = str(Path("/proc/self/fd/2").readlink())
        return os.getpid(), platform.node(), ray.get_runtime_context().get_node_id(), errors

    def start(self, message: bytes, header: bytes, *buffers: Any) -> Any:
        """Get ready, and run the initializer."""
        return self._server.start(ActorStart.unpack(message), (header, buffers))

    def run(self, head: bytes, *beside: Any) -> Any:
        """Run some tasks."""
        return self._perform(Batch.of(head, beside)).sent()

    def stop(self, failure: bytes | None) -> bool:
        """Leave: the process ends soon. A resident actor is told of the failure."""
        return self._server.stop(failure)

    def control(self, message: bytes) -> None:
        """End a task's context; or, if that was done before, the task."""
        self._server.cancel(Cancel.unpack(message))

    def grant(self, number: int, granted: int) -> None:
        """There is room for more items of that task's stream: so many in all."""
        self._server.grant(number, granted)

    def locate(self) -> tuple[int, Any]:
        """The number of its task, or 0, and where that is."""
        return self._server.locate()

    def recall(self, stretch: int) -> Any:
        """Begin no more of what was sent; returns what has begun and ended."""
        return self._server.line.cut(stretch).sent()

    def listen(self) -> tuple[int, Sequence[Any]]:
        """The next news."""
        return self._server.news.wait()


class ActorServer:
    """Runs the tasks of one worker."""

    def __init__(self) -> None:
        self.news = News()
        self.line = FarLine(None)
        self._journal: Journal | None = None
        self._placement: Placement = DirectPlacement(self.news)
        self._worker = ""
        self._running: CurrentTask | None = None
        self._cancels: dict[int, Cancel] = {}  # that came before their tasks
        self._begun = 0  # the number of the last task that was
        self._lock = threading.Lock()  # guards the three above

    # -- in the thread of the tasks ------------------------------------------------------------

    def start(self, start: ActorStart, packed: Packed) -> Any:
        """Get ready, and run the initializer.

        The result is the path of the journal, if any, and the process id of the child, if any.
        """
        self._worker = start.worker
        path = ""
        try:
            if start.child is not None and type(self._placement) is DirectPlacement:
                agent = importlib.import_module("ion_actors.backends.ray.placement.agent")
                self._placement = agent.AgentPlacement(self.news)
            self._placement.start(start, packed)
            if start.secret:
                path = self._keep_journal(start.secret)
        except Refused as error:
            return self._reply(0, False, error.packed).body()
        except BaseException as error:
            return self._reply(0, False, pack_error(error, self._worker)).body()
        return self._reply(0, True, pack_result(str, (path, self._placement.child_pid))).body()

    def _keep_journal(self, secret: int) -> str:
        try:
            journal = self._journal = Journal(secret)
        except (OSError, ImportError):
            return ""
        self.line = FarLine(journal)
        return journal.path

    def run(self, batch: Batch) -> CallEnd:
        """Run tasks, until the line is cut."""
        line, stretch = self.line, batch.stretch
        line.enter(stretch, batch.calls[0].number, len(batch.calls), batch.arrived)
        for call in batch.calls:
            if not line.begin(stretch, call.number):
                break
            began = perf_counter()
            fine, packed = self._run_one(call)
            line.end(stretch, self._reply(call.number, fine, packed, perf_counter() - began))
        return line.answer(stretch)

    def _run_one(self, call: Call) -> tuple[bool, Packed]:
        number = call.number
        self.news.begin(number)
        running = self._placement.make_task(number)
        with self._lock:
            self._running, self._begun = running, number
            cancel = self._cancels.pop(number, None) if self._cancels else None
        if cancel is not None:  # it never begins
            running.cancel(cancel)
            found = False, pack_error(running.error(), self._worker)
        else:
            found = self._placement.perform(running, call)
        self._running = None
        return found

    def stop(self, failure: bytes | None) -> bool:
        """Leave: the process ends soon. A resident actor is told of the failure."""
        self._placement.stop(failure)
        if self._journal is not None:
            self._journal.remove()
        return True

    def _reply(self, number: int, fine: bool, packed: Packed, seconds: float = 0.0) -> Reply:
        news, before = self.news.rest()
        return Reply(number, fine, before, packed, news, seconds)

    # -- in other threads ----------------------------------------------------------------------

    def cancel(self, cancel: Cancel) -> None:
        """End a task's context; or, if that was done before, the task.

        The number 0 is all that was sent.
        """
        if cancel.number == 0:
            self.line.cut_now()
        with self._lock:
            running = self._running
            if running is None or cancel.number not in (0, running.number):
                waiting = (*self._cancels.values(), cancel)
                self._cancels = {one.number: one for one in waiting if one.number > self._begun}
                return
        self._placement.cancel(running, cancel)

    def locate(self) -> tuple[int, Any]:
        """The number of its task, or 0, and where that is."""
        running = self._running
        return 0 if running is None else running.number, self._placement.locate()

    def grant(self, number: int, granted: int) -> None:
        """There is room for more items of that task's stream: so many in all."""
        running = self._running
        if running is not None and running.number == number:
            self._placement.grant(running, granted)
