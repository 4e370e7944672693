"""What a task prints, kept for its future; and what a child printed before it died.

The child's standard output and error go to files without names, which the parent empties after each
task. They are redirected below Python, so that what libraries in C and other programs print is
there, too. As the parent has the files, nothing of it dies with the child.
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

# Bytes of each stream that are kept of a task: the last ones.
_MOST = 1024 * 1024


class OutputCapture:
    """The files for what one child prints.

    It can be given to a child as an argument of its process, and be pickled at no other time.
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
        """What was printed since the last time."""
        stdout, stderr = (_emptied(fd) for fd in self._fds)
        return Output(stdout, stderr)

    def redirect(self) -> None:
        """In the child: have the standard output and error go here, for good."""
        import fcntl  # noqa: PLC0415 - not everywhere; nor can it be asked for there

        for fd, target in zip(self._fds, (1, 2), strict=True):
            # What the parent takes out leaves no hole: whoever writes, does so at the end.
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)
            os.dup2(fd, target)
        self.close()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                with contextlib.suppress(ValueError):  # it is closed already
                    stream.reconfigure(line_buffering=True)  # little is lost if it dies

    def close(self) -> None:
        """Let go of the files. Doing so twice does no harm."""
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
