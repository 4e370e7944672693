"""What a future shows of its task before and besides the outcome: progress, and output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from ion_actors._arguments import number
from ion_actors.context import of_thread
from ion_actors.futures.state import DONE, Callback, Stateful

__all__ = ["Output", "Progress", "Progressing", "report_progress"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a task is.

    Attributes:
        fraction: from 0 to 1.
        message: what it is doing, in its own words; may be empty.
    """

    fraction: float
    message: str = ""


@dataclass(frozen=True, slots=True)
class Output:
    """What a task has printed.

    Attributes:
        stdout: to the standard output.
        stderr: to the standard error.
    """

    stdout: str
    stderr: str


def report_progress(fraction: float, message: str = "") -> None:
    """Say how far the running task is; its future's ``progress`` shows the last report.

    To be called in the thread that runs the task, or in the task's coroutine. Anywhere else, so
    also when the function of a task is called plainly, or in a thread that the task has started, it
    does nothing.

    Args:
        fraction: how much is done, from 0 to 1. It may also go back.
        message: what is being done.

    Raises:
        TypeError, ValueError: an argument makes no sense.
    """
    fraction = number("fraction", fraction, minimum=0, maximum=1)
    if not isinstance(message, str):
        raise TypeError(f"message must be a string, not {message!r}")
    if of_thread.report is not None:
        of_thread.report(fraction, message)


class Progressing(Stateful[T]):
    """The part of a future that shows how far its task is, and what it has printed."""

    _progress: Progress | None = None
    _output: Output | None = None
    _progress_callbacks: tuple[Callback, ...] = ()

    @property
    def progress(self) -> Progress | None:
        """What its task has last reported; None if it has reported nothing."""
        return self._progress

    @property
    def output(self) -> Output | None:
        """What its task has printed, if that is captured: see ``ProcessBackend``; else None.

        It is there when the future is done.
        """
        return self._output

    def add_progress_callback(self, fn: Callback) -> None:
        """Have ``fn(future)`` called at each report from now on. Errors in it are logged.

        The worker's thread calls it, and the task waits for it: it should be quick.
        """
        with self._lock:
            self._progress_callbacks = (*self._progress_callbacks, fn)

    def _report(self, fraction: float, message: str) -> None:
        """Its task says how far it is. Nobody wants to know that of one that was given up."""
        if self._state in DONE:
            return
        self._progress = Progress(fraction, message)
        if self._progress_callbacks:
            self._run_callbacks(list(self._progress_callbacks))
