"""The initializer of a pool, packed once for all its children.

An initializer's arguments may be large, such as a table for each worker. They are packed when the
first worker starts, and large data goes into a file without a name, of which each child maps what
it needs: there is one copy for all of them, and none in the parent's own memory. Later children get
the same data, even if the arguments were changed since.

They may contain locks, queues and shared values, as with ``ProcessPoolExecutor``.
"""

from __future__ import annotations

import functools
import mmap
import os
import pickle
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from ion_actors.actors.stateful import MoveIn
from ion_actors.backends.process.transport.anonymous_file import new_file
from ion_actors.backends.process.transport.descriptors import Descriptor
from ion_actors.backends.process.transport.log_relay import Settings
from ion_actors.backends.process.transport.pickling import (
    LARGE,
    Packed,
    pack_call,
    pack_simply,
    unpack,
)
from ion_actors.backends.process.transport.reducers import starting_a_child
from ion_actors.backends.process.transport.shared_buffers import SharedBuffers, write_all
from ion_actors.backends.protocol import Hopeless
from ion_actors.context import Context
from ion_actors.errors import TaskNotPicklable
from ion_actors.forking import on_fork

__all__ = ["Initializer", "initializer_of", "open_initializer"]

Place = tuple[int, int]  # offset and bytes, in the file


class Initializer:
    """An initializer with its arguments, as bytes. Any thread may use it.

    Args:
        initializer: the function to call first in each child; None for none.
        initargs: its arguments.
    """

    def __init__(
        self, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
    ) -> None:
        self._initializer = initializer
        self._initargs = initargs
        self._lock = threading.Lock()  # guards the next: the first thread packs, others wait for it
        self._packed: tuple[Descriptor | None, list[Any]] | None = None

    @classmethod
    def of_bytes(cls, packed: Packed) -> Initializer:
        """One that was packed elsewhere."""
        made = cls(None, ())
        made._packed = _put_away(packed)
        return made

    def is_of(self, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> bool:
        """Whether these are packed here."""
        mine = self._initializer
        if isinstance(mine, MoveIn) and isinstance(initializer, MoveIn):
            return mine.is_like(initializer)
        return mine is initializer and self._initargs is initargs

    def pack(self) -> None:
        """Pack them, unless that was done before.

        Raises:
            Hopeless: the initializer, or one of its arguments, cannot be pickled.
        """
        with self._lock:
            if self._packed is None:
                self._packed = _put_away(self._in_bytes())

    def message(self, settings: Settings) -> Packed:
        """The content of a START message. They must have been packed.

        Args:
            settings: what the child relays.
        """
        assert self._packed is not None, "asked for before it was packed"
        return pack_simply((settings, *self._packed))

    def _in_bytes(self) -> Packed:
        initializer: Any = self._initializer
        try:
            with starting_a_child():
                return pack_call(lambda: "initializer", initializer, self._initargs, None)
        except TaskNotPicklable as error:
            raise Hopeless(f"its workers cannot start in processes: {error}") from error


def _put_away(packed: Packed) -> tuple[Descriptor | None, list[Any]]:
    """The same, with large data in a file, and that file; or without one, if none can be made."""
    header, buffers = packed
    frames: list[Any] = [pickle.PickleBuffer(header), *map(pickle.PickleBuffer, buffers)]
    large = [place for place, one in enumerate(frames) if one.raw().nbytes >= LARGE]
    file = new_file() if large else None
    if file is None:
        return None, frames
    end = 0
    try:
        for place in large:
            raw = frames[place].raw()
            write_all(file.fd, raw, end)
            frames[place] = (end, raw.nbytes)
            end += -(-raw.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        os.ftruncate(file.fd, end)
        return Descriptor.copy_of(file.fd), frames
    except OSError:  # there is no room for it: send it through the pipes
        return None, [pickle.PickleBuffer(header), *map(pickle.PickleBuffer, buffers)]
    finally:
        file.close()


# -- those that there are ----------------------------------------------------------------------


_lock = threading.Lock()  # guards the next
_initializers: weakref.WeakKeyDictionary[Context, Initializer] = weakref.WeakKeyDictionary()


def initializer_of(
    context: Context, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
) -> Initializer:
    """The instance that all workers of a pool share.

    Args:
        context: the pool's. After its end no worker starts.
        initializer: the pool's.
        initargs: the pool's.
    """
    with _lock:
        found = _initializers.get(context)
        if found is not None and found.is_of(initializer, initargs):
            return found
        made = _initializers[context] = Initializer(initializer, initargs)
    context.add_callback(functools.partial(_forget, weakref.ref(context), made))
    return made


def _forget(context: weakref.ref[Context], initializer: Initializer) -> None:
    ended = context()
    with _lock:
        if ended is not None and _initializers.get(ended) is initializer:
            del _initializers[ended]


def _after_fork() -> None:
    """In a forked child: the pools belong to the parent, and a thread there may hold the lock."""
    global _lock, _initializers
    _lock, _initializers = threading.Lock(), weakref.WeakKeyDictionary()


on_fork(_after_fork)


# -- in the child ------------------------------------------------------------------------------


def open_initializer(shared: SharedBuffers, body: bytes | bytearray) -> tuple[Settings, Packed]:
    """The content of a START message: the settings, and the initializer's call, still packed.

    Raises:
        Exception: it cannot be read.
    """
    settings, file, frames = unpack(*shared.open(body))
    header, *buffers = frames if file is None else _mapped(file, frames)
    return settings, (header, buffers)


def _mapped(file: Descriptor, frames: Sequence[Any]) -> list[Any]:
    """The content of the file, in pages that are copied when this process writes to them."""
    try:
        way = {"flags": mmap.MAP_PRIVATE, "prot": mmap.PROT_READ | mmap.PROT_WRITE}
        view = memoryview(mmap.mmap(file.fd, 0, **way))
    finally:
        file.close()
    return [
        view[one[0] : sum(one)] if isinstance(one, tuple) else one  # offset, bytes
        for one in frames
    ]
