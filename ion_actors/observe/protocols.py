"""The protocols of the hooks by which a program observes the library."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

__all__ = ["Metrics", "Span", "Tracer"]


@runtime_checkable
class Metrics(Protocol):
    """Takes measurements. There are few labels, with few values each."""

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
    """A piece of work that is traced."""

    def finish(self, error: BaseException | None = None) -> None:
        """The work is over; with an error, if it failed."""
        ...


@runtime_checkable
class Tracer(Protocol):
    """Makes the spans of traces."""

    def start(self, name: str, **attributes: Any) -> Span:
        """Begin a span, in the thread and the context variables of the work."""
        ...
