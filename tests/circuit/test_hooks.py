"""What the hooks are told, under ion's names."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from ion_actors import Cancelled, CircuitOpen
from ion_actors.circuit import CircuitBreaker
from ion_actors.testing import RecordingMetrics, RecordingTracer, VirtualClock


def fail(error: BaseException) -> None:
    raise error


def test_every_metric_is_told_once_and_with_its_labels(clock: VirtualClock) -> None:
    told = RecordingMetrics()
    breaker = CircuitBreaker(
        "payments", failure_threshold=1, half_open_success_threshold=1, is_failure=OSError,
        metrics=told, clock=clock,
    )  # fmt: skip
    breaker.execute(clock.advance, 0.25)
    for error in (ValueError(), Cancelled(), ConnectionError()):
        with pytest.raises(type(error)):
            breaker.execute(fail, error)
    with pytest.raises(CircuitOpen):
        breaker.execute(print)
    clock.advance(30)
    breaker.execute(clock.advance, 0.5)
    breaker.reset()

    mine = {"circuit": "payments"}
    assert told.count("circuit.requests_total", **mine) == 5
    assert told.count("circuit.requests_total", state="closed") == 4
    assert told.count("circuit.requests_total", state="half_open") == 1
    assert told.count("circuit.requests_rejected", **mine, state="open") == 1
    assert told.count("circuit.requests_succeeded", **mine) == 2
    assert told.count("circuit.requests_failed", **mine) == 1
    assert told.count("circuit.requests_ignored", **mine) == 1
    assert told.count("circuit.requests_cancelled", **mine) == 1
    assert told.observed("circuit.request_duration", **mine) == [0.25, 0, 0, 0, 0.5]
    for old, new in (("closed", "open"), ("open", "half_open"), ("half_open", "closed")):
        assert told.count("circuit.state_changes", **mine, **{"from": old, "to": new}) == 1
    assert told.count("circuit.manual_reset", **mine) == 1
    assert told.names() == {
        f"circuit.{name}"
        for name in (
            "requests_total", "requests_rejected", "requests_succeeded", "requests_failed",
            "requests_ignored", "requests_cancelled", "request_duration", "state_changes",
            "manual_reset",
        )
    }  # fmt: skip


def test_each_call_that_is_let_through_is_a_span() -> None:
    tracer = RecordingTracer()
    breaker = CircuitBreaker("payments", failure_threshold=1, tracer=tracer)
    error = ConnectionError()
    breaker.execute(print, end="")
    with pytest.raises(ConnectionError):
        breaker.execute(fail, error)
    with pytest.raises(CircuitOpen):
        breaker.execute(print)
    good, bad = tracer.spans("circuit.execute", circuit="payments", state="closed")
    assert (good.error, bad.error) == (None, error)
    assert tracer.unfinished() == []


def test_a_span_is_finished_even_when_ctrl_c_comes_while_its_error_is_judged() -> None:
    def is_failure(error: BaseException) -> bool:
        raise KeyboardInterrupt

    tracer, told = RecordingTracer(), RecordingMetrics()
    breaker = CircuitBreaker("mine", is_failure=is_failure, tracer=tracer, metrics=told)
    with pytest.raises(KeyboardInterrupt):
        breaker.execute(fail, ConnectionError())
    assert tracer.unfinished() == []
    assert told.count("circuit.requests_failed") == breaker.metrics().failed == 1


class Broken:
    """Every hook in one, and every one fails."""

    def fail(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("hook")

    inc = add = gauge = histogram = start = log = fail


def test_hooks_that_fail_change_nothing(caplog: pytest.LogCaptureFixture) -> None:
    broken: Any = Broken()
    breaker = CircuitBreaker(
        "mine", failure_threshold=1, metrics=broken, tracer=broken, logger=broken
    )
    assert breaker.execute(int, "7") == 7
    with pytest.raises(ConnectionError):
        breaker.execute(fail, ConnectionError())
    with pytest.raises(CircuitOpen):
        breaker.execute(print)
    breaker.reset()
    numbers = breaker.metrics()
    assert (numbers.requests, numbers.rejected, numbers.running) == (2, 1, 0)
    assert "a hook failed in inc" in caplog.text


def test_no_hook_is_called_under_a_lock() -> None:
    breaker: CircuitBreaker

    class Curious(RecordingMetrics, logging.Logger):
        """Looks, from another thread, whether the breaker still answers."""

        def __init__(self) -> None:
            RecordingMetrics.__init__(self)
            logging.Logger.__init__(self, "curious")

        def look(self) -> None:
            looker = threading.Thread(target=breaker.metrics)
            looker.start()
            looker.join(30)
            assert not looker.is_alive()

        def add(self, name: str, value: float, **labels: str) -> None:
            self.look()
            super().add(name, value, **labels)

        def log(self, *args: Any, **kwargs: Any) -> None:
            self.look()

        def start(self, name: str, **attributes: Any) -> Any:
            self.look()
            return RecordingTracer().start(name, **attributes)

    hooks: Any = Curious()
    breaker = CircuitBreaker(
        "mine", failure_threshold=1, metrics=hooks, tracer=hooks, logger=hooks,
        on_state_change=lambda *_: hooks.look(),
    )  # fmt: skip
    breaker.execute(print, end="")
    with pytest.raises(ConnectionError):
        breaker.execute(fail, ConnectionError())
    with pytest.raises(CircuitOpen):
        breaker.execute(print)
    breaker.reset()
    assert hooks.count("circuit.requests_total") == 2
