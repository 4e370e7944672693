"""Log records, warnings and progress of a child process, relayed to its parent; output, if asked.

::

    child                                                     parent
    logging, its root handler ──┐                       ┌──▶ the logger of that name, its handlers
    warnings.showwarning     ───┼──▶ bytes ──▶ pipe ────┼──▶ warnings.showwarning
    report_progress          ───┘                       └──▶ the future of the worker's task

The parent handles them as if its own code had made them. So that nothing is sent in vain, the
parent's levels and filters are sent to the child at its start.
"""

from __future__ import annotations

import enum
import logging
import pickle
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TextIO

from ion_actors.backends.process.transport.pickling import pickle_value
from ion_actors.context import of_thread

__all__ = ["Settings", "relay_output", "relay_to", "settings_here", "show"]

logger = logging.getLogger("ion_actors")


class RelayKind(enum.IntEnum):
    """The kind of a piece of news."""

    LOG = 1
    WARNING = 2
    PROGRESS = 3
    OUTPUT = 4


class Settings(NamedTuple):
    """What the child has to relay.

    Attributes:
        levels: the levels of loggers that have their own, by name; "" is the root.
        disabled: the level up to which logging is switched off altogether.
        filters: the filters of warnings, in order, each a pickle of action, message, category,
            module, line. The child may not have the category of each.
        output: whether what tasks print is relayed, too.
    """

    levels: dict[str, int]
    disabled: int
    filters: Sequence[bytes]
    output: bool = False


def settings_here() -> Settings:
    """The settings of this process now. They can be pickled."""
    loggers = {"": logging.root, **logging.root.manager.loggerDict}
    levels = {name: one.level for name, one in loggers.items() if isinstance(one, logging.Logger)}
    set_levels = {name: level for name, level in levels.items() if level}
    filters = [one for one in map(_filter, warnings.filters) if one is not None]
    return Settings(set_levels, logging.root.manager.disable, filters)


def _filter(found: Sequence[Any]) -> bytes | None:
    action, message, category, module, line = found
    try:
        return pickle.dumps((action, _pattern(message), category, _pattern(module), line), 5)
    except Exception:
        return None


def _pattern(found: Any) -> str:
    return str(getattr(found, "pattern", found or ""))


# -- in the child ------------------------------------------------------------------------------


def relay_to(send: Callable[[bytes], object], settings: Settings) -> None:
    """Relay to the parent from now on.

    Existing handlers, which an imported module has set up, are removed from their loggers: the same
    records would be handled twice.

    Args:
        send: sends a piece of news, from any thread. It may raise ``EOFError``: nobody listens.
        settings: the parent's.
    """
    _take_over_logging(_Handler(send), settings)
    _take_over_warnings(send, settings)

    def report(fraction: float, message: str) -> None:
        _tell(send, RelayKind.PROGRESS, fraction, message)

    of_thread.report = report


def relay_output(send: Callable[[bytes], object], name: str, text: str) -> None:
    """Send what was printed to the standard stream of that name."""
    _tell(send, RelayKind.OUTPUT, name, text)


def _tell(send: Callable[[bytes], object], kind: RelayKind, *what: object) -> bool:
    """Returns whether the parent listens.

    It does not if it has ended, as this process soon will; nor to a fork that a task has made.
    """
    packed = pickle_value((int(kind), what))
    try:
        send(packed)
    except EOFError:
        return False
    return True


def _take_over_logging(handler: logging.Handler, settings: Settings) -> None:
    for one in list(logging.root.manager.loggerDict.values()):
        if isinstance(one, logging.Logger):
            one.handlers.clear()
            one.propagate = True
    logging.root.handlers[:] = [handler]
    for name, level in settings.levels.items():
        logging.getLogger(name or None).setLevel(level)
    logging.disable(settings.disabled)


class _Handler(logging.Handler):
    """Sends log records, as far as they can be pickled."""

    def __init__(self, send: Callable[[bytes], object]) -> None:
        super().__init__()
        self._send = send
        self._formatter = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        """See :class:`logging.Handler`."""
        try:
            state, extras = self._prepare(record)
            if (
                not _tell(self._send, RelayKind.LOG, state, extras)
                and logging.lastResort is not None
            ):
                logging.lastResort.handle(record)  # as without any handler
        except Exception:
            self.handleError(record)

    def _prepare(self, record: logging.LogRecord) -> tuple[dict[str, Any], dict[str, Any]]:
        """The attributes of the record, also those that users have added, each packed alone.

        Its text is made here: arguments may be any objects.
        """
        state = dict(record.__dict__)
        if record.exc_info and not record.exc_text:
            state["exc_text"] = self._formatter.formatException(record.exc_info)
        state.update(msg=record.getMessage(), args=None, exc_info=None)
        state.pop("message", None)
        extras = {name: value for name, value in state.items() if type(value) not in _PLAIN}
        plain = {name: value for name, value in state.items() if name not in extras}
        return plain, {name: _packed(value) for name, value in extras.items()}


_PLAIN = (str, int, float, bool, type(None))


def _packed(value: object) -> tuple[bytes, str]:
    """Its pickle, if it has one, and its text, to be used if it cannot be pickled or unpickled."""
    kind = type(value).__name__
    try:
        return pickle_value(value), f"<{kind} that cannot be rebuilt>"
    except Exception:
        return b"", _looks(value, f"<{kind} without a repr>")


def _looks(value: object, otherwise: str) -> str:
    try:
        return repr(value)
    except Exception:
        return otherwise


def _take_over_warnings(send: Callable[[bytes], object], settings: Settings) -> None:
    # Compiling the default filters would take half of the time of a start.
    if list(map(_filter, warnings.filters)) != list(settings.filters):
        warnings.resetwarnings()
        for one in settings.filters:
            _take_over_filter(one)
    as_before = warnings.showwarning

    def showwarning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if file is not None:
            as_before(message, category, filename, lineno, file, line)
            return
        _tell(send, RelayKind.WARNING, *_picklable(message, category), filename, lineno, line)

    warnings.showwarning = showwarning


def _take_over_filter(found: bytes) -> None:
    try:
        action, message, category, module, line = pickle.loads(found)
        warnings.filterwarnings(action, message, category, module, line, append=True)
    except Exception as error:  # the category cannot be imported here, or the action is unknown
        logger.debug("a filter of warnings is left out", exc_info=error)


def _picklable(
    message: Warning | str, category: type[Warning]
) -> tuple[Warning | str, type[Warning]]:
    for one in (message, str(message)):
        for kind in category.__mro__:
            if not issubclass(kind, Warning):
                break
            try:
                pickle.loads(pickle_value((one, kind)))
            except Exception:
                continue
            return one, kind
    return str(message), Warning


# -- in the parent -----------------------------------------------------------------------------


def show(news: bytes | bytearray) -> None:
    """Handle a piece of news as if this process had made it. It never raises, but logs.

    It is called in the thread of the worker whose child has sent it.
    """
    try:
        kind, what = pickle.loads(news)
        _SHOW[RelayKind(kind)](*what)
    except Exception:
        logger.exception("a message of a worker's process could not be relayed")


def _show_log(state: dict[str, Any], extras: dict[str, tuple[bytes, str]]) -> None:
    unpacked = {name: _unpacked(*extra) for name, extra in extras.items()}
    record = logging.makeLogRecord({**state, **unpacked})
    found = logging.getLogger(record.name)
    if found.isEnabledFor(record.levelno):
        found.handle(record)


def _unpacked(pickled: bytes, looks: str) -> object:
    try:
        return pickle.loads(pickled) if pickled else looks
    except Exception:
        return looks


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None
) -> None:
    warnings.showwarning(message, category, filename, lineno, None, line)


def _show_progress(fraction: float, message: str) -> None:
    if of_thread.report is not None:
        of_thread.report(fraction, message)


def _show_output(name: str, text: str) -> None:
    stream: TextIO | None = getattr(sys, name)
    if stream is not None:
        stream.write(text)
        stream.flush()


_SHOW: dict[RelayKind, Callable[..., None]] = {
    RelayKind.LOG: _show_log,
    RelayKind.WARNING: _show_warning,
    RelayKind.PROGRESS: _show_progress,
    RelayKind.OUTPUT: _show_output,
}
