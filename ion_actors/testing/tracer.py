"""A tracer that records its spans."""

from __future__ import annotations

import threading
from typing import Any

__all__ = ["RecordedSpan", "RecordingTracer"]


class RecordedSpan:
    """One span.

    Attributes:
        name: its name.
        attributes: its attributes.
        thread: the name of the thread that started it.
        error: the error that it was finished with, if any.
        finishes: how often it was finished; at the end, anything but 1 is a fault.
    """

    def __init__(self, name: str, attributes: dict[str, Any]) -> None:
        self.name = name
        self.attributes = attributes
        self.thread = threading.current_thread().name
        self.error: BaseException | None = None
        self.finishes = 0
        self._lock = threading.Lock()  # guards the count

    def finish(self, error: BaseException | None = None) -> None:
        """See :meth:`ion_actors.observe.Span.finish`."""
        with self._lock:
            self.error = error
            self.finishes += 1

    def __repr__(self) -> str:
        return f"<RecordedSpan {self.name} {self.attributes} finishes={self.finishes}>"


class RecordingTracer:
    """An :class:`ion_actors.observe.Tracer` that keeps all spans; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the list
        self._spans: list[RecordedSpan] = []

    def start(self, name: str, **attributes: Any) -> RecordedSpan:
        """See :meth:`ion_actors.observe.Tracer.start`."""
        span = RecordedSpan(name, attributes)
        with self._lock:
            self._spans.append(span)
        return span

    def spans(self, name: str | None = None, **attributes: Any) -> list[RecordedSpan]:
        """The spans of that name (None: of any) that have at least these attributes, in order."""
        with self._lock:
            return [
                span
                for span in self._spans
                if name in (None, span.name) and attributes.items() <= span.attributes.items()
            ]

    def count(self, name: str | None = None, **attributes: Any) -> int:
        """How many :meth:`spans` there are."""
        return len(self.spans(name, **attributes))

    def unfinished(self) -> list[RecordedSpan]:
        """The spans that are not finished."""
        return [span for span in self.spans() if not span.finishes]
