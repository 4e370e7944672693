"""The protocols of the hooks, and the guard that keeps their faults away from the library."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, runtime_checkable

__all__ = ["Hooks", "Metrics", "Span", "Tracer"]

P = ParamSpec("P")


@runtime_checkable
class Metrics(Protocol):
    """Where measurements go. Labels are few and of few values each."""

    def inc(self, name: str, **labels: str) -> None:
        """Add one to a counter."""
        ...

    def add(self, name: str, value: float, **labels: str) -> None:
        """Add to a counter."""
        ...

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        ...

    def histogram(self, name: str, value: float, **labels: str) -> None:
        """Observe one value of a distribution."""
        ...


@runtime_checkable
class Span(Protocol):
    """A stretch of work being traced."""

    def finish(self, error: BaseException | None = None) -> None:
        """It is over; with an error, if it failed."""
        ...


@runtime_checkable
class Tracer(Protocol):
    """Where traces go."""

    def start(self, name: str, **attributes: Any) -> Span:
        """Begin a span, in the thread and the context variables of the work."""
        ...


def _guarded(call: Callable[P, None]) -> Callable[P, None]:
    """Log what a hook raises, and go on."""

    @functools.wraps(call)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            call(*args, **kwargs)
        except BaseException:
            logging.getLogger("ion_actors").exception("a hook failed in %s", call.__name__)

    return guarded


class Hooks:
    """The hooks of one pool, made safe to call.

    Metrics (label ``pool``): ``ion_workerpool_tasks_submitted_total``,
    ``ion_workerpool_tasks_started_total``, ``ion_workerpool_tasks_completed_total`` (and label
    ``status``: success, error, panic, cancelled), ``ion_workerpool_queue_size``,
    ``ion_workerpool_task_queue_seconds`` and ``ion_workerpool_task_run_seconds`` (histograms).
    Spans: ``ion_workerpool_task`` with ``pool``, ``task``, ``worker`` and ``queue_seconds``.
    """

    def __init__(self, pool: str, metrics: Metrics | None, tracer: Tracer | None) -> None:
        self._pool = pool
        self._metrics = metrics
        self._tracer = tracer

    @_guarded
    def submitted(self, queued: int) -> None:
        """A task was accepted; so many are waiting."""
        if (metrics := self._metrics) is not None:
            metrics.inc("ion_workerpool_tasks_submitted_total", pool=self._pool)
            metrics.gauge("ion_workerpool_queue_size", queued, pool=self._pool)

    @_guarded
    def started(self, queued: int, waited: float) -> None:
        """A task begins that waited so many seconds; so many others are waiting."""
        if (metrics := self._metrics) is not None:
            metrics.inc("ion_workerpool_tasks_started_total", pool=self._pool)
            metrics.gauge("ion_workerpool_queue_size", queued, pool=self._pool)
            metrics.histogram("ion_workerpool_task_queue_seconds", waited, pool=self._pool)

    @_guarded
    def ended(self, status: str, took: float) -> None:
        """A task is over after so many seconds."""
        if (metrics := self._metrics) is not None:
            metrics.inc("ion_workerpool_tasks_completed_total", pool=self._pool, status=status)
            metrics.histogram("ion_workerpool_task_run_seconds", took, pool=self._pool)

    @_guarded
    def dropped(self) -> None:
        """A task is over that never ran, or was ended without its worker."""
        if (metrics := self._metrics) is not None:
            metrics.inc("ion_workerpool_tasks_completed_total", pool=self._pool, status="cancelled")

    def span(self, task: str, worker: str, waited: float) -> Span | None:
        """A span for a task, if there is a tracer and it works."""
        found: list[Span] = []
        self._start_span(found, task, worker, waited)
        return found[0] if found else None

    @_guarded
    def _start_span(self, found: list[Span], task: str, worker: str, waited: float) -> None:
        if (tracer := self._tracer) is not None:
            attributes = {"pool": self._pool, "task": task, "worker": worker}
            found.append(tracer.start("ion_workerpool_task", **attributes, queue_seconds=waited))

    @_guarded
    def finish(self, span: Span, error: BaseException | None) -> None:
        """The span's work is over."""
        span.finish(error)
