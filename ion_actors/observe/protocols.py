"""The hooks, as protocols: what a program may plug in to watch the library work."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

__all__ = ["Metrics", "Span", "Tracer"]


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
