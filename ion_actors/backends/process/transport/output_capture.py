"""The output of a task, kept for its future; and the output of a child that died.

The child's standard output and error go to files without names, which the parent empties after each
task. They are redirected at the level of descriptors, so the output of C libraries and of other
programs is captured, too. The parent has the files, so no output is lost when the child dies.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from multiprocessing import reduction
from typing import Any

from ion_actors.backends.process.transport.anonymous_file import nameless_file
from ion_actors.futures import Output

__all__ = ["OutputCapture"]

# Bytes that are kept of each stream of a task: the last ones.
_MOST = 1024 * 1024


class OutputCapture:
    """The files for the output of one child.

    It can be pickled only as an argument of a child's process.
    """

    def __init__(self) -> None:
        self._fds: tuple[int, ...] = ()
        try:
            for _ in range(2):
                self._fds = (*self._fds, nameless_file("ion_actors-output"))
        except OSError:
            self.close()
            raise

    def __reduce__(self) -> tuple[Any, ...]:
        return _taken_over, tuple(reduction.DupFd(fd) for fd in self._fds)

    def take(self) -> Output:
        """The output since the last call."""
        stdout, stderr = (_emptied(fd) for fd in self._fds)
        return Output(stdout, stderr)

    def redirect(self, *, keep: bool = False) -> None:
        """In the child: redirect the standard output and error to these files.

        Args:
            keep: whether it is this process that takes what is written there.
        """
        import fcntl  # noqa: PLC0415 - not everywhere; nor can it be asked for there

        for fd, target in zip(self._fds, (1, 2), strict=True):
            # Emptying the file leaves no hole: writing appends to it.
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)
            os.dup2(fd, target)
        if not keep:
            self.close()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                with contextlib.suppress(ValueError):  # it is closed already
                    stream.reconfigure(line_buffering=True)  # so little is lost if it dies

    def close(self) -> None:
        """Close the files. Calling twice does no harm."""
        fds, self._fds = self._fds, ()
        for fd in fds:
            os.close(fd)


def _emptied(fd: int) -> str:
    size = os.fstat(fd).st_size
    if not size:
        return ""
    start = max(0, size - _MOST)
    found = os.pread(fd, _MOST, start)
    os.ftruncate(fd, 0)
    text = found.decode(errors="replace")
    return f"[{start} bytes are left out]\n{text}" if start else text


def _taken_over(*handles: Any) -> OutputCapture:
    capture: OutputCapture = OutputCapture.__new__(OutputCapture)
    capture._fds = tuple(handle.detach() for handle in handles)
    return capture
