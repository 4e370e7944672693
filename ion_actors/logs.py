"""The library's log records, and the thread on which users' handlers run.

A log handler is the user's code: it may block for ever, or call the very pool that logs. The same
holds for everything else that ``logging`` lets users replace: loggers, filters, formatters, the
record factory, and the ``__repr__`` of logged objects. Hence the rules:

- records of a user's thread, logged outside any lock, are handled there, as usual;
- records of a thread that must not block (:func:`ion_actors.delivery.keep_free`) are handled by the
  thread of :data:`LOGS`;
- ``later=True`` requests the same where a lock may be held, at exit, or where something ends that
  others wait for. All records of pools and supervisors are of that kind;
- text from elsewhere, such as the name of a task or the message of an exception, is shown in one
  line, so that it cannot imitate another record. Text that has several lines on purpose is given as
  ``Lines`` of :mod:`ion_actors.naming`;
- a finalizer may run at any point of any thread. If it interrupts this library, or a module that it
  uses, its records are handled later, too (:func:`is_inside`).

Only the level is checked where the record is made, by the logger's own levels: that takes no lock
and calls no method of the user's. The record has the time and the thread of the place where it was
made, and handlers see the context variables of that place.
"""

from __future__ import annotations

import atexit
import contextvars
import logging
import sys
import threading
import time
import warnings
from _thread import get_ident
from types import CodeType, FrameType, TracebackType
from typing import Any, NamedTuple

from ion_actors.delivery import PATIENCE, CallQueue, is_kept_free
from ion_actors.naming import for_log, printable
from ion_actors.raised import traceback_of

try:
    from _tracemalloc import is_tracing  # the rest of tracemalloc takes a while to import
except ImportError:  # in a subinterpreter

    def is_tracing() -> bool:
        """Nothing is traced where the module is missing."""
        return False


__all__ = ["LOGS", "Logger", "flush", "is_inside", "warn_in_finalizer", "warn_later"]

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

_WRAPPERS = frozenset((__name__, "ion_actors.observe.probe"))


def _tell_lost(count: int) -> None:
    lost = "%d log records were lost: the handlers are too slow, or raised"
    logging.getLogger("ion_actors").warning(lost, count)


#: Delivers the records that are handled later.
LOGS = CallQueue("ion_actors-log", _tell_lost)


def flush(patience: float = PATIENCE) -> bool:
    """Wait until the records made so far have been handled.

    Args:
        patience: seconds to wait at most.

    Returns:
        Whether they have.
    """
    return LOGS.flush(patience)


class Logger:
    """A logger whose handlers run only where they may block: see the module.

    Args:
        target: its name; or a ``logging.Logger``, or an object with such a ``log`` method.
        later: never handle a record on the thread that makes it.
    """

    def __init__(self, target: Any, *, later: bool = False) -> None:
        self._target: Any = logging.getLogger(target) if isinstance(target, str) else target
        self._later = later

    def log(
        self, level: int, message: str, *args: object, exc_info: Any = None, extra: Any = None
    ) -> None:
        """Log a message.

        Args:
            level: of ``logging``.
            message: with ``%`` placeholders.
            args: for the placeholders.
            exc_info: an exception; or True for the one that is being handled.
            extra: attributes of the record, by name.
        """
        if _is_off(self._target, level):
            return
        if exc_info is True:
            exc_info = sys.exc_info()[1]
        args = tuple(map(for_log, args))
        if extra is not None:
            extra = {name: _plain(value) for name, value in extra.items()}
        if self._later or is_kept_free():
            post_record(self._target, level, message, args, exc_info, extra)
            return
        if isinstance(self._target, logging.Logger):  # it looks for its caller
            self._target.log(level, message, *args, exc_info=exc_info, extra=extra, stacklevel=3)
        else:
            self._target.log(level, message, *args, exc_info=exc_info, extra=extra)

    def debug(self, message: str, *args: object, exc_info: Any = None) -> None:
        """:meth:`log` at that level."""
        self.log(logging.DEBUG, message, *args, exc_info=exc_info)

    def info(self, message: str, *args: object) -> None:
        """:meth:`log` at that level."""
        self.log(logging.INFO, message, *args)

    def warning(self, message: str, *args: object, exc_info: Any = None) -> None:
        """:meth:`log` at that level."""
        self.log(logging.WARNING, message, *args, exc_info=exc_info)

    def error(self, message: str, *args: object, exc_info: Any = None) -> None:
        """:meth:`log` at that level."""
        self.log(logging.ERROR, message, *args, exc_info=exc_info)

    def critical(self, message: str, *args: object) -> None:
        """:meth:`log` at that level."""
        self.log(logging.CRITICAL, message, *args)

    def exception(self, message: str, *args: object) -> None:
        """:meth:`log` at the level of errors, with the exception that is being handled."""
        self.log(logging.ERROR, message, *args, exc_info=True)


def _plain(value: object) -> object:
    return printable(value) if issubclass(type(value), str) else value  # type: ignore[arg-type]


_DELICATE = frozenset(("logging", "queue", "threading", "weakref"))  # they hold locks


def is_inside() -> bool:
    """In a finalizer: whether it runs on a thread that must not block, or that may hold a lock."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    frame = None if frame is None else frame.f_back  # what the finalizer has interrupted
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module in _DELICATE or module.partition(".")[0] == "ion_actors":
            return True
        frame = frame.f_back
    return is_kept_free()


def warn_in_finalizer(message: str, category: type[Warning], source: object) -> None:
    """Warn, here or later: see :func:`is_inside`."""
    if is_inside():
        warn_later(message, category, logger=Logger("ion_actors"), source=source)
    else:
        warnings.warn(message, category, source=source, stacklevel=2)


def warn_later(
    message: str, category: type[Warning], *, logger: Logger, source: object = None
) -> None:
    """Warn on the thread of the log records: the hook that shows warnings is the user's code.

    If a filter makes it an error, that is logged.
    """
    if not is_tracing():
        source = None  # only to show where it was allocated; and it may be about to be freed
    variables = contextvars.copy_context()  # where some Pythons keep the filters
    LOGS.post(lambda: variables.run(_warn, message, category, logger, source))


def _warn(message: str, category: type[Warning], logger: Logger, source: object) -> None:
    try:
        warnings.warn(message, category, source=source, stacklevel=1)
    except Warning as error:
        logger.warning("%s", error, exc_info=error)


atexit.register(flush)  # what is logged after the pools and the supervisors have ended


# -- whether a level counts: no lock, no method that a user may have replaced ---------------


def _is_off(target: Any, level: int) -> bool:
    """Whether the level is certainly off; False if only the user's code could tell."""
    while isinstance(target, logging.LoggerAdapter):
        if type(target).isEnabledFor is not logging.LoggerAdapter.isEnabledFor:
            return False
        target = target.logger
    return _is_plain(target) and (
        target.disabled
        or target.manager.disable >= level
        or level < logging.Logger.getEffectiveLevel(target)
    )


_PLAIN = (logging.Logger, logging.RootLogger)


def _is_plain(target: Any) -> bool:
    """Whether its class overrides none of the methods whose work is done here."""
    kind = type(target)
    return kind in _PLAIN or (
        isinstance(target, logging.Logger)
        and all(
            getattr(kind, name, None) is getattr(logging.Logger, name)
            for name in ("isEnabledFor", "getEffectiveLevel", "log", "_log", "__getattribute__")
        )
    )


# -- records that are handled later ---------------------------------------------------------


class _Origin(NamedTuple):
    """Where and when a record was made."""

    created: float  # seconds since the epoch
    thread: int
    thread_name: str | None
    code: CodeType
    line: int


def post_record(
    target: Any, level: int, message: str, args: Any, error: BaseException | None, extra: Any
) -> None:
    """Make and handle a record on the thread of :data:`LOGS`."""
    exc_info = None if error is None else (type(error), error, traceback_of(error))
    variables, origin = contextvars.copy_context(), _origin()
    LOGS.post(lambda: variables.run(_handle, target, level, message, args, exc_info, extra, origin))


def _origin() -> _Origin:
    frame = sys._getframe(1)
    while frame.f_globals.get("__name__") in _WRAPPERS:
        if (back := frame.f_back) is None:
            break
        frame = back
    ident = get_ident()
    # Not current_thread(): that takes a lock if the thread is unknown to it.
    thread = threading._active.get(ident)  # type: ignore[attr-defined]
    name = None if thread is None else thread._name
    return _Origin(time.time(), ident, name, frame.f_code, frame.f_lineno)


def _handle(
    target: Any,
    level: int,
    message: str,
    args: tuple[Any, ...],
    exc_info: _ExcInfo | None,
    extra: Any,
    origin: _Origin,
) -> None:
    given = target
    try:
        kwargs: dict[str, Any] = {"exc_info": exc_info, "extra": extra}
        while type(target) is logging.LoggerAdapter:
            message, kwargs = target.process(message, kwargs)  # type: ignore[assignment]
            target = target.logger
        if _is_plain(target):
            target.handle(_record(target, level, message, args, kwargs, origin))
        else:
            error = None if exc_info is None else exc_info[1]
            target.log(level, message, *args, **{**kwargs, "exc_info": error})
    except BaseException:
        logging.getLogger("ion_actors").exception("the logger of %r failed", extra or given)


def _record(
    target: logging.Logger,
    level: int,
    message: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    origin: _Origin,
) -> logging.LogRecord:
    """The record as the target makes it, with the time and place of its origin."""
    code = origin.code
    record = target.makeRecord(
        target.name, level, code.co_filename, origin.line, message, args,
        kwargs.get("exc_info"), code.co_name, kwargs.get("extra"), None,
    )  # fmt: skip
    record.relativeCreated -= (record.created - origin.created) * 1000
    record.created = origin.created
    record.msecs = int(origin.created % 1 * 1000) + 0.0
    record.thread = origin.thread
    record.threadName = origin.thread_name
    return record
