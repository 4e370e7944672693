"""What is known of the end of an actor whose process was on this machine.

Ray tells neither how a process has ended nor what it has said. Newer kernels tell the former to
whoever holds a descriptor of the process, and the latter is in a file of Ray's.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import time
from pathlib import Path

from ion_actors.clock import system_clock
from ion_actors.naming import indented

__all__ = ["exit_code", "last_words"]

# Linux 6.15: PIDFD_GET_INFO with PIDFD_INFO_EXIT, a struct of 64 bytes that ends with the status.
_GET_INFO, _SIZE, _EXIT = 0xC040FF0B, 64, 1 << 3

# Seconds until the process has been reaped; and between two looks.
_PATIENCE, _GLANCE = 0.2, 0.005

_MOST = 4000  # characters

# What Ray writes there, its handler of signals included.
_RAYS = re.compile(r".* logging\.cc:\d+: |\*\*\* SIG|PC: @|    @ +0x|:[a-z]+_(id|name):")
# How a stack comes to the task.
_BELOW = re.compile(
    r'\n  File "[^"]*[/\\]backends[/\\]ray[/\\](task_actor|placement[/\\]direct)\.py"'
)


def exit_code(pidfd: int) -> int | None:
    """How a process has ended: below zero by a signal; None if the kernel does not tell."""
    until = system_clock.monotonic() + _PATIENCE
    while (status := _status(pidfd)) is None:
        if system_clock.monotonic() > until:
            return None
        time.sleep(_GLANCE)
    return os.waitstatus_to_exitcode(status) if status >= 0 else None


def _status(pidfd: int) -> int | None:
    """Its status; less than zero: it will never be known."""
    info = bytearray(struct.pack("<Q", _EXIT).ljust(_SIZE, b"\0"))
    try:
        import fcntl  # noqa: PLC0415 - not everywhere

        fcntl.ioctl(pidfd, _GET_INFO, info)
    except (ImportError, OSError) as error:
        # It was reaped before anybody held a descriptor, or has not been reaped.
        return None if isinstance(error, ProcessLookupError) else -1
    found: int = struct.unpack_from("<i", info, _SIZE - 4)[0]
    return found if struct.unpack_from("<Q", info)[0] & _EXIT else None


def last_words(path: str) -> str:
    """The end of what a process has written to its standard error, as far as the file is here."""
    with contextlib.suppress(OSError), Path(path).open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 2 * _MOST))
        lines = file.read().decode(errors="replace").splitlines()
        said = "\n".join(one for one in lines if not _RAYS.match(one))
        if (below := _BELOW.search(said)) is not None:
            said = said[: below.start()]
        said = said.partition("\nExtension modules:")[0].strip()
        return indented(said[-_MOST:]).lstrip()
    return ""
