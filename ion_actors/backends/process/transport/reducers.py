"""Pickling of objects that plain pickle refuses, or pickles wrongly.

``multiprocessing`` can pass on pipes, sockets and shared memory, and users can register more types
by ``ForkingPickler.register``. Plain pickle does not use that: it refuses a socket, and of a pipe's
end it pickles the bare number of the descriptor, which is another file in another process. So the
result of plain pickle is used only where it is known to be the same.

As in ``multiprocessing``, locks, queues and shared values can be passed on only while a child is
started: see :func:`starting_a_child`.
"""

from __future__ import annotations

import contextlib
import copyreg
import functools
import io
import pickle
import socket
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import connection, resource_sharer
from multiprocessing.context import get_spawning_popen, set_spawning_popen
from multiprocessing.reduction import ForkingPickler
from typing import Any

from ion_actors.backends.process.transport.descriptors import CAN_BE_SENT, Descriptor

__all__ = ["CarefulPickler", "Reducers", "reducers", "starting_a_child"]

Reducer = Callable[[Any], Any]

_OWN_PICKLING = ("__reduce_ex__", "__reduce__", "__getstate__")

# Part of the pickle of a pipe's end, also of one whose class is derived from multiprocessing's.
_PIPE = b"_handle"


class Reducers:
    """The reducers that are registered now, with ``multiprocessing`` and with ``copyreg``.

    Any thread may use it: its state is replaced in one step.
    """

    def __init__(self) -> None:
        self._registered: dict[type, Reducer] = {}
        self._copyreg: dict[type, Reducer] = {}
        self._table: dict[type, Reducer] = {}
        self._is_plain = True

    def plain_is_enough(self) -> bool:
        """Whether ``multiprocessing`` has no reducer that plain pickle might contradict."""
        if _registered() != self._registered:
            self._look()
        return self._is_plain

    def may_hold_a_pipe(self, pickled: bytes) -> bool:
        """Whether plain pickle may have pickled the number of a descriptor."""
        return _PIPE in pickled

    def table(self) -> Mapping[type, Reducer]:
        """The reducer for each type that has one, as a pickler's ``dispatch_table``."""
        if _registered() != self._registered or copyreg.dispatch_table != self._copyreg:
            self._look()
        return self._table

    def beside(self, others: Mapping[type, Reducer]) -> Mapping[type, Reducer]:
        """The same, with the reducers of another pickler, which go before multiprocessing's."""
        known = {kind for kind in others if kind in self._copyreg or self.registered(kind)}
        return {**self.table(), **{kind: others[kind] for kind in others if kind not in known}}

    def registered(self, kind: type) -> Reducer | None:
        """The reducer that users have registered for a type with ``multiprocessing``."""
        found = _registered().get(kind)
        return None if found is None or _is_standard(found) else found

    def override(self, value: Any) -> Any:
        """A pickler's ``reducer_override``, for objects whose type is not in the table.

        That is a pipe's end whose class is derived from multiprocessing's.
        """
        kind = type(value)  # not its __class__, which may be anything
        if not issubclass(kind, connection.Connection) or kind in self.table():
            return NotImplemented
        if any(getattr(kind, name) is not getattr(object, name) for name in _OWN_PICKLING):
            return NotImplemented  # its class has its own way
        return _reduce_pipe(value)

    def _look(self) -> None:
        registered, of_copyreg = dict(_registered()), dict(copyreg.dispatch_table)
        table = {**of_copyreg, **registered}
        table.update((kind, _better(one)) for kind, one in registered.items() if _is_standard(one))
        table.update(_OF_DESCRIPTORS)
        self._table = table
        self._copyreg = of_copyreg
        self._is_plain = all(map(_is_standard, registered.values()))
        self._registered = registered  # last: other threads check this first


def _registered() -> dict[type, Reducer]:
    found: dict[type, Reducer] = ForkingPickler._extra_reducers  # type: ignore[attr-defined]
    return found


def _is_standard(reducer: Reducer) -> bool:
    module = getattr(reducer, "__module__", None)
    return isinstance(module, str) and module.partition(".")[0] == "multiprocessing"


reducers = Reducers()


class CarefulPickler(pickle.Pickler):
    """A pickler that uses ``reducers``."""

    def __init__(
        self,
        file: io.BytesIO,
        protocol: int,
        buffer_callback: Callable[[pickle.PickleBuffer], bool] | None = None,
    ) -> None:
        super().__init__(file, protocol, buffer_callback=buffer_callback)
        self.dispatch_table = reducers.table()

    def reducer_override(self, obj: Any) -> Any:
        """See :class:`pickle.Pickler`."""
        return reducers.override(obj)


# -- descriptors -------------------------------------------------------------------------------


def _reduce_pipe(pipe: Any) -> tuple[Any, ...]:
    handed = Descriptor.copy_of(pipe.fileno())
    if type(pipe) is connection.Connection:
        rebuild: Any = connection.rebuild_connection  # type: ignore[attr-defined]
        return rebuild, (handed, pipe.readable, pipe.writable)
    rest = {name: value for name, value in vars(pipe).items() if name not in _OF_A_PIPE}
    return _rebuild_pipe, (type(pipe), handed, pipe.readable, pipe.writable, rest)


_OF_A_PIPE = ("_handle", "_readable", "_writable")


def _rebuild_pipe(
    kind: type[Any], handed: Descriptor, readable: bool, writable: bool, rest: dict[str, Any]
) -> Any:
    """An object of a class that is derived from that of multiprocessing's pipes."""
    pipe: Any = object.__new__(kind)
    connection.Connection.__init__(pipe, handed.detach(), readable, writable)
    vars(pipe).update(rest)
    return pipe


def _reduce_socket(sock: socket.socket) -> tuple[Any, ...]:
    handed = Descriptor.copy_of(sock.fileno())
    return _rebuild_socket, (handed, sock.family, sock.type, sock.proto, sock.gettimeout())


def _rebuild_socket(
    handed: Descriptor, family: int, kind: int, protocol: int, timeout: float | None
) -> socket.socket:
    sock = socket.socket(family, kind, protocol, fileno=handed.detach())
    sock.settimeout(timeout)
    return sock


def _reduce_dup_fd(found: Any) -> tuple[Any, ...]:
    """The result of ``DupFd`` while no child is started: take it from the thread that keeps it."""
    return Descriptor(found.detach()).__reduce_ex__(5)


def _reduce_ctype(reduce: Reducer, value: Any) -> Any:
    """Reduce a value of a C type; multiprocessing treats all of a type as shared, if one is."""
    return reduce(value) if hasattr(value, "_wrapper") else value.__reduce_ex__(5)


def _better(reducer: Reducer) -> Reducer:
    """The replacement for a reducer of multiprocessing."""
    name = reducer.__name__
    if name == "reduce_ctype":
        return functools.partial(_reduce_ctype, reducer)
    return _BETTER.get(name, reducer) if CAN_BE_SENT else reducer


_BETTER: dict[str, Reducer] = {"reduce_connection": _reduce_pipe, "_reduce_socket": _reduce_socket}
_OF_DESCRIPTORS: dict[type, Reducer] = (
    {resource_sharer.DupFd: _reduce_dup_fd} if CAN_BE_SENT else {}
)


# -- starting a child --------------------------------------------------------------------------


class _Start:
    """The interface that ``multiprocessing`` expects of the process that is being started."""

    DupFd = staticmethod(Descriptor.copy_of)

    def duplicate_for_child(self, fd: int) -> int:
        """The same number: ``DupFd`` gets it, and duplicates it."""
        return fd


@contextlib.contextmanager
def starting_a_child() -> Iterator[None]:
    """The block in which this thread packs data for the start of a child.

    Locks, queues and shared values can be packed here. The result is not bound to one child, so it
    can be packed once for many.
    """
    before: Any = get_spawning_popen()
    start: Any = _Start()
    set_spawning_popen(start)
    try:
        yield
    finally:
        set_spawning_popen(before)
