"""An exception of a child process is rebuilt in the parent.

It keeps its class, its attributes, its notes, its cause and context, and, if it is a group, its
members, each of them likewise. Its traceback cannot be sent; it is shown as text, in a note. (A
note and not a ``__cause__`` as in ``concurrent.futures``: a program that reads the cause finds the
one that the task raised from, or None, as with threads.)

Each exception of the chain is pickled alone, so one that cannot be pickled or rebuilt is replaced
by a :class:`ion_actors.RemoteError` without affecting the others; or, if it is no ``Exception``, by
a :class:`ion_actors.RemotePanic`.

An exception pickles, by default, as a call of its class with its ``args``, and many classes with a
constructor of their own pass something else to that of their base. Where that call fails, the
constructor is left out, as it is for all other objects: what it has made is in ``args``, in the
attributes and in the slots. These are set without asking the class, which may be frozen.
"""

from __future__ import annotations

import contextlib
import copyreg
import functools
import io
import pickle
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from types import MemberDescriptorType, TracebackType
from typing import Any, cast

from ion_actors.backends.process.transport.pickling import (
    Packed,
    pack_simply,
    picklers,
    set_apart,
    unpack,
)
from ion_actors.backends.process.transport.reducers import CarefulPickler, reducers
from ion_actors.errors import RemoteError, RemotePanic
from ion_actors.naming import printable
from ion_actors.raised import (
    add_note,
    attributes_of,
    cause_of,
    context_of,
    in_a_line,
    is_a,
    members_of,
    message_of,
    name_of,
    notes_of,
    set_cause,
    set_context,
    suppresses_context,
    traceback_of,
)

__all__ = ["RemoteTraceback", "pack_error", "unpack_error"]

# A longer chain is cut: its far end is in the text nevertheless.
LONGEST = 64

_ARGS: Any = BaseException.__dict__["args"]

_OURS = ("ion_actors.backends.process.", "ion_actors.backends.ray.")

_HEAP_TYPE = 1 << 9  # of CPython's type flags: the class was made by a class statement, not in C


class RemoteTraceback(str):
    """A note with the traceback of an exception in the process that raised it."""

    __slots__ = ()


@dataclass(slots=True)
class _Link:
    """One exception of a chain. It refers to others by their places in the chain."""

    pickled: bytes | None
    buffers: Sequence[Any]  # outside the pickle
    why_not: str  # the reason, if it is not pickled
    type_name: str
    is_panic: bool  # no Exception
    message: str
    notes: Sequence[str]
    members: Sequence[int] | None
    cause: int | None
    context: int | None
    suppress: bool


def pack_error(error: BaseException, process: str = "") -> Packed:
    """An exception as bytes. It never raises.

    Args:
        error: the exception, with its traceback.
        process: the name of the process that raised it, for the note.
    """
    try:
        return pack_simply((_links(error), _as_text(error, process)))
    except BaseException as fault:  # for example out of memory, or of stack
        why = f"{name_of(type(fault))} while it was packed"
        panic, name = not is_a(error, Exception), _name(type(error))
        link = _Link(None, (), why, name, panic, message_of(error), (), None, None, None, False)
        return pickle.dumps(([link], why), 5), ()


def unpack_error(packed: tuple[Any, Sequence[Any]]) -> BaseException:
    """The packed exception, or a ``RemoteError`` instead."""
    links, text = unpack(*packed)
    found: list[BaseException] = []
    for link in links:
        found.append(_rebuild(link, found))
    error = found[-1]
    try:
        add_note(error, RemoteTraceback(text))
        return error
    finally:
        del error, found


# -- in the child ------------------------------------------------------------------------------


def _as_text(error: BaseException, process: str) -> str:
    found = _of_the_task(traceback_of(error))
    try:
        shown = traceback.TracebackException(type(error), error, found, compact=True)
        lines = list(shown.format())
    except BaseException:  # its class returns what cannot be shown
        lines = [*traceback.format_tb(found), in_a_line(error)]
    where = f"in the process {process}" if process else "in a worker's process"
    return f"The traceback {where}:\n\n{''.join(lines).rstrip()}"


def _of_the_task(found: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames of this library that lead to the task."""
    while found is not None and str(found.tb_frame.f_globals.get("__name__")).startswith(_OURS):
        found = found.tb_next
    return found


def _links(error: BaseException) -> list[_Link]:
    """All exceptions of the chain, each after those that it refers to."""
    chain = _Chain()
    chain.add(error, 0)
    return chain.links


class _Chain:
    """Exceptions that refer to each other, with their places."""

    def __init__(self) -> None:
        self.links: list[_Link] = []
        self._places: dict[int, int | None] = {}  # by id; None as long as it is not finished

    def add(self, error: BaseException | None, depth: int) -> int | None:
        """Its place. None: there is none, since it closes a circle, or is too far away."""
        if error is None or depth > LONGEST:
            return None
        if id(error) not in self._places:
            self._places[id(error)] = None
            link = self._link(error, depth + 1)
            self._places[id(error)] = len(self.links)
            self.links.append(link)
        return self._places[id(error)]

    def _link(self, error: BaseException, depth: int) -> _Link:
        members = members_of(error)
        inner = None if members is None else [self.add(one, depth) for one in members]
        cause, context = self.add(cause_of(error), depth), self.add(context_of(error), depth)
        (pickled, buffers), why_not = _pickled(error, self._places)
        return _Link(
            pickled=pickled,
            buffers=buffers,
            why_not=why_not,
            type_name=_name(type(error)),
            is_panic=not is_a(error, Exception),
            message=message_of(error),
            notes=notes_of(error),
            members=None if inner is None else [one for one in inner if one is not None],
            cause=cause,
            context=context,
            suppress=suppresses_context(error),
        )


def _pickled(
    error: BaseException, places: dict[int, int | None]
) -> tuple[tuple[bytes | None, Sequence[Any]], str]:
    """Its own pickle, which refers to other exceptions of the chain by their places.

    If there is none: the reason.
    """
    why_not = ""
    for kind in (CarefulPickler, *picklers()):
        file = io.BytesIO()
        buffers: list[pickle.PickleBuffer] = []
        pickler = _naming(kind)(file, 5, buffer_callback=functools.partial(set_apart, buffers))
        pickler.places = places
        try:
            pickler.dump(error)
        except BaseException as fault:
            why_not = why_not or in_a_line(fault)
            continue
        return (file.getvalue(), buffers), ""
    return (None, ()), why_not


@functools.cache  # an unwanted class is only found by the garbage collector
def _naming(kind: Any) -> Any:
    class NamedPickler(kind):  # type: ignore[misc]
        places: dict[int, int | None]

        def persistent_id(self, obj: object) -> int | None:
            """The place of an exception of the chain."""
            return self.places.get(id(obj)) if issubclass(type(obj), BaseException) else None

        def reducer_override(self, obj: Any) -> Any:
            if issubclass(type(obj), BaseException) and _pickles_by_default(type(obj)):
                return _reduced(obj)
            return super().reducer_override(obj)

    return NamedPickler


def _pickles_by_default(kind: type[BaseException]) -> bool:
    reduces = next(one for one in kind.__mro__ if "__reduce__" in vars(one))
    return (
        not reduces.__flags__ & _HEAP_TYPE
        and kind.__reduce_ex__ is object.__reduce_ex__
        and kind not in copyreg.dispatch_table
        and not reducers.registered(kind)
        and not issubclass(kind, BaseExceptionGroup)
    )


def _reduced(error: Any) -> tuple[Any, ...]:
    """Its class and its args; then its attributes, which its class might not allow to be set."""
    kind: Any = type(error)
    _, args, *rest = kind.__reduce__(error)
    made = (kind, args, _ARGS.__get__(error))
    if _has_its_own_way(kind):
        return _made_again, made, *rest
    state = ({**attributes_of(error), **(rest[0] if rest else {})}, _in_slots(error))
    return _made_again, made, state if any(state) else None, None, None, _set_state


def _has_its_own_way(kind: Any) -> bool:
    """Whether its class has its own ``__setstate__``, not one that ``dataclass`` made."""
    way = kind.__setstate__
    return way is not BaseException.__setstate__ and way.__module__ != "dataclasses"


def _in_slots(error: BaseException) -> dict[tuple[int, str], Any]:
    """The values of its slots, by the position of their class, from the end, and their names."""
    found = {}
    for place, kind in enumerate(reversed(type(error).__mro__)):
        if kind.__flags__ & _HEAP_TYPE:
            for name, slot in vars(kind).items():
                if type(slot) is MemberDescriptorType:
                    with contextlib.suppress(AttributeError):  # it is empty
                        found[place, name] = slot.__get__(error)
    return found


def _set_state(
    error: BaseException, state: tuple[dict[str, Any], dict[tuple[int, str], Any]]
) -> None:
    attributes, slots = state
    builtin = _builtin(type(error))
    for name, value in attributes.items():
        if hasattr(builtin, name) and name != "__notes__":  # as `path` of an ImportError
            BaseException.__setattr__(error, name, value)
        else:
            attributes_of(error)[name] = value
    kinds = type(error).__mro__[::-1]
    for (place, name), value in slots.items():
        vars(kinds[place])[name].__set__(error, value)


def _made_again(
    kind: type[BaseException], args: tuple[Any, ...], own_args: tuple[Any, ...]
) -> BaseException:
    """An exception of that class, which then gets its attributes."""
    try:
        error = kind(*args)
    except BaseException:
        error = _without_constructor(kind, args)
    # A constructor that accepted them may have passed on something else.
    _ARGS.__set__(error, own_args)
    return error


def _builtin(kind: type[BaseException]) -> Any:
    """Its nearest builtin class."""
    return next(one for one in kind.__mro__ if not one.__flags__ & _HEAP_TYPE)


def _without_constructor(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """An exception, made as one of its nearest builtin class."""
    builtin = _builtin(kind)
    error: BaseException = builtin.__new__(kind, *args)
    builtin.__init__(error, *args)
    return error


def _name(kind: type[BaseException]) -> str:
    module = "__main__" if kind.__module__ == "__mp_main__" else kind.__module__
    return printable(f"{module}.{kind.__qualname__}".removeprefix("builtins."))


# -- in the parent -----------------------------------------------------------------------------


class _Unpickler(pickle.Unpickler):
    """Inserts the exceptions that were rebuilt already."""

    def __init__(self, link: _Link, found: Sequence[BaseException]) -> None:
        super().__init__(io.BytesIO(link.pickled or b""), buffers=link.buffers)
        self._found = found

    def persistent_load(self, pid: Any) -> BaseException:
        """The exception at this place of the chain."""
        found: BaseException = self._found[pid]
        return found


def _rebuild(link: _Link, found: Sequence[BaseException]) -> BaseException:
    error, why_not = _from_pickle(link, found)
    if error is None:  # not `or`: an exception may count as false
        error = _stand_in(link, found, why_not)
    context = None if link.context is None else found[link.context]
    set_cause(error, None if link.cause is None else found[link.cause])
    set_context(error, context, suppress=link.suppress)
    try:
        return error
    finally:
        del error, found


def _from_pickle(link: _Link, found: Sequence[BaseException]) -> tuple[BaseException | None, str]:
    """The exception, or the reason why it cannot be rebuilt."""
    if link.pickled is None:
        return None, f"cannot be pickled: {link.why_not}"
    try:
        error: object = _Unpickler(link, found).load()
    except BaseException as fault:
        return None, f"cannot be rebuilt here: {in_a_line(fault)}"
    if not issubclass(type(error), BaseException):
        return None, f"is unpickled as an object of {type(error).__name__}"
    return cast("BaseException", error), ""


def _stand_in(link: _Link, found: Sequence[BaseException], why_not: str) -> BaseException:
    error: BaseException
    if link.members:
        members = [found[one] for one in link.members]
        error = BaseExceptionGroup(f"{link.type_name}: {link.message}", members)
    else:
        kind = RemotePanic if link.is_panic else RemoteError
        error = kind(link.message, type_name=link.type_name)
    for note in link.notes:
        add_note(error, note)
    add_note(error, f"It replaces a {link.type_name}, which {why_not}")
    return error
