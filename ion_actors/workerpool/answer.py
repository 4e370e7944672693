"""What one worker will answer to a broadcast."""

from __future__ import annotations

import weakref
from typing import TypeVar

from typing_extensions import override

from ion_actors.futures import Future

__all__ = ["Answer"]

T = TypeVar("T")


class Answer(Future[T]):
    """The future of it; it knows whose it is, so that nobody waits for himself."""

    def __init__(self, worker: object, name: str) -> None:
        super().__init__()
        self._worker = weakref.ref(worker)
        self._of = name

    def is_of(self, worker: object) -> bool:
        """Whether that is the worker that it comes from."""
        return self._worker() is worker

    @override
    def _describe(self) -> str:
        return f"the answer of worker {self._of!r}"
