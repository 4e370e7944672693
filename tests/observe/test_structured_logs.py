"""Structured logs: what python-json-logger and structlog make of the library's records."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from pythonjsonlogger.json import JsonFormatter

from ion_actors import Context, Pool, logs
from ion_actors.observe.structured import LoggingTracer, merge_extra
from ion_actors.testing import VirtualClock

PATIENCE = 30.0  # seconds


class Lines:
    """A handler's stream, as JSON lines."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger of the user's own."""
    made = logging.getLogger("tests.structured")
    made.setLevel(logging.DEBUG)
    made.propagate = False
    yield made
    made.handlers.clear()
    made.propagate = True


def handle(logger: logging.Logger, lines: Lines, formatter: logging.Formatter) -> None:
    handler = logging.StreamHandler(lines.stream)
    handler.setFormatter(formatter)
    logger.addHandler(handler)


def exit_with(code: int) -> None:
    raise SystemExit(code)


def test_python_json_logger_shows_the_facts(logger: logging.Logger, lines: Lines) -> None:
    handle(logger, lines, JsonFormatter("%(levelname)s %(message)s"))
    with Pool(1, name="p", logger=logger) as pool:
        pool.submit(exit_with, 1).exception(PATIENCE)
    assert logs.flush(PATIENCE)
    (lost,) = [line for line in lines.read() if line["levelname"] == "WARNING"]
    assert (lost["pool"], lost["worker"], lost["restarts"]) == ("p", "p-0", 1)
    assert "SystemExit: 1" in lost["exc_info"]


def test_structlog_renders_the_records_of_logging(logger: logging.Logger, lines: Lines) -> None:
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.ExtraAdder()],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
    )
    handle(logger, lines, formatter)
    with Pool(1, name="p", logger=logger) as pool:
        pool.submit(exit_with, 1).exception(PATIENCE)
    assert logs.flush(PATIENCE)
    (lost,) = [line for line in lines.read() if line["level"] == "warning"]
    assert (lost["pool"], lost["worker"], lost["restarts"]) == ("p", "p-0", 1)
    assert lost["event"] == "worker p-0 was lost and is replaced (restart 1)"


def test_a_structlog_logger_is_a_logger(lines: Lines) -> None:
    logger: Any = structlog.wrap_logger(
        structlog.PrintLogger(lines.stream),
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            merge_extra,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        service="shop",
    )
    with Pool(1, name="p", logger=logger) as pool:
        pool.submit(exit_with, 1).exception(PATIENCE)
    assert logs.flush(PATIENCE)
    (lost,) = [line for line in lines.read() if line["level"] == "warning"]
    assert (lost["pool"], lost["restarts"], lost["service"]) == ("p", 1, "shop")
    assert lost["event"] == "worker p-0 was lost and is replaced (restart 1)"
    assert "extra" not in lost


def test_merging_keeps_what_was_bound() -> None:
    event = {"event": "e", "pool": "bound", "extra": {"pool": "p", "task": "t"}}
    assert merge_extra(None, "info", event) == {"event": "e", "pool": "bound", "task": "t"}
    assert merge_extra(None, "info", {"event": "e"}) == {"event": "e"}


def records(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.name == "ion_actors.trace"]


def test_spans_are_log_records_with_their_duration(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    clock = VirtualClock()
    tracer = LoggingTracer(clock=clock)
    with Pool(1, name="p", context=Context(clock=clock), tracer=tracer) as pool:
        pool.options(name="slow").submit(clock.advance, 1.5).result(PATIENCE)
        pool.options(name="bad").submit(divmod, 1, 0).exception(PATIENCE)
    good, bad = records(caplog)
    assert (good["span"], good["task"], good["pool"], good["duration"], good["levelname"]) == (
        "ion_workerpool_task", "slow", "p", 1.5, "DEBUG",
    )  # fmt: skip
    assert good["message"] == "ion_workerpool_task took 1.500000 s"
    assert "error_type" not in good
    assert (bad["task"], bad["error_type"], bad["levelname"]) == (
        "bad", "ZeroDivisionError", "WARNING",
    )  # fmt: skip
    assert bad["exc_info"][0] is ZeroDivisionError


def test_a_cancelled_span_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    def cancel_itself() -> None:
        from ion_actors import current_context

        current_context().cancel("enough")
        current_context().check()

    with Pool(1, tracer=LoggingTracer()) as pool:
        pool.submit(cancel_itself).exception(PATIENCE)
    (record,) = records(caplog)
    assert (record["levelname"], record["error_type"], record["exc_info"]) == (
        "DEBUG", "ion_actors.errors.Cancelled", None,
    )  # fmt: skip


def test_a_logger_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match="logger must be"):
        LoggingTracer(logger=42)  # type: ignore[arg-type]
