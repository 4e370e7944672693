"""Helpers: interpreters that run code of this library, or of ``multiprocessing``.

``python -c`` searches the current directory for modules first. That may be under somebody else's
control: a file ``signal.py`` in a folder for uploads would be run. So a helper gets the search path
of its parent before it imports anything.
"""

from __future__ import annotations

import contextlib
import fcntl
import marshal
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import resource_tracker, spawn, util
from typing import Any

from ion_actors.backends.process.signals import withheld
from ion_actors.backends.protocol import Hopeless
from ion_actors.forking import no_fork_meanwhile, on_fork

__all__ = [
    "above_streams",
    "executable",
    "is_frozen",
    "path_here",
    "resource_tracker_fd",
    "start",
    "start_helper",
    "streams_occupied",
]

# `marshal` and `sys` are built into the interpreter, so nothing is searched for.
_HELPER = (
    "import marshal, sys; stream = open({fd}, 'rb'); sys.path[:] = marshal.load(stream); "
    "from {module} import main; main(stream, {arguments})"
)
_TRACKER = "from multiprocessing.resource_tracker import main;main({fd})"

_tracking = threading.Lock()  # guards the start of the resource tracker

_streams = threading.Lock()  # guards the next two
_occupying = 0  # threads that need the streams' numbers to be taken
_occupants = contextlib.ExitStack()  # what has them


def _after_fork() -> None:
    # The old locks may be held by threads that are not here.
    global _tracking, _streams, _occupying  # noqa: PLW0603
    _tracking, _streams = threading.Lock(), threading.Lock()
    _occupying = 0
    _occupants.close()


on_fork(_after_fork)


def is_frozen() -> bool:
    """Whether the program is a frozen executable, which does not accept ``-c``."""
    return bool(getattr(sys, "frozen", False))


def start_helper(
    module: str,
    stream: int,
    arguments: Sequence[object],
    fds: Sequence[int],
    env: Mapping[str, str],
) -> int:
    """Start an interpreter that calls ``main(stream, *arguments)`` of a module of this library.

    Args:
        module: its full name.
        stream: the end of a pipe to be read. Write :func:`path_here` to the other one.
        arguments: literals.
        fds: descriptors that it gets under the same numbers, besides ``stream``.
        env: its environment.

    Returns:
        The id of the process. The caller must wait for it.

    Raises:
        Hopeless: there is no interpreter.
        OSError: it cannot be started now.
    """
    code = _HELPER.format(fd=stream, module=module, arguments=", ".join(map(repr, arguments)))
    return start(_command("-c", code), (stream, *fds), env)


def path_here() -> bytes:
    """The first data that a helper reads: where to search for modules."""
    return marshal.dumps([one for one in map(_plain, sys.path) if one is not None])


def _plain(entry: object) -> str | bytes | None:
    """An entry of the path, if imports use it."""
    if isinstance(entry, str):
        return str(entry)
    return bytes(entry) if isinstance(entry, bytes) else None


def executable() -> str:
    """The interpreter that helpers run in."""
    return os.fsdecode(spawn.get_executable() or b"")


def _command(*arguments: str) -> list[str]:
    if not executable():
        raise Hopeless(
            "the interpreter for child processes is unknown: sys.executable is "
            "empty. Name one with multiprocessing.set_executable()"
        )
    flags: list[str] = util._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return [executable(), *flags, *arguments]


def start(command: list[str], fds: Sequence[int], env: Mapping[str, str] | None = None) -> int:
    """Start a program, with the signals blocked that are sent to all processes of a program.

    Args:
        command: its arguments, the path first.
        fds: descriptors that it gets under the same numbers.
        env: its environment; None for this process's.

    Returns:
        The id of the process. The caller must wait for it.

    Raises:
        Hopeless: there is no such program, or it is not executable.
        OSError: it cannot be started now.
    """
    try:
        with withheld(), no_fork_meanwhile():
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=tuple(fds), env=env
            )
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        if error.filename not in (None, command[0]):  # /dev/null, in a bare chroot
            raise Hopeless(
                f"child processes cannot be started without {error.filename!r}: {error.strerror}"
            ) from error
        raise Hopeless(
            f"child processes cannot be started by {command[0]!r}: {error.strerror}. "
            "multiprocessing.set_executable() names the interpreter to use"
        ) from error
    process.returncode = 0  # the caller waits for it by its id, and nothing else does
    return process.pid


def above_streams(fd: int) -> int:
    """A descriptor for the same file that is not one of a standard stream; else that is closed."""
    if fd > 2:
        return fd
    found = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return found


@contextlib.contextmanager
def streams_occupied() -> Iterator[None]:
    """For the time in which descriptors are made that lead to a child.

    None of them gets the number of a standard stream that is closed here: the child would print
    into it, and so would whatever this process starts meanwhile.
    """
    global _occupying  # noqa: PLW0603 - there is one table of descriptors
    with _streams:
        if not _occupying:
            while _occupants.enter_context(socket.socket(socket.AF_UNIX)).fileno() <= 2:
                pass
        _occupying += 1
    try:
        yield
    finally:
        with _streams:
            _occupying -= 1
            if not _occupying:
                _occupants.close()


def resource_tracker_fd() -> int:
    """The descriptor by which a process reaches the resource tracker of ``multiprocessing``.

    It is started here if there is none: one that ``multiprocessing`` starts would search the
    current directory for modules.
    """
    tracker: Any = resource_tracker._resource_tracker
    with _tracking:
        if tracker._fd is None and not is_frozen():
            with tracker._lock:
                if tracker._fd is None:
                    tracker._pid, tracker._fd = _start_tracker()
    fd: int = tracker.getfd()
    return fd


def _start_tracker() -> tuple[int, int]:
    """Returns its id, and the descriptor for its messages."""
    theirs, ours = (above_streams(fd) for fd in os.pipe())
    try:
        return start(_command("-P", "-c", _TRACKER.format(fd=theirs)), (theirs,)), ours
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
