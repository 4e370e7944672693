"""How far a task is and what it has printed, as its future shows it."""

from __future__ import annotations

from dataclasses import dataclass

from ion_actors._arguments import number
from ion_actors.context import of_thread

__all__ = ["Output", "Progress", "report_progress"]


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
