"""The progress and the output of a task, as its future shows them."""

from __future__ import annotations

from dataclasses import dataclass

from ion_actors._arguments import number
from ion_actors.context import of_thread, running_task

__all__ = ["Output", "Progress", "report_progress"]


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a task.

    Attributes:
        fraction: from 0 to 1.
        message: what it is doing, as it reported; may be empty.
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
    """Report the progress of the running task; its future's ``progress`` shows the last report.

    Call it in the thread that runs the task, or in the task's coroutine. Anywhere else it does
    nothing: for example when the task's function is called directly, or in a thread that the task
    has started.

    Args:
        fraction: the part that is done, from 0 to 1. It may also decrease.
        message: what the task is doing.

    Raises:
        TypeError, ValueError: an argument makes no sense.
    """
    fraction = number("fraction", fraction, minimum=0, maximum=1)
    if not isinstance(message, str):
        raise TypeError(f"message must be a string, not {message!r}")
    if of_thread.report is not None:
        of_thread.report(fraction, message)
    elif (task := running_task()) is not None:
        task.report_progress(fraction, message)
