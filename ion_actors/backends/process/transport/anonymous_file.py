"""Files without a name: the kernel frees them with the last process that has them open.

A child gets one as an argument of its process. When a child dies, no file is left behind, but the
parent can still read what the child has written.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from multiprocessing import reduction
from typing import Any

__all__ = ["AnonymousFile", "NoPlace", "nameless_file", "new_file"]


class NoPlace(OSError):
    """The system offers neither memory nor a folder for files without a name."""


def nameless_file(label: str) -> int:
    """The descriptor of such a file, in memory if possible.

    Args:
        label: the name in ``/proc``.

    Raises:
        NoPlace: this system has none.
        OSError: none can be made now.
    """
    if hasattr(os, "memfd_create"):
        with contextlib.suppress(PermissionError):  # a sandbox may forbid it, or not support it
            try:
                return os.memfd_create(label, os.MFD_CLOEXEC)
            except OSError as error:
                if error.errno != errno.ENOSYS:
                    raise
    for folder in (None, "/dev/shm"):
        with contextlib.suppress(OSError), tempfile.TemporaryFile(buffering=0, dir=folder) as file:
            return os.dup(file.fileno())
    raise NoPlace("there is no memfd_create() here, and no folder where files can be made")


class AnonymousFile:
    """A file without a name, to be shared with one child process.

    It can be pickled only as an argument of a child's ``Process``.
    """

    def __init__(self) -> None:
        self.fd = nameless_file("ion_actors")  # -1 once it is closed

    def close(self) -> None:
        """Close the file. Mappings of it stay."""
        fd, self.fd = self.fd, -1
        if fd != -1:
            os.close(fd)

    def __reduce__(self) -> tuple[Any, ...]:
        return _taken_over, (reduction.DupFd(self.fd),)


def new_file() -> AnonymousFile | None:
    """A file, or None if files cannot be handed to children: then everything goes by the pipe."""
    with contextlib.suppress(NoPlace):
        return AnonymousFile() if hasattr(os, "pwrite") else None
    return None


def _taken_over(handle: Any) -> AnonymousFile:
    file: AnonymousFile = AnonymousFile.__new__(AnonymousFile)
    file.fd = handle.detach()
    os.set_inheritable(file.fd, False)
    return file
