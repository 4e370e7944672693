"""What each hook costs for each task: ``python -m tests.benchmarks.hooks``.

A burst of no-op tasks on one worker, with room for all, from the first submission until the last is
done: the CPU time of all threads, since that hardly depends on what else the machine does. The pool
without hooks and the pools with one take turns.
"""

from __future__ import annotations

import argparse
import io
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry, generate_latest
from pythonjsonlogger.json import JsonFormatter

from ion_actors import Pool
from ion_actors.observe.opentelemetry import OtelMetrics, OtelTracer
from ion_actors.observe.prometheus import PrometheusMetrics, register
from ion_actors.observe.structured import LoggingTracer
from tests.benchmarks import table
from tests.benchmarks.measure import Contest, Line, Measure, Result, Spread, run

__all__ = ["contest", "markdown"]

TABLE = Path(__file__).parents[2] / "docs" / "neighbours" / "hooks-table.md"
NOTHING = "no hooks"

_SCRAPES_EVERY = 0.1  # seconds; Prometheus itself comes every 15 to 60


class _Idle:
    """Metrics that do nothing: what the pool spends on telling them."""

    def inc(self, name: str, **labels: str) -> None: ...
    def add(self, name: str, value: float, **labels: str) -> None: ...
    def gauge(self, name: str, value: float, **labels: str) -> None: ...
    def histogram(self, name: str, value: float, **labels: str) -> None: ...


class _Discard(SpanExporter):
    """Takes the spans, and sends them nowhere."""

    def export(self, spans: object) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def _measure(count: int, after: Callable[[Pool], object] = id, **hooks: Any) -> float:
    """Microseconds for each task."""
    with Pool(1, count, **hooks) as pool:
        after(pool)
        pool.submit(_nothing).result()
        began = time.process_time()
        for future in [pool.submit(_nothing) for _ in range(count)]:
            future.result()
        return (time.process_time() - began) / count * 1e6


def _nothing() -> None:
    pass


def _logger(count: int) -> float:
    return _measure(count, logger=_lines(logging.INFO))


def _lines(level: int) -> logging.Logger:
    logger = logging.getLogger("benchmark")
    logger.setLevel(level)
    logger.propagate = False
    logger.handlers.clear()
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    return logger


def _logging_tracer_off(count: int) -> float:
    return _measure(count, tracer=LoggingTracer(_lines(logging.INFO)))


def _logging_tracer(count: int) -> float:
    return _measure(count, tracer=LoggingTracer(_lines(logging.DEBUG)))


def _idle_metrics(count: int) -> float:
    return _measure(count, metrics=_Idle())


def _collector(count: int) -> float:
    registry = CollectorRegistry()
    with _scraped(registry):
        return _measure(count, lambda pool: register(pool, registry))


@contextmanager
def _scraped(registry: CollectorRegistry) -> Iterator[None]:
    stop = threading.Event()

    def scrape() -> None:
        while not stop.wait(_SCRAPES_EVERY):
            generate_latest(registry)

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _prometheus(count: int) -> float:
    return _measure(count, metrics=PrometheusMetrics(CollectorRegistry()))


def _otel_metrics(count: int) -> float:
    provider = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    try:
        return _measure(count, metrics=OtelMetrics(provider.get_meter("benchmark")))
    finally:
        provider.shutdown()


def _otel_tracer_without_sdk(count: int) -> float:
    return _measure(count, tracer=OtelTracer())


def _otel_tracer(count: int) -> float:
    provider = TracerProvider(shutdown_on_exit=False)
    # Room for all: a span that is thrown away is cheaper than one that is not.
    provider.add_span_processor(BatchSpanProcessor(_Discard(), max_queue_size=max(2048, count)))
    try:
        return _measure(count, tracer=OtelTracer(provider.get_tracer("benchmark")))
    finally:
        provider.shutdown()


_HOOKS: dict[str, Callable[[int], float]] = {
    "`logger=` (a pool that is well logs nothing)": _logger,
    "`register(pool)`, scraped every 0.1 s": _collector,
    "metrics that do nothing": _idle_metrics,
    "`PrometheusMetrics`": _prometheus,
    "`OtelMetrics`, with the SDK": _otel_metrics,
    "`OtelTracer`, without an SDK": _otel_tracer_without_sdk,
    "`OtelTracer`, with the SDK, in batches": _otel_tracer,
    "`LoggingTracer`, its level off": _logging_tracer_off,
    "`LoggingTracer`, written as JSON": _logging_tracer,
}


def contest(count: int) -> Contest:
    """The pool without hooks against those with one."""

    def timed(measure: Callable[[int], float]) -> Measure:
        return lambda: (measure(count),)

    peers = {title: timed(measure) for title, measure in _HOOKS.items()}
    return Contest("hooks", (Line("a task", "µs"),), timed(_measure), peers)


def markdown(result: Result, conditions: str) -> str:
    """The table."""
    rows = ["|  | a task | times no hooks | more, for each task |", "| :--- | ---: | ---: | ---: |"]
    rows.append(f"| {NOTHING} | {Spread.of(result.pool).median:.1f} µs | 1 |  |")
    for title, values in result.peers.items():
        pairs = list(zip(values, result.pool, strict=True))
        ratio = Spread.of([theirs / ours for theirs, ours in pairs])
        more = Spread.of([theirs - ours for theirs, ours in pairs])
        rows.append(
            f"| {title} | {Spread.of(values).median:.1f} µs "
            f"| {_range(ratio)} | {more.median:+.1f} µs |"
        )
    return "\n".join([f"{conditions}.", "", *rows, "", _LEGEND])


def _range(spread: Spread) -> str:
    return f"{spread.median:.1f} ({spread.low:.1f} to {spread.high:.1f})"


_LEGEND = """\
A burst of no-op tasks on one worker, from the first submission until the last is done, in CPU time
of all threads together: medians of all rounds, and the range of the ratios of each round. The runs
alternate. Machines differ: look at the ratios, and mind that a task that does something makes all
of them smaller.
"""


def main() -> None:
    """Measure, print the table, and write it if told to."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.hooks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it work?")
    parser.add_argument("--rounds", type=int, help="by default 7, or 1 if quick")
    parser.add_argument(
        "--write", type=Path, nargs="?", const=TABLE, metavar="FILE", help="by default in the docs"
    )
    options = parser.parse_args()
    rounds = options.rounds or (1 if options.quick else 7)
    conditions = table.conditions(rounds)
    (result,) = run(contest(200 if options.quick else 20_000), rounds)
    text = markdown(result, conditions)
    print(text)
    if options.write is not None and not (options.quick and options.write == TABLE):
        options.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
