"""Large buffers in the memory of Ray's object store, made writable without a copy.

Ray hands them out read-only, since an object may have several readers. Those that we send have one
each: every call puts its own, and every result is fetched once. So their reader may write to them.

What is kept stays in the store. So only a part of the store is used like this: beyond that, and
for memory that is not the store's, there are copies.
"""

from __future__ import annotations

import ctypes
from typing import Any

__all__ = ["look_again", "writable"]

#: The part of the store that one process may keep.
PART = 1 / 8


class _Buffer(ctypes.Structure):
    """``Py_buffer``."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


class _Store:
    """A mapping of the store's memory, and how many bytes of it are kept here."""

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.end = end
        self.kept = 0
        self.sure = True  # it is still there, as far as is known

    def has_room_for(self, size: int) -> bool:
        """Whether so many bytes more may be kept."""
        return self.kept + size <= PART * (self.end - self.start)


class _Keeper:
    """Keeps the store's object alive as long as a view of it is used."""

    def __init__(self, buffer: Any, store: _Store, size: int) -> None:
        self._buffer, self._store, self._size = buffer, store, size
        store.kept += size

    def __del__(self) -> None:
        self._store.kept -= self._size


_stores: list[_Store] = []


def writable(buffer: Any) -> Any:
    """The same bytes, to be written to: in place, or a copy."""
    address, size = _place_of(buffer)
    store = _store_at(address) if size else None
    if store is None or address + size > store.end or not store.has_room_for(size):
        return bytearray(buffer)
    view: Any = (ctypes.c_ubyte * size).from_address(address)
    view.keeper = _Keeper(buffer, store, size)
    return view


def _place_of(buffer: Any) -> tuple[int, int]:
    found = _Buffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(buffer), ctypes.byref(found), 0)
    try:
        return found.buf or 0, found.len
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(found))


def look_again() -> None:
    """There may be another store now: this process may have left its cluster for another one."""
    for store in _stores:
        store.sure = False


def _store_at(address: int) -> _Store | None:
    for store in list(_stores):
        if store.start <= address < store.end:
            if store.sure or _is_there(store):
                return store
            _stores.remove(store)
    found = _find_store(address)
    if found is not None:
        _stores.append(found)
    return found


def _is_there(store: _Store) -> bool:
    found = _find_store(store.start)
    store.sure = found is not None and (found.start, found.end) == (store.start, store.end)
    return store.sure


def _find_store(address: int) -> _Store | None:
    """The mapping of the store with this address, if it may be written to."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            for line in file:
                span, access, *_ = line.split(maxsplit=2)
                start, end = (int(one, 16) for one in span.split("-"))
                if start <= address < end:
                    is_store = access == "rw-s" and "/plasma" in line
                    return _Store(start, end) if is_store else None
    except OSError:
        return None  # not Linux: there are copies
    return None
