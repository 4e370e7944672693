"""What a pool tells its hooks, and under which names."""

from __future__ import annotations

from ion_actors.observe import Probe, Span
from ion_actors.workerpool.model.outcomes import DropReason

__all__ = ["Ending", "PoolHooks"]

#: Whether the end of a task has still to be told, and the span that has still to be finished.
Ending = tuple[bool, Span | None]


class PoolHooks:
    """The hooks of one pool.

    Metrics (label ``pool``): ``ion_workerpool_tasks_submitted_total``,
    ``ion_workerpool_tasks_started_total``, ``ion_workerpool_tasks_completed_total`` (and label
    ``status``: success, error, panic, cancelled), ``ion_workerpool_tasks_dropped_total`` (and label
    ``reason``: those of :class:`DropReason`), ``ion_workerpool_tasks_retried_total``,
    ``ion_workerpool_queue_size``, ``ion_workerpool_task_queue_seconds`` and
    ``ion_workerpool_task_run_seconds`` (histograms).
    Spans: ``ion_workerpool_task`` with ``pool``, ``task``, ``worker`` and ``queue_seconds``; from
    the second try of a task on, also with ``attempt``.
    """

    def __init__(self, probe: Probe) -> None:
        self._probe = probe

    def submitted(self, queued: int) -> None:
        """A task was accepted; so many are waiting."""
        self._probe.inc("ion_workerpool_tasks_submitted_total")
        self._probe.gauge("ion_workerpool_queue_size", queued)

    def started(self, queued: int, waited: float) -> None:
        """A task begins that waited so many seconds; so many others are waiting."""
        self._probe.inc("ion_workerpool_tasks_started_total")
        self._probe.gauge("ion_workerpool_queue_size", queued)
        self._probe.histogram("ion_workerpool_task_queue_seconds", waited)

    def ended(self, status: str, took: float) -> None:
        """A task is over after so many seconds."""
        self._probe.inc("ion_workerpool_tasks_completed_total", status=status)
        self._probe.histogram("ion_workerpool_task_run_seconds", took)

    def dropped(
        self, ending: Ending, error: BaseException | None, reason: DropReason | None = None
    ) -> None:
        """A task is over that never ran, was ended without its worker, or was given up."""
        untold, span = ending
        if untold:
            self._probe.inc("ion_workerpool_tasks_completed_total", status="cancelled")
        if reason is not None:
            self._probe.inc("ion_workerpool_tasks_dropped_total", reason=reason.value)
        self._probe.finish(span, error)

    def retried(self) -> None:
        """A task failed or took its worker down, and will be tried again."""
        self._probe.inc("ion_workerpool_tasks_retried_total")

    def span(self, task: str, worker: str, waited: float, attempt: int) -> Span | None:
        """A span for a try of a task, if there is a tracer and it works."""
        again = {"attempt": attempt} if attempt > 1 else {}
        return self._probe.start(
            "ion_workerpool_task", task=task, worker=worker, queue_seconds=waited, **again
        )

    def finish(self, span: Span | None, error: BaseException | None) -> None:
        """The span's work is over."""
        self._probe.finish(span, error)
