"""Generators for the tests of streams. They write what happens to them into a file, if asked to."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from tests.workerpool.helpers import eventually

ENDLESS = 10**9


def note(path: Path | None, what: str) -> None:
    if path is not None:
        with path.open("a") as file:
            file.write(f"{what}\n")


def notes(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def await_note(path: Path, *expected: str) -> None:
    eventually(lambda: notes(path) == [*expected], f"{expected} in {path}")


def count(until: int, path: Path | None = None) -> Iterator[int]:
    try:
        for number in range(until):
            note(path, f"made {number}")
            yield number
        return "all"
    finally:
        note(path, "closed")


async def count_async(until: int, path: Path | None = None) -> AsyncIterator[int]:
    try:
        for number in range(until):
            note(path, f"made {number}")
            await asyncio.sleep(0)
            yield number
    finally:
        await asyncio.sleep(0)
        note(path, "closed")


class ByHand:
    """A generator function by its protocol only."""

    def __call__(self, until: int, path: Path | None = None) -> Iterator[int]:
        return count(until, path)


async def later(until: int, path: Path | None = None) -> AsyncIterator[int]:
    """A coroutine of a generator."""
    return count_async(until, path)


COUNTS: dict[str, Callable[..., Any]] = {
    "generator": count,
    "asynchronous": count_async,
    "object": ByHand(),
    "coroutine": later,
}


def fails(after: int) -> Iterator[int]:
    yield from range(after)
    raise LookupError("the file ends here")


async def fails_async(after: int) -> AsyncIterator[int]:
    for number in range(after):
        yield number
    raise LookupError("the file ends here")


def dies(after: int) -> Iterator[int]:
    yield from range(after)
    os._exit(3)


def panics(after: int) -> Iterator[int]:
    yield from range(after)
    raise SystemExit(3)


def yields_a_lock() -> Iterator[object]:
    yield 1
    yield threading.Lock()


class Unwelcome:
    """Can be pickled, and cannot be rebuilt."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __reduce__(self) -> Any:
        return _refuse, (bytes(self.size),)


def _refuse(_: bytes) -> None:
    raise KeyError("not here")


def yields_what_cannot_be_rebuilt(path: Path, size: int = 0) -> Iterator[object]:
    try:
        yield 1
        yield Unwelcome(size)
        yield from range(ENDLESS)
    finally:
        note(path, "closed")


def works_for_long(path: Path) -> Iterator[int]:
    try:
        yield 1
        time.sleep(60)
        yield 2
    finally:
        note(path, "closed")


def pieces(number: int, size: int) -> Iterator[bytes]:
    for one in range(number):
        yield bytes([one % 256]) * size


def arrays(number: int, size: int) -> Iterator[bytearray]:
    for one in range(number):
        yield bytearray([one % 256]) * size
