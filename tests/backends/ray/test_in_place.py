"""Large buffers in the memory of a store, which is a file here."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ion_actors.backends.ray import in_place
from ion_actors.backends.ray.in_place import PART, look_again, writable

if not Path("/proc/self/maps").exists():
    pytest.skip("nothing tells where memory is mapped", allow_module_level=True)

SIZE = 8 * 1024 * 1024


@pytest.fixture(autouse=True)
def none_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mapping of another test may have been where this one has its own."""
    monkeypatch.setattr(in_place, "_stores", [])


@pytest.fixture
def store() -> Iterator[mmap.mmap]:
    file, path = tempfile.mkstemp(prefix="plasma")
    os.truncate(file, SIZE)
    with mmap.mmap(file, SIZE) as found:
        os.close(file)
        Path(path).unlink()
        yield found


def view_of(store: mmap.mmap, start: int, size: int) -> memoryview:
    return memoryview(store).toreadonly()[start : start + size]


def test_the_memory_of_a_store_is_written_in_place(store: mmap.mmap) -> None:
    view = view_of(store, 4096, 1000)
    found = memoryview(writable(view))
    assert not found.readonly
    assert found.nbytes == 1000
    found.cast("B")[3] = 7
    assert store[4099] == 7
    found.release()
    view.release()


def test_other_memory_is_copied() -> None:
    data = bytes(range(200)) * 1000
    found = writable(data)
    assert type(found) is bytearray
    assert found == data


def test_a_private_mapping_is_copied() -> None:
    with mmap.mmap(-1, 4096) as found, memoryview(found).toreadonly() as view:
        assert type(writable(view)) is bytearray


def test_nothing_is_copied_as_nothing() -> None:
    assert writable(b"") == bytearray()


def test_only_a_part_is_kept(store: mmap.mmap) -> None:
    part = int(SIZE * PART)
    view = view_of(store, 0, part - 10)
    kept = writable(view)
    beyond = view_of(store, SIZE // 2, 20)
    assert type(writable(beyond)) is bytearray
    del kept
    again = writable(beyond)
    assert type(again) is not bytearray
    del again
    view.release()
    beyond.release()


def test_a_store_that_is_gone_is_not_written_to(store: mmap.mmap) -> None:
    """So it is after Ray has been left: anything may be mapped there."""
    view = view_of(store, 4096, 100)
    found = writable(view)
    assert type(found) is not bytearray
    address = ctypes.addressof(found) - 4096
    libc = ctypes.CDLL(None)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    assert libc.mprotect(address, SIZE, mmap.PROT_READ) == 0
    look_again()
    assert type(writable(view)) is bytearray
    assert libc.mprotect(address, SIZE, mmap.PROT_READ | mmap.PROT_WRITE) == 0
    again = writable(view)  # it is found anew
    assert type(again) is not bytearray
    del found, again
    view.release()


def test_what_is_used_is_kept_alive(store: mmap.mmap) -> None:
    view = view_of(store, 0, 100)
    before = sys.getrefcount(view)
    found = writable(view)
    assert sys.getrefcount(view) > before
    del found
    assert sys.getrefcount(view) == before
    view.release()
