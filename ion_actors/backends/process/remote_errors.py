"""An exception of a child process comes to the parent as what it is.

It has its class, its attributes, its notes, its cause and context, and, in a group, its members,
each of them likewise. Its traceback cannot come; it is shown as text, in a note. (A note, and not a
``__cause__`` as in ``concurrent.futures``: a program that looks at the cause finds the one that the
task raised from, or None, as with threads; nothing has to give way.)

Each exception of the chain is pickled alone, so one that cannot be, or that cannot be rebuilt, is
replaced by a :class:`ion_actors.RemoteError` without harm to the others; or, if it is no
``Exception``, by a :class:`ion_actors.RemotePanic`.

An exception pickles, by default, as a call of its class with its ``args``, and many classes with a
constructor of their own pass something else to that of their base. Where that call fails, the
constructor is left out, as it is for all other objects: what it has made is in ``args`` and in the
attributes.
"""

from __future__ import annotations

import copyreg
import functools
import io
import logging
import pickle
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from ion_actors._printable import printable
from ion_actors.backends.process.pickling import in_words, picklers
from ion_actors.errors import RemoteError, RemotePanic

__all__ = ["RemoteTraceback", "pack_error", "unpack_error"]

logger = logging.getLogger("ion_actors")

# A chain that is longer is cut: its far end is in the text all the same.
_LONGEST = 64

_OURS = "ion_actors.backends.process."

_HEAP_TYPE = 1 << 9  # of CPython's type flags: it was made by a class statement, and not in C

_INTERNAL_ERROR = "it could not be said what it was"


class RemoteTraceback(str):
    """A note with the traceback of an exception in the process that raised it."""

    __slots__ = ()


@dataclass(slots=True)
class _Link:
    """One exception of a chain. What it refers to is known by its place in the chain."""

    pickled: bytes | None
    why_not: str  # in words, if it is not
    type_name: str
    is_panic: bool  # no Exception
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
        why = f"{type(fault).__name__} while it was packed"
        panic, name = not isinstance(error, Exception), _name(type(error))
        link = _Link(None, why, name, panic, _INTERNAL_ERROR, (), None, None, None, False)
        return pickle.dumps(([link], why), 5)


def unpack_error(packed: bytes) -> BaseException:
    """The exception that was packed, or a ``RemoteError`` in its place."""
    links, text = pickle.loads(packed)
    found: list[BaseException] = []
    for link in links:
        found.append(_rebuild(link, found))
    error = found[-1]
    try:
        _add_note(error, RemoteTraceback(text))
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
        pickled, why_not = _pickled(error, self._places)
        return _Link(
            pickled=pickled,
            why_not=why_not,
            type_name=_name(type(error)),
            is_panic=not isinstance(error, Exception),
            message=_message(error),
            notes=[str(one) for one in getattr(error, "__notes__", ())],
            members=None if inner is None else [one for one in inner if one is not None],
            cause=cause,
            context=context,
            suppress=error.__suppress_context__,
        )


def _members(error: BaseException) -> Sequence[BaseException] | None:
    return error.exceptions if isinstance(error, BaseExceptionGroup) else None


def _pickled(error: BaseException, places: dict[int, int | None]) -> tuple[bytes | None, str]:
    """Its own pickle, in which other exceptions of the chain are only named by their places.

    Without one: why not.
    """
    why_not = ""
    for kind in (pickle.Pickler, *picklers()):
        file = io.BytesIO()
        pickler = _naming(kind)(file, 5)
        pickler.places = places
        try:
            pickler.dump(error)
        except BaseException as fault:
            why_not = why_not or in_words(fault)
            continue
        return file.getvalue(), ""
    return None, why_not


@functools.cache  # an unwanted class is only found by the garbage collector
def _naming(kind: Any) -> Any:
    overrides = hasattr(kind, "reducer_override")

    class Naming(kind):  # type: ignore[misc]
        places: dict[int, int | None]

        def persistent_id(self, obj: object) -> int | None:
            return self.places.get(id(obj)) if isinstance(obj, BaseException) else None

        def reducer_override(self, obj: object) -> Any:
            if isinstance(obj, BaseException) and _pickles_by_default(type(obj)):
                reduced: Any = obj.__reduce__()  # class, args and, if there are any, attributes
                return (_made_again, reduced[:2], *reduced[2:])
            return super().reducer_override(obj) if overrides else NotImplemented

    return Naming


def _pickles_by_default(kind: type[BaseException]) -> bool:
    return (
        kind.__reduce__ is BaseException.__reduce__
        and kind.__reduce_ex__ is object.__reduce_ex__
        and kind not in copyreg.dispatch_table
        and not issubclass(kind, BaseExceptionGroup)
    )


def _made_again(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """An exception of that class, which then gets its attributes."""
    try:
        error = kind(*args)
    except BaseException:
        if any(vars(one).get("__slots__") for one in kind.__mro__):
            raise  # not all that there was to it is in its args and its attributes
        error = _without_constructor(kind, args)
    # A constructor that took them may have passed on something else.
    BaseException.args.__set__(error, args)  # type: ignore[attr-defined]
    return error


def _without_constructor(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """An exception as that of its nearest builtin class would be made."""
    builtin: Any = next(one for one in kind.__mro__ if not one.__flags__ & _HEAP_TYPE)
    error: BaseException = builtin.__new__(kind, *args)
    builtin.__init__(error, *args)
    return error


def _name(kind: type[BaseException]) -> str:
    module = "__main__" if kind.__module__ == "__mp_main__" else kind.__module__
    return printable(f"{module}.{kind.__qualname__}".removeprefix("builtins."))


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
    error, why_not = _from_pickle(link, found)
    if error is None:  # not `or`: an exception may count as false
        error = _stand_in(link, found, why_not)
    # Past the class's own ideas of how attributes are set.
    set_ = BaseException.__setattr__
    set_(error, "__cause__", None if link.cause is None else found[link.cause])
    set_(error, "__context__", None if link.context is None else found[link.context])
    set_(error, "__suppress_context__", link.suppress)
    try:
        return error
    finally:
        del error, found


def _from_pickle(link: _Link, found: Sequence[BaseException]) -> tuple[BaseException | None, str]:
    """The exception, or why it cannot be had."""
    if link.pickled is None:
        return None, f"cannot be pickled: {link.why_not}"
    try:
        error: object = _Unpickler(link.pickled, found).load()
    except BaseException as fault:
        return None, f"cannot be rebuilt here: {in_words(fault)}"
    if not isinstance(error, BaseException):
        return None, f"comes out of its pickle as an object of {type(error).__name__}"
    return error, ""


def _stand_in(link: _Link, found: Sequence[BaseException], why_not: str) -> BaseException:
    error: BaseException
    if link.members:
        members = [found[one] for one in link.members]
        error = BaseExceptionGroup(f"{link.type_name}: {link.message}", members)
    else:
        kind = RemotePanic if link.is_panic else RemoteError
        error = kind(link.message, type_name=link.type_name)
    for note in link.notes:
        error.add_note(note)
    error.add_note(f"It stands for a {link.type_name}, which {why_not}")
    return error


def _add_note(error: BaseException, note: str) -> None:
    try:
        BaseException.add_note(error, note)  # not the class's own
    except Exception as fault:  # its __notes__ are no list
        logger.debug("a remote traceback could not be noted:\n%s", note, exc_info=fault)
