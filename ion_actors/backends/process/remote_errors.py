"""An exception of a child process comes to the parent as what it is.

It has its class, its attributes, its notes, its cause and context, and, in a group, its members,
each of them likewise. Its traceback cannot come; it is shown as text, in a note. (A note, and not a
``__cause__`` as in ``concurrent.futures``: a program that looks at the cause finds the one that the
task raised from, or None, as with threads; nothing has to give way.)

Each exception of the chain is pickled alone, so one that cannot be, or that cannot be rebuilt, is
replaced by a :class:`ion_actors.RemoteError` without harm to the others.
"""

from __future__ import annotations

import contextlib
import functools
import io
import pickle
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from ion_actors.backends.process.pickling import picklers
from ion_actors.errors import RemoteError

__all__ = ["RemoteTraceback", "pack_error", "unpack_error"]

# A chain that is longer is cut: its far end is in the text all the same.
_LONGEST = 64

_OURS = "ion_actors.backends.process."

_INTERNAL_ERROR = "it could not be said what it was"


class RemoteTraceback(str):
    """A note with the traceback of an exception in the process that raised it."""

    __slots__ = ()


@dataclass(slots=True)
class _Link:
    """One exception of a chain. What it refers to is known by its place in the chain."""

    pickled: bytes | None
    type_name: str
    message: str
    notes: Sequence[str]
    members: Sequence[int] | None
    cause: int | None
    context: int | None
    suppress: bool


def pack_error(error: BaseException, process: str = "") -> bytes:
    """An exception in bytes. It never raises.

    Args:
        error: the exception, with its traceback.
        process: the name of the process that raised it, to be shown.
    """
    try:
        text = _as_text(error, process)
        return pickle.dumps((_links(error), text), 5)
    except BaseException as fault:  # out of memory, say, or of stack
        link = _Link(None, _name(type(error)), _INTERNAL_ERROR, (), None, None, None, False)
        return pickle.dumps(([link], f"{type(fault).__name__} while it was packed"), 5)


def unpack_error(packed: bytes) -> BaseException:
    """The exception that was packed, or a ``RemoteError`` in its place."""
    links, text = pickle.loads(packed)
    found: list[BaseException] = []
    for link in links:
        found.append(_rebuild(link, found))
    error = found[-1]
    try:
        with contextlib.suppress(TypeError):  # a class of its own mind about notes
            error.add_note(RemoteTraceback(text))
        return error
    finally:
        del error, found


# -- in the child ------------------------------------------------------------------------------


def _as_text(error: BaseException, process: str) -> str:
    shown = traceback.TracebackException(
        type(error), error, _of_the_task(error.__traceback__), compact=True
    )
    where = f"in the process {process}" if process else "in a worker's process"
    return f"The traceback {where}:\n\n{''.join(shown.format()).rstrip()}"


def _of_the_task(found: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames of this library that lead to the task."""
    while found is not None and found.tb_frame.f_globals.get("__name__", "").startswith(_OURS):
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
        """Its place. None: there is none, for it closes a circle, or is too far away."""
        if error is None or depth > _LONGEST:
            return None
        if id(error) not in self._places:
            self._places[id(error)] = None
            link = self._link(error, depth + 1)
            self._places[id(error)] = len(self.links)
            self.links.append(link)
        return self._places[id(error)]

    def _link(self, error: BaseException, depth: int) -> _Link:
        members = _members(error)
        inner = None if members is None else [self.add(one, depth) for one in members]
        cause, context = self.add(error.__cause__, depth), self.add(error.__context__, depth)
        return _Link(
            pickled=_pickled(error, self._places),
            type_name=_name(type(error)),
            message=_message(error),
            notes=[str(one) for one in getattr(error, "__notes__", ())],
            members=None if inner is None else [one for one in inner if one is not None],
            cause=cause,
            context=context,
            suppress=error.__suppress_context__,
        )


def _members(error: BaseException) -> Sequence[BaseException] | None:
    return error.exceptions if isinstance(error, BaseExceptionGroup) else None


def _pickled(error: BaseException, places: dict[int, int | None]) -> bytes | None:
    """Its own pickle, in which other exceptions of the chain are only named by their places."""
    for kind in (pickle.Pickler, *picklers()):
        file = io.BytesIO()
        pickler = _naming(kind)(file, 5)
        pickler.places = places
        try:
            pickler.dump(error)
        except BaseException:
            continue
        return file.getvalue()
    return None


@functools.cache  # an unwanted class is only found by the garbage collector
def _naming(kind: Any) -> Any:
    class Naming(kind):  # type: ignore[misc]
        places: dict[int, int | None]

        def persistent_id(self, obj: object) -> int | None:
            return self.places.get(id(obj)) if isinstance(obj, BaseException) else None

    return Naming


def _name(kind: type[BaseException]) -> str:
    module = "__main__" if kind.__module__ == "__mp_main__" else kind.__module__
    return f"{module}.{kind.__qualname__}".removeprefix("builtins.")


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:
        return _INTERNAL_ERROR


# -- in the parent -----------------------------------------------------------------------------


class _Unpickler(pickle.Unpickler):
    """Puts in the exceptions that are already there."""

    def __init__(self, pickled: bytes, found: Sequence[BaseException]) -> None:
        super().__init__(io.BytesIO(pickled))
        self._found = found

    def persistent_load(self, pid: Any) -> BaseException:
        found: BaseException = self._found[pid]
        return found


def _rebuild(link: _Link, found: Sequence[BaseException]) -> BaseException:
    error = _from_pickle(link, found)
    if error is None:  # not `or`: an exception may count as false
        error = _stand_in(link, found)
    error.__cause__ = None if link.cause is None else found[link.cause]
    error.__context__ = None if link.context is None else found[link.context]
    error.__suppress_context__ = link.suppress
    try:
        return error
    finally:
        del error, found


def _from_pickle(link: _Link, found: Sequence[BaseException]) -> BaseException | None:
    if link.pickled is None:
        return None
    try:
        error: object = _Unpickler(link.pickled, found).load()
    except BaseException:
        return None
    return error if isinstance(error, BaseException) else None


def _stand_in(link: _Link, found: Sequence[BaseException]) -> BaseException:
    error: BaseException
    if link.members:
        members = [found[one] for one in link.members]
        error = BaseExceptionGroup(f"{link.type_name}: {link.message}", members)
    else:
        error = RemoteError(link.message, type_name=link.type_name)
    for note in link.notes:
        error.add_note(note)
    return error
