"""Real clients for the http_service example: threads that post photographs and do as they are told.

A client that is told to come back later waits for as long as ``Retry-After`` says, which is the
whole point of sending it.
"""

from __future__ import annotations

import collections
import contextlib
import http.client
import itertools
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from photolab.styles import STYLES

__all__ = ["Load", "clients"]

CLIENTS = 16  # at a time


class _Server(Protocol):
    should_exit: bool


class Load:
    """So many requests to a service, each until it has a thumbnail, and what came of them."""

    def __init__(self, address: tuple[str, int], requests: int, photos: Sequence[Path]) -> None:
        self.requests = requests
        self._address = address
        work = itertools.product(photos, STYLES)
        self._todo = itertools.islice(itertools.cycle(work), requests)
        self._lock = threading.Lock()  # guards _todo and _answers
        self._answers: collections.Counter[int] = collections.Counter()
        self._over = threading.Event()

    def __str__(self) -> str:
        with self._lock:
            good, told = self._answers[200], self._answers[503]
        return (
            f"{CLIENTS} clients got {good} of {self.requests} thumbnails; "
            f"{told} times they were told to come back later"
        )

    def stop(self) -> None:
        """Send nothing more."""
        self._over.set()

    def client(self) -> None:
        """One client: sends requests until there are none left, or the service is."""
        connection = http.client.HTTPConnection(*self._address, timeout=60)
        with contextlib.closing(connection):
            while not self._over.is_set() and (job := self._next()) is not None:
                try:
                    self._insist(connection, *job)
                except (http.client.HTTPException, OSError):
                    return  # it ended, or was ended

    def _next(self) -> tuple[Path, str] | None:
        with self._lock:
            return next(self._todo, None)

    def _insist(self, connection: http.client.HTTPConnection, photo: Path, style: str) -> None:
        body = photo.read_bytes()
        while not self._over.is_set():
            connection.request("POST", f"/thumbnail?style={style}", body)
            answer = connection.getresponse()
            answer.read()
            with self._lock:
                self._answers[answer.status] += 1
            if answer.status != 503:
                return
            self._over.wait(float(answer.headers["Retry-After"]))


@contextlib.contextmanager
def clients(load: Load, server: _Server) -> Iterator[None]:
    """While this block runs, the load is sent. When all of it is, the server is told to exit."""
    threads = [
        threading.Thread(target=load.client, name=f"client-{number}")
        for number in range(min(CLIENTS, load.requests))
    ]

    def run() -> None:
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        server.should_exit = True

    runner = threading.Thread(target=run, name="clients")
    if threads:
        runner.start()
    try:
        yield
    finally:
        load.stop()
        if threads:
            runner.join()
