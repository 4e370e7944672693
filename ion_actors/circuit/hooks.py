"""The metrics and spans of a breaker, and their names."""

from __future__ import annotations

from ion_actors.circuit.machine import Change, CircuitState
from ion_actors.circuit.rules import CallOutcome
from ion_actors.observe import Probe, Span

__all__ = ["BreakerHooks"]


class BreakerHooks:
    """The hooks of one breaker.

    Metrics (label ``circuit``): ``circuit.requests_total`` (admitted) and
    ``circuit.requests_rejected`` (both with label ``state``), ``circuit.requests_succeeded``,
    ``circuit.requests_failed``, ``circuit.requests_ignored``, ``circuit.requests_cancelled``,
    ``circuit.request_duration`` (a histogram, in seconds), ``circuit.state_changes`` (with labels
    ``from`` and ``to``), ``circuit.manual_reset``.
    Spans: ``circuit.execute`` with ``circuit`` and ``state``, for each admitted call.
    """

    def __init__(self, probe: Probe) -> None:
        self._probe = probe

    def admitted(self, state: CircuitState) -> Span | None:
        """A call was admitted in that state; returns its span, if there is a tracer."""
        self._probe.inc("circuit.requests_total", state=state.value)
        return self._probe.start("circuit.execute", state=state.value)

    def rejected(self, state: CircuitState) -> None:
        """A call was rejected in that state."""
        self._probe.inc("circuit.requests_rejected", state=state.value)

    def ended(
        self, outcome: CallOutcome, took: float, span: Span | None, error: BaseException | None
    ) -> None:
        """A call is over after so many seconds."""
        self._probe.inc(f"circuit.requests_{outcome.value}")
        self._probe.histogram("circuit.request_duration", took)
        self._probe.finish(span, error)

    def changed(self, change: Change) -> None:
        """The state changed."""
        self._probe.inc(
            "circuit.state_changes", **{"from": change.old.value, "to": change.new.value}
        )

    def reset(self) -> None:
        """It was closed by hand."""
        self._probe.inc("circuit.manual_reset")
