"""Objects that go to a child process and back, as bytes.

Plain pickle is tried first: it is the fastest, and handles nearly everything. What it refuses, or
may have pickled wrongly (see ``reducers``), is tried again with the reducers of
``multiprocessing`` (pipes, sockets, what users have registered) and, if it is installed, by
``cloudpickle`` (lambdas, closures, classes made in a function). Only then it is an error, which
names the argument.

Large buffers, such as the data of numpy's arrays, stay out of the bytes (see
``shared_buffers``), and so do descriptors (see ``descriptors``).
"""

from __future__ import annotations

import functools
import importlib
import io
import pickle
import reprlib
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ion_actors.backends.process.main_module import main_can_be_imported
from ion_actors.backends.process.transport.descriptors import Descriptor
from ion_actors.backends.process.transport.reducers import CarefulPickler, reducers
from ion_actors.errors import TaskNotPicklable
from ion_actors.naming import printable
from ion_actors.raised import add_note, in_a_line, traceback_of

__all__ = [
    "LARGE",
    "FarSide",
    "Packed",
    "far_side",
    "not_rebuilt",
    "pack",
    "pack_call",
    "pack_item",
    "pack_result",
    "pack_simply",
    "pickle_value",
    "picklers",
    "set_apart",
    "unpack",
]

# Buffers of at least so many bytes are kept apart. Copying smaller ones through the pipe is as
# quick; see tests/benchmarks/arrays.py.
LARGE = 128 * 1024

_PROTOCOL = 5

_PICKLERS = frozenset((__name__, CarefulPickler.__module__, "cloudpickle.cloudpickle"))


# An object as bytes: its pickle, and the large buffers and descriptors that were left out. This and
# other types that every task needs are plain tuples: making a named one takes longer than pickling.
Packed = tuple[bytes, Sequence[pickle.PickleBuffer | memoryview]]


def pack(obj: object) -> Packed:
    """Pickle ``obj`` by the first pickler that can.

    Raises:
        BaseException: whatever the last of them raised.
    """
    found = _attempt(obj)
    if isinstance(found, tuple):
        return found
    try:
        raise found
    finally:
        del found, obj


def unpack(header: bytes | bytearray | memoryview, buffers: Sequence[Any] = ()) -> Any:
    """The packed object.

    Raises:
        BaseException: whatever its classes raised while it was rebuilt.
    """
    return pickle.loads(header, buffers=buffers) if buffers else pickle.loads(header)


def pack_call(
    name: Callable[[], str],
    fn: Callable[..., Any] | None,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None,
    extra: object = None,
) -> Packed:
    """Pack a call as the tuple ``(fn, args, kwargs, extra)``.

    Args:
        name: returns the task's name, for the error.
        fn: the function to call.
        args: its positional arguments.
        kwargs: its keyword arguments, or None for none.
        extra: further data for the child, which can certainly be pickled.

    Raises:
        TaskNotPicklable: something in it cannot be pickled; the error names it.
    """
    found = _attempt((fn, args, kwargs, extra))
    if isinstance(found, tuple):
        return found
    try:
        raise _blame(name(), fn, args, kwargs or {}, found)
    finally:
        # The error's traceback keeps this frame, and a task's future keeps the error.
        del name, fn, args, kwargs, extra, found


def pack_result(name: Callable[[], str], value: object, extra: object = None) -> Packed:
    """Pack a result as the tuple ``(value, extra)``. ``name`` is as for :func:`pack_call`.

    Raises:
        TaskNotPicklable: the value cannot be pickled.
    """
    found = _attempt((value, extra))
    if isinstance(found, tuple):
        return found
    try:
        raise _refusal(name(), "the result", value, found)
    finally:
        del name, value, extra, found


def pack_item(value: object) -> Packed:
    """Pack an item of a stream as the tuple ``(value, None)``.

    Raises:
        TaskNotPicklable: the value cannot be pickled.
    """
    found = _attempt((value, None))
    if isinstance(found, tuple):
        return found
    try:
        raise _refusal("", "an item", value, found)
    finally:
        del value, found


def not_rebuilt(task: str, what: str, error: BaseException) -> TaskNotPicklable:
    """The error to raise if :func:`unpack` failed: ``what`` was packed, but cannot be rebuilt.

    Args:
        task: the task's name; empty if unknown.
        what: "the call" or "the result".
        error: the error of ``unpack``; becomes the cause.
    """
    shown = TaskNotPicklable(
        f"{what}{_of(task)} cannot be rebuilt from its pickle: {in_a_line(error)}{_lost(error)}",
        task=task,
        what=what,
    )
    shown.__cause__ = error
    try:
        return shown
    finally:
        del error, shown  # a traceback may keep this frame


class FarSide(threading.local):
    """What the other side of this thread's messages has."""

    has_main = True  # a main module like this one, if that can be imported


far_side = FarSide()


def _main_is_there() -> bool:
    return far_side.has_main and main_can_be_imported()


# -- the picklers ------------------------------------------------------------------------------


def picklers() -> Iterable[type[pickle.Pickler]]:
    """The picklers that are tried after plain pickle, each one more capable."""
    cloud = _cloud_pickler()
    if cloud is None:
        return (CarefulPickler,)
    return (CarefulPickler, cloud) if _main_is_there() else (cloud, CarefulPickler)


def pack_simply(obj: object) -> Packed:
    """Pickle ``obj``, if the other side knows its class by name.

    Raises:
        BaseException: whatever pickle raised.
    """
    found = _simply(obj, [])
    if isinstance(found, tuple):
        return found
    try:
        raise found
    finally:
        del found, obj


def pickle_value(value: object) -> bytes:
    """As :func:`pack_simply`, for data that is sent as bytes only. Descriptors are refused.

    Raises:
        BaseException: whatever pickle raised.
    """
    if reducers.plain_is_enough():
        pickled = pickle.dumps(value, _PROTOCOL)
        if not reducers.may_hold_a_pipe(pickled):
            return pickled
    file = io.BytesIO()
    CarefulPickler(file, _PROTOCOL, _refuse_descriptors).dump(value)
    return file.getvalue()


def _refuse_descriptors(buffer: pickle.PickleBuffer) -> bool:
    if isinstance(buffer.raw().obj, Descriptor):
        raise pickle.PicklingError("a descriptor cannot be handed over here")
    return True


def _attempt(obj: object) -> Packed | BaseException:
    inside: list[int] = []
    found = _simply(obj, inside)
    if isinstance(found, tuple):
        # The last one is slow to import.
        there = not any(b"__main__" in part for part in _outside(found[0], inside))
        if there or _main_is_there() or _cloud_pickler() is None:
            return found
        found = pickle.PicklingError("the child cannot import it by its name")
    # A BaseException is not an error of pickling: something wants to end this.
    kinds = iter(picklers())
    while isinstance(found, Exception) and (kind := next(kinds, None)) is not None:
        found = _by(kind, obj)
    try:
        return found
    finally:
        del found, obj  # an error's traceback leads back to this frame


def _simply(obj: object, inside: list[int]) -> Packed | BaseException:
    """By plain pickle, if that is enough. ``inside`` gets the sizes of buffers in the bytes."""
    if not reducers.plain_is_enough():
        return _by(CarefulPickler, obj)
    buffers: list[pickle.PickleBuffer] = []
    take = functools.partial(set_apart, buffers, inside=inside)
    try:
        header = pickle.dumps(obj, _PROTOCOL, buffer_callback=take)
    except BaseException as error:
        return error
    if any(map(reducers.may_hold_a_pipe, _outside(header, inside))):
        return _by(CarefulPickler, obj)
    return header, buffers


def _outside(pickled: bytes, inside: list[int]) -> Iterable[bytes]:
    """Parts of the pickle that have all that is not in its buffers.

    To look for a word in an array takes several times as long as to pickle it.
    """
    rest = len(pickled) - inside[0] if len(inside) == 1 else len(pickled)
    if 2 * rest >= len(pickled):
        return (pickled,)
    return pickled[:rest], pickled[-rest:]  # one buffer has it all before itself, and behind


def _by(kind: Any, obj: object) -> Packed | BaseException:
    buffers: list[pickle.PickleBuffer] = []
    file = io.BytesIO()
    try:
        kind(file, _PROTOCOL, buffer_callback=functools.partial(set_apart, buffers)).dump(obj)
    except BaseException as error:
        return error
    return file.getvalue(), buffers


def set_apart(
    apart: list[pickle.PickleBuffer],
    buffer: pickle.PickleBuffer,
    *,
    inside: list[int] | None = None,
) -> bool:
    """Pickle's callback for each buffer: returns whether it stays in the bytes.

    Args:
        apart: gets those that do not.
        buffer: the buffer.
        inside: gets the sizes of those that do.
    """
    try:
        with buffer.raw() as raw:
            if raw.nbytes < LARGE and not isinstance(raw.obj, Descriptor):
                if inside is not None:
                    inside.append(raw.nbytes)
                return True
    except BufferError:  # not in one piece
        if inside is not None:
            inside.append(0)  # it counts, and nothing is left out
        return True
    apart.append(buffer)
    return False


@functools.cache
def _cloud_pickler() -> type[pickle.Pickler] | None:
    try:
        cloudpickle: Any = importlib.import_module("cloudpickle")  # an extra; slow to import
    except ImportError:
        return None

    class CloudPickler(cloudpickle.Pickler):  # type: ignore[misc]
        """Uses the registered reducers of users before its own."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # Set before the constructor, which looks for it only here.
            self.dispatch_table = reducers.beside(cloudpickle.Pickler.dispatch_table)
            super().__init__(*args, **kwargs)

        def reducer_override(self, obj: Any) -> Any:
            found = reducers.override(obj)
            if found is NotImplemented and not reducers.registered(type(obj)):
                return super().reducer_override(obj)
            return found

    return CloudPickler


# -- whose fault it is -------------------------------------------------------------------------


def _blame(
    task: str,
    fn: Callable[..., Any] | None,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    error: BaseException,
) -> TaskNotPicklable:
    """The error that names the first part of the call that cannot be pickled alone."""
    parts: list[tuple[str, object]] = [("the function", fn)]
    parts += [(f"argument {place}", value) for place, value in enumerate(args, start=1)]
    parts += [(f"argument {name!r}", value) for name, value in kwargs.items()]
    found: Packed | BaseException = error
    value: object = None
    try:
        for what, value in parts:
            found = _attempt(value)
            if not isinstance(found, tuple):
                return _refusal(task, what, value, found)
        return _refusal(task, "the call", fn, error)
    finally:
        del fn, args, kwargs, error, parts, found, value  # as in _attempt()


def _refusal(task: str, what: str, value: object, error: BaseException) -> TaskNotPicklable:
    shown = _shorten(value)
    refusal = TaskNotPicklable(
        f"{what}{_of(task)} cannot be pickled: {shown}: {in_a_line(error)}{_hint(error)}",
        task=task,
        what=what,
        shown=shown,
    )
    refusal.__cause__ = _without_frames(error)
    return refusal


def _hint(error: BaseException) -> str:
    if isinstance(error, RuntimeError) and "through inheritance" in str(error):
        return "; multiprocessing can pass it on only at the start of a child: put it into initargs"
    if _cloud_pickler() is None and isinstance(error, AttributeError | pickle.PicklingError):
        return "; with cloudpickle installed (the extra 'process') it might be"
    return ""


def _of(task: str) -> str:
    return f" of task {task!r}" if task else ""


def _lost(error: BaseException) -> str:
    """Advice for a name that this process, a child, does not find in its main module."""
    if not isinstance(error, AttributeError) or "_main__'" not in str(error):
        return ""
    if "'__mp_main__'" in str(error):
        return (
            "; a child imports the main module, and finds there what that defines outside of "
            'its `if __name__ == "__main__":`'
        )
    install = "" if _cloud_pickler() else ", or install cloudpickle (the extra 'process')"
    return (
        "; a child cannot import the main module of this program (it is a prompt, -c, standard "
        f"input or a __main__.py): put what the task needs into a module of its own{install}"
    )


def _without_frames(error: BaseException) -> BaseException:
    """The same error, with its traceback as a note: its frames would keep the whole call."""
    found = traceback_of(error)
    while found is not None and found.tb_frame.f_globals.get("__name__") in _PICKLERS:
        found = found.tb_next
    if found is not None:
        add_note(error, f"It was raised here:\n{''.join(traceback.format_tb(found)).rstrip()}")
    return BaseException.with_traceback(error, None)


_reprs = reprlib.Repr()
_reprs.maxother = _reprs.maxstring = 80


def _shorten(value: object) -> str:
    try:
        return printable(_reprs.repr(value))
    except BaseException:  # __repr__ is the user's code
        return f"<{type(value).__name__} at {id(value):#x}>"
