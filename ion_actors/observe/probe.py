"""The hooks of one object, checked when they are given, and safe to call."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, ParamSpec

from ion_actors.delivery import CallQueue
from ion_actors.interruption import is_interruption
from ion_actors.logs import Logger
from ion_actors.naming import printable
from ion_actors.observe.protocols import Metrics, Span, Tracer

__all__ = ["HOOKS", "Log", "Probe", "guarded"]

logger = Logger("ion_actors")

P = ParamSpec("P")


def _tell_lost(count: int) -> None:
    logger.warning("%d calls of hooks were lost: the hooks are too slow", count)


#: Calls the hooks of users for threads that must not block.
HOOKS = CallQueue("ion_actors-hooks", _tell_lost)


def guarded(call: Callable[P, None]) -> Callable[P, None]:
    """Decorate a call of a hook: log what it raises, and go on."""

    @functools.wraps(call)
    def safe(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            call(*args, **kwargs)
        except BaseException as error:
            if is_interruption(error):
                raise
            # args[0] is the probe; the other arguments are the best hint at the cause.
            logger.exception("a hook failed in %s%r", call.__name__, args[1:])

    return safe


class Probe:
    """The metrics and the tracer of one object, with the labels that name it.

    Every method may be called at any time: a missing hook does nothing, one that raises is logged.
    None may be called under a lock, since a hook is the user's code.
    """

    def __init__(self, metrics: Metrics | None, tracer: Tracer | None, **labels: str) -> None:
        self._metrics = metrics
        self._tracer = tracer
        self._labels = {name: printable(value) for name, value in labels.items()}

    @classmethod
    def checked(cls, metrics: object, tracer: object, **labels: str) -> Probe | None:
        """The probe for these hooks; None if there are none, so that the caller can skip all calls.

        Raises:
            TypeError: a hook lacks a method.
        """
        if metrics is not None and not isinstance(metrics, Metrics):
            raise TypeError(
                f"metrics must have inc, add, gauge and histogram; {metrics!r} does not"
            )
        if tracer is not None and not isinstance(tracer, Tracer):
            raise TypeError(f"tracer must have start(); {tracer!r} does not")
        return None if metrics is None and tracer is None else cls(metrics, tracer, **labels)

    @guarded
    def inc(self, name: str, **labels: str) -> None:
        """Add one to a counter."""
        if self._metrics is not None:
            self._metrics.inc(name, **self._labels, **labels)

    @guarded
    def add(self, name: str, value: float, **labels: str) -> None:
        """Add to a counter."""
        if self._metrics is not None:
            self._metrics.add(name, value, **self._labels, **labels)

    @guarded
    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        if self._metrics is not None:
            self._metrics.gauge(name, value, **self._labels, **labels)

    @guarded
    def histogram(self, name: str, value: float, **labels: str) -> None:
        """Observe one value of a distribution."""
        if self._metrics is not None:
            self._metrics.histogram(name, value, **self._labels, **labels)

    def start(self, name: str, **attributes: Any) -> Span | None:
        """A span, if there is a tracer and it works."""
        found: list[Span] = []
        self._start(found, name, attributes)
        return found[0] if found else None

    @guarded
    def _start(self, found: list[Span], name: str, attributes: dict[str, Any]) -> None:
        if self._tracer is not None:
            found.append(self._tracer.start(name, **self._labels, **attributes))

    @guarded
    def finish(self, span: Span | None, error: BaseException | None = None) -> None:
        """Finish the span; None is ignored."""
        if span is not None:
            span.finish(error)


class Log:
    """A logger, checked and safe to call; every record has ``fields`` in its ``extra``.

    Args:
        logger: the user's, or an object with such a method ``log``; None for the logger of the name
            ``default``.
        default: that name.
        later: never handle a record on the thread that makes it: see :mod:`ion_actors.logs`.
        fields: the attributes of every record.

    Raises:
        TypeError: it is no logger.
    """

    def __init__(
        self, logger: object, default: str, *, later: bool = False, **fields: object
    ) -> None:
        given = logging.getLogger(default) if logger is None else logger
        if not callable(getattr(given, "log", None)):
            raise TypeError(f"logger must be a logging.Logger, not {given!r}")
        self._logger = Logger(given, later=later)
        self._fields = fields

    def __call__(self, level: int, message: str, *args: object, **extra: object) -> None:
        """Log a message; ``error=`` adds an exception's traceback."""
        error = extra.pop("error", None)
        try:
            self._logger.log(level, message, *args, exc_info=error, extra={**self._fields, **extra})
        except BaseException as fault:
            if is_interruption(fault):
                raise
            logger.exception("the logger of %r failed", self._fields)
