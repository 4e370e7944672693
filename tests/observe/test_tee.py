"""Several hooks where one is asked for."""

from __future__ import annotations

from typing import Any

import pytest

from ion_actors import Pool
from ion_actors.observe import TeeMetrics, TeeTracer
from ion_actors.testing import RecordingMetrics, RecordingTracer

PATIENCE = 30.0  # seconds


class Broken:
    def fail(self, *args: object, **kwargs: object) -> Any:
        raise SystemExit("broken")

    inc = add = gauge = histogram = start = fail


def test_all_are_told_the_same_and_one_that_fails_harms_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics = RecordingMetrics(), RecordingMetrics()
    tracers = RecordingTracer(), RecordingTracer()
    tee: Any = TeeMetrics(metrics[0], Broken(), metrics[1])
    with Pool(1, name="p", metrics=tee, tracer=TeeTracer(tracers[0], Broken(), tracers[1])) as pool:
        pool.submit(pow, 2, 2).result(PATIENCE)
        pool.submit(divmod, 1, 0).exception(PATIENCE)
        tee.add("added", 2.5, pool="p")
    for one in metrics:
        assert one.count("ion_workerpool_tasks_completed_total", pool="p") == 2
        assert len(one.observed("ion_workerpool_task_run_seconds")) == 2
        assert one.last("ion_workerpool_queue_size", pool="p") == 0
        assert one.count("added") == 2.5
    for tracer in tracers:
        good, bad = tracer.spans(pool="p")
        assert (good.finishes, good.error) == (1, None)
        assert isinstance(bad.error, ZeroDivisionError)
    assert "a hook failed in inc" in caplog.text
    assert "a hook failed in _start" in caplog.text


def test_spans_end_in_the_opposite_order() -> None:
    order: list[str] = []

    class Span:
        def __init__(self, name: str) -> None:
            self.name = name

        def finish(self, error: BaseException | None = None) -> None:
            order.append(self.name)

    class Tracer:
        def __init__(self, name: str) -> None:
            self.name = name

        def start(self, name: str, **attributes: object) -> Span:
            return Span(self.name)

    TeeTracer(Tracer("outer"), Tracer("inner")).start("work").finish()
    assert order == ["inner", "outer"]


def test_what_is_no_hook_is_refused() -> None:
    with pytest.raises(TypeError, match="metrics must have"):
        TeeMetrics(RecordingMetrics(), object())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="tracer must have"):
        TeeTracer(object())  # type: ignore[arg-type]
