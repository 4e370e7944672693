"""Structured logs: spans as log records, and a processor for structlog.

The library logs through ``logging``, with the facts of a record in its ``extra``. For JSON, use a
formatter such as that of python-json-logger; there is none here.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from ion_actors.clock import Clock, system_clock
from ion_actors.observe.conventions import error_type, was_wanted
from ion_actors.observe.probe import Log

__all__ = ["LoggingTracer", "merge_extra"]


class LoggingTracer:
    """A :class:`~ion_actors.observe.Tracer` that logs each span once it is finished.

    The record's ``extra`` has the span's attributes, ``span`` (its name) and ``duration``
    (seconds); if it was finished with an error, also ``error_type``. A span that was cancelled has
    not failed.

    Args:
        logger: by default the logger ``ion_actors.trace``.
        level: the level of records of spans without an error.
        error_level: that of spans with an error; their records have the traceback.
        clock: measures the duration.

    Raises:
        TypeError: the logger is none.
    """

    def __init__(
        self,
        logger: logging.Logger | None = None,
        *,
        level: int = logging.DEBUG,
        error_level: int = logging.WARNING,
        clock: Clock = system_clock,
    ) -> None:
        self._log = Log(logger, "ion_actors.trace")
        self._level = level
        self._error_level = error_level
        self.now = clock.monotonic

    def start(self, name: str, **attributes: Any) -> _LoggedSpan:
        """See :meth:`ion_actors.observe.Tracer.start`."""
        return _LoggedSpan(self, name, attributes)

    def finished(
        self, name: str, attributes: dict[str, Any], duration: float, error: BaseException | None
    ) -> None:
        """Log a span that took so many seconds. For its spans only."""
        facts = {**attributes, "span": name, "duration": duration}
        if error is None:
            self._log(self._level, "%s took %.6f s", name, duration, **facts)
            return
        facts["error_type"] = error_type(error)
        text = "%s ended after %.6f s with %r"
        if was_wanted(error):
            self._log(self._level, text, name, duration, error, **facts)
        else:
            self._log(self._error_level, text, name, duration, error, error=error, **facts)


class _LoggedSpan:
    """A span that becomes a log record at its end."""

    def __init__(self, tracer: LoggingTracer, name: str, attributes: dict[str, Any]) -> None:
        self._tracer = tracer
        self._name = name
        self._attributes = attributes
        self._began = self._tracer.now()

    def finish(self, error: BaseException | None = None) -> None:
        """See :meth:`ion_actors.observe.Span.finish`."""
        duration = self._tracer.now() - self._began
        self._tracer.finished(self._name, self._attributes, duration, error)


def merge_extra(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """A processor for structlog that merges the facts in ``extra`` into the event.

    It is for structlog's own loggers, given as ``Pool(logger=structlog.get_logger())``. For records
    of ``logging`` that structlog renders, use ``structlog.stdlib.ExtraAdder`` instead.
    """
    for key, value in (event.pop("extra", None) or {}).items():
        event.setdefault(key, value)
    return event
