"""Pykka actors as children: see :mod:`ion_actors.actors.watched`."""

from __future__ import annotations

import threading
from typing import Any

import pykka

from ion_actors.actors import Watch
from ion_actors.supervision.core import EXIT_PATIENCE
from ion_actors.supervision.protocol import OnEnd, StopMode
from ion_actors.supervision.report import ChildKind
from ion_actors.supervision.spec import WORKER_SHUTDOWN

__all__ = ["LiveActor"]


class LiveActor:
    """See the module."""

    kind = ChildKind.ACTOR
    shutdown: float | None = WORKER_SHUTDOWN
    margin = 0.0

    def __init__(self, ref: pykka.ActorRef[Any], watch: Watch) -> None:
        self.handle = ref
        self._watch = watch

    def wait_ready(self) -> None:
        """Block until ``on_start`` has run."""
        self._watch.ready.wait()
        if not self._watch.started and self._watch.failure is not None:
            raise self._watch.failure

    def watch(self, on_end: OnEnd) -> None:
        """See :class:`LiveChild`."""
        self._watch.tell(on_end)

    def stop(self, mode: StopMode, timeout: float | None) -> None:
        """Ask it to stop after the messages in its inbox. pykka has only this one way."""
        self.handle.stop(block=False)

    def is_own_thread(self) -> bool:
        """See :class:`LiveChild`."""
        return threading.current_thread() is self._watch.thread

    def exit_patience(self) -> float | None:
        """See :class:`LiveChild`."""
        return EXIT_PATIENCE

    def threads(self) -> list[threading.Thread]:
        """See :class:`LiveChild`."""
        return [] if self._watch.thread is None else [self._watch.thread]
