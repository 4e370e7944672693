"""The contents of the messages between a parent and its child, packed and unpacked.

Calls and results may be large, and go through
:mod:`~ion_actors.backends.process.transport.shared_buffers`. The rest is small.
"""

from __future__ import annotations

import contextvars
import functools
import pickle
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from ion_actors.backends.process.transport.context_vars import pack_variables, unpack_variables
from ion_actors.backends.process.transport.initializer import open_initializer
from ion_actors.backends.process.transport.log_relay import Settings
from ion_actors.backends.process.transport.pickling import Packed, not_rebuilt, pack_call, unpack
from ion_actors.backends.process.transport.remote_errors import pack_error, unpack_error
from ion_actors.backends.process.transport.shared_buffers import SharedBuffers, Unopened
from ion_actors.backends.protocol import Task
from ion_actors.backends.stacks import TaskStack
from ion_actors.backends.stream.conduit import Deferred
from ion_actors.clock import system_clock
from ion_actors.context import Context
from ion_actors.errors import TaskNotPicklable

__all__ = [
    "Cancel",
    "Grant",
    "Located",
    "Received",
    "Request",
    "StartMessage",
    "Threads",
    "open_error",
    "open_item",
    "open_result",
    "open_sealed",
    "open_start",
    "pack_error",
    "pack_extra",
    "pack_request",
    "raise_error",
    "raise_packed",
    "unpack_request",
]

# The calls of a stack that are sent, the innermost ones; and the bytes of all of them.
_MOST_CALLS, _MOST_LOCATED = 256, 64 * 1024

_MOST_WORDS = 1000  # characters of a reason: a CANCEL must be sent in one piece


# A task to run: its function, the positional arguments, the keyword arguments if there are any, the
# variables, and the seconds until its deadline.
Request = tuple[
    Callable[..., Any],
    tuple[Any, ...],
    dict[str, Any] | None,
    contextvars.Context,
    float | None,
]


# Received data before it is unpickled: a pickle, and its buffers.
Received = tuple[Any, Sequence[Any]]


class Cancel(NamedTuple):
    """A task must end."""

    number: int
    expired: bool  # its deadline has passed
    reason: str
    forced: bool = False  # its time to end by itself has passed

    def pack(self) -> bytes:
        """The content of a CANCEL message."""
        short = self.reason.encode(errors="replace")[:_MOST_WORDS].decode(errors="replace")
        return pickle.dumps((self.number, self.expired, short, self.forced), 5)

    @classmethod
    def unpack(cls, body: bytes | bytearray) -> Cancel:
        """The packed object."""
        return cls(*pickle.loads(body))


class Grant(NamedTuple):
    """There is room for more items of a stream."""

    number: int  # of the task
    granted: int  # items it may send in all
    freed: list[tuple[int, int]]  # places of large items that were read

    def pack(self) -> bytes:
        """The content of a GRANT message."""
        return pickle.dumps(tuple(self), 5)

    @classmethod
    def unpack(cls, body: bytes | bytearray) -> Grant:
        """The packed object."""
        return cls(*pickle.loads(body))


class Threads(NamedTuple):
    """The threads of a child."""

    watching: int = 0  # the system's id of the one that watches the control channel
    main: int = 0  # Python's id of the one that runs the tasks

    def pack(self) -> bytes:
        """The content of a WATCHING message."""
        return pickle.dumps(tuple(self), 5)

    @classmethod
    def unpack(cls, body: bytes | bytearray) -> Threads:
        """The packed object."""
        return cls(*pickle.loads(body))


class Located(NamedTuple):
    """Where a child is."""

    number: int  # of its current task; 0 if it has none
    stack: TaskStack

    def pack(self) -> bytes:
        """The content of a LOCATED message, which is not longer than the other side can buffer."""
        number, (calls, beside, hidden) = self
        kept = _MOST_CALLS
        while True:
            body = pickle.dumps((number, calls[-kept:], beside[-kept:], hidden), 5)
            if len(body) <= _MOST_LOCATED:
                return body
            kept //= 2

    @classmethod
    def unpack(cls, body: bytes | bytearray) -> Located:
        """The packed object."""
        number, *stack = pickle.loads(body)
        return cls(number, TaskStack(*stack))


# -- by the parent -----------------------------------------------------------------------------


def pack_request(task: Task) -> Packed:
    """The content of a TASK message.

    Raises:
        TaskNotPicklable: something in the call cannot be pickled.
    """
    extra = None
    if task.variables or task.own_context is not None:
        extra = pack_extra(task)
    return pack_call(task.task_name, task.fn, task.args, task.kwargs, extra)


def pack_extra(task: Task) -> tuple[Any, float | None] | None:
    """A task's variables, packed, and the seconds until its deadline; None if it has neither."""
    variables, remaining = pack_variables(task.variables), _remaining(task.own_context)
    return None if variables is None and remaining is None else (variables, remaining)


def _remaining(context: Context | None) -> float | None:
    """Seconds to the deadline by the real clock; None if there is none.

    The end of a context with another clock cannot be predicted; the child is told when it comes.
    """
    if context is None or context.deadline is None or context.clock is not system_clock:
        return None
    return context.remaining()


def open_result(shared: SharedBuffers, body: bytes | bytearray, name: Callable[[], str]) -> Any:
    """The value of a RESULT message.

    Raises:
        TaskNotPicklable: it cannot be rebuilt.
    """
    try:
        return _unpack_value(functools.partial(shared.open, body), name, "the result")
    finally:
        del shared, body, name  # as below


def open_item(shared: SharedBuffers, body: bytes | bytearray, name: Callable[[], str]) -> Any:
    """The item of an ITEM message; a ``Deferred``, if it is large.

    Raises:
        TaskNotPicklable: it cannot be rebuilt.
    """
    try:
        found = shared.open_later(body)
    except BaseException as error:
        raise not_rebuilt(name(), "an item", error) from error
    if isinstance(found, Unopened):
        return Deferred(functools.partial(_unpack_value, found.open, name, "an item"))
    return _unpack_value(lambda: found, name, "an item")


def _unpack_value(opened: Callable[[], Received], name: Callable[[], str], what: str) -> Any:
    try:
        return unpack(*opened())[0]
    except BaseException as error:
        raise not_rebuilt(name(), what, error) from error
    finally:
        del opened, name  # a method of the task, which will keep the error and so this frame


def open_error(shared: SharedBuffers, body: bytes | bytearray) -> BaseException:
    """The exception of an ERROR or a STOP message."""
    try:
        return unpack_error(shared.open(body))
    except Exception as error:  # its descriptors or its buffers were not received
        return not_rebuilt("", "the exception", error)


def raise_error(
    shared: SharedBuffers, body: bytes | bytearray, name: Callable[[], str]
) -> NoReturn:
    """Raise the exception of an ERROR message."""
    try:
        _raise(open_error(shared, body), name)
    finally:
        del shared, body, name  # a method of the task, which will keep the error and so this frame


def raise_packed(packed: Received, name: Callable[[], str]) -> NoReturn:
    """Raise an exception that was part of a RESULT message."""
    try:
        _raise(unpack_error(packed), name)
    finally:
        del packed, name  # as above


def _raise(error: BaseException, name: Callable[[], str]) -> NoReturn:
    if type(error) is TaskNotPicklable and not error.task:
        error.task = name()  # the child does not know it
        rest = str(error.args[0]).removeprefix(error.what)
        error.args = (f"{error.what} of task {error.task!r}{rest}",)
    try:
        raise error
    finally:
        del error, name


# -- by the child ------------------------------------------------------------------------------


class StartMessage(NamedTuple):
    """The first message to a child."""

    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    settings: Settings  # what it relays


def open_start(shared: SharedBuffers, body: bytes | bytearray) -> StartMessage:
    """Read a START message.

    Raises:
        TaskNotPicklable: it cannot be rebuilt here.
    """
    try:
        settings, packed = open_initializer(shared, body)
    except BaseException as error:
        raise not_rebuilt("initializer", "the call", error) from error
    initializer, initargs, _, _ = _unpack(packed, "initializer")
    return StartMessage(initializer, initargs, settings)


def open_sealed(shared: SharedBuffers, body: bytes | bytearray) -> Received:
    """The content of a TASK message, still packed.

    Raises:
        TaskNotPicklable: it cannot be read.
    """
    try:
        return shared.open(body)
    except BaseException as error:
        raise not_rebuilt("", "the call", error) from error


def unpack_request(received: Received) -> Request:
    """The packed object.

    Raises:
        TaskNotPicklable: it cannot be rebuilt here.
    """
    fn, args, kwargs, extra = _unpack(received, "")
    if extra is None:
        return fn, args, kwargs, contextvars.Context(), None
    variables, remaining = extra
    return fn, args, kwargs, unpack_variables(variables), remaining


def _unpack(received: Received, name: str) -> Any:
    try:
        return unpack(*received)
    except BaseException as error:
        raise not_rebuilt(name, "the call", error) from error
