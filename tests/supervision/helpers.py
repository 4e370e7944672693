"""Small things that the tests of supervision share."""

from __future__ import annotations

import threading
from typing import Any

import pykka

from ion_actors import Pool
from ion_actors.supervision import Lifecycle, LifecycleEvent, Supervisor
from tests.waiting import PATIENCE, eventually


class Diary:
    """Remembers what a tree tells, and waits for it."""

    def __init__(self, tree: Supervisor) -> None:
        self._changed = threading.Condition()  # guards the events
        self.events: list[LifecycleEvent] = []
        self.subscription = tree.subscribe(self.note)

    def note(self, event: LifecycleEvent) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def all(self, kind: Lifecycle, child: str | None = None) -> list[LifecycleEvent]:
        return [one for one in self.events if one.kind is kind and child in (None, one.child)]

    def await_(self, kind: Lifecycle, child: str, times: int = 1) -> LifecycleEvent:
        with self._changed:
            came = self._changed.wait_for(lambda: len(self.all(kind, child)) >= times, PATIENCE)
            assert came, f"no {times} x {kind} of {child}, only {list(map(str, self.events))}"
            return self.all(kind, child)[times - 1]

    def words(self) -> list[str]:
        return [f"{'/'.join(one.path[1:])} {one.kind.value}" for one in self.events]


class Log:
    """The order in which children begin and end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        with self._lock:
            self.lines.append(line)


class Echo(pykka.ThreadingActor):
    """An ordinary actor, which fails in any way that it is told to."""

    def __init__(self, name: str = "echo", log: Any = None, hold: Any = None) -> None:
        super().__init__()
        self.name, self.log, self.hold = name, log, hold

    def on_start(self) -> None:
        if self.log:
            self.log(f"+{self.name}")

    def on_stop(self) -> None:
        if self.hold is not None:
            assert self.hold.wait(PATIENCE)
        if self.log:
            self.log(f"-{self.name}")

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, BaseException):
            raise message
        if message == "stop":
            self.stop()
        return message


class Slow:
    """Makes a pool, but only when it is let to."""

    __name__ = "slow"

    def __init__(self) -> None:
        self.begun, self.hold = threading.Event(), threading.Event()
        self.made: list[Pool] = []

    def __call__(self) -> Pool:
        self.begun.set()
        assert self.hold.wait(PATIENCE)
        self.made.append(Pool(1))
        return self.made[0]

    def finish(self) -> None:
        """Let it, and wait for the end of what is made too late."""
        self.hold.set()
        if self.begun.is_set():
            eventually(lambda: self.made and self.made[0].is_closed)
            self.made[0].close()


class Flaky:
    """Makes actors, after so many failures."""

    def __init__(self, *outcomes: BaseException | None) -> None:
        self.outcomes = list(outcomes)

    def check(self) -> None:
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if outcome is not None:
            raise outcome


class Tender(pykka.ThreadingActor):
    """An actor whose start, stop or failure hook fails as its ``Flaky`` says."""

    def __init__(self, start: Flaky | None = None, stop: Any = None, failure: Any = None) -> None:
        super().__init__()
        self.start_, self.stop_, self.failure_ = start, stop, failure

    def on_start(self) -> None:
        if self.start_:
            self.start_.check()

    def on_stop(self) -> None:
        if self.stop_:
            self.stop_.check()

    def on_failure(self, *_: Any) -> None:
        if self.failure_:
            self.failure_.check()

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, BaseException):
            raise message
        return message
