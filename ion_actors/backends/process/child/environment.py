"""Settings that a child takes on from its parent, as they are when the child starts.

A child of a forkserver would inherit them from the server, as they were when that started. So the
parent sends them, and the child takes them on before any module of the user is imported.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Mapping
from multiprocessing import reduction
from typing import Any, NamedTuple

from ion_actors.backends.process.signals import (
    TO_ALL,
    ignored_here,
    leave_to_parent,
    restore_in_forks,
    take_over_ignored,
)

__all__ = [
    "SharedStream",
    "Surroundings",
    "confinement",
    "cpus_to_share",
    "environment",
    "open_streams",
    "process_status",
    "surroundings_here",
]

logger = logging.getLogger(__name__)

_LIMITS = tuple(
    sorted({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")})
)

# Variables that set the number of threads of libraries for native code. Those on the left default
# to OMP_NUM_THREADS.
_FALL_BACK = (
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
_OWN = ("VECLIB_MAXIMUM_THREADS", "NUMBA_NUM_THREADS")
_NATIVE_THREADS = ("OMP_NUM_THREADS", *_FALL_BACK, *_OWN)
# The values that a pool has set. So a pool in one of its children knows that the user has not set
# them, and shares no more than that.
_SHARE = "ION_ACTORS_NATIVE_THREADS"

_STATUS = re.compile(rb"^(Umask|SigIgn|NoNewPrivs|Seccomp|CapBnd):\t(\w+)", re.MULTILINE)

# The child needs these signals: they end a task, and make the child write its stacks.
_UNBLOCKED = {*TO_ALL, signal.SIGABRT}


class SharedStream:
    """A descriptor that is handed to a child, where it is unpickled as a number."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        return _detached, (reduction.DupFd(self._fd),)


def _detached(handle: Any) -> int:
    fd: int = handle.detach()
    return fd


class Surroundings(NamedTuple):
    """The settings that a child takes on. None: it keeps its own."""

    env: Mapping[str, str]
    umask: int | None
    nice: int | None
    affinity: frozenset[int] | None  # numbers of CPUs
    limits: tuple[tuple[int, tuple[int, int]], ...]
    ignored: frozenset[int]  # signals
    blocked: frozenset[int]  # signals
    identity: tuple[tuple[int, ...], ...] | None  # users, groups, supplementary groups
    directory: Any = None  # a Descriptor; a number in the child
    streams: tuple[Any, ...] = ()  # standard output and error: each a number, and a Descriptor

    def take_on(self) -> None:
        """In the child: take on all these settings. Called by the main thread."""
        leave_to_parent(self.ignored)
        take_over_ignored(self.ignored, process_status())
        signal.pthread_sigmask(signal.SIG_SETMASK, self.blocked - _UNBLOCKED)
        restore_in_forks()
        _take_over_env(self.env)
        for number, fd in self.streams:
            os.dup2(fd, number)
            os.close(fd)
        if self.directory is not None:
            _attempt(os.fchdir, self.directory)
            os.close(self.directory)
        if self.umask is not None:
            os.umask(self.umask)
        if self.nice is not None and self.nice != _niceness(0):
            _attempt(os.setpriority, os.PRIO_PROCESS, 0, self.nice)
        if self.affinity is not None and self.affinity != os.sched_getaffinity(0):
            _attempt(os.sched_setaffinity, 0, self.affinity)
        for kind, limit in self.limits:
            if resource.getrlimit(kind) != limit:
                _attempt(resource.setrlimit, kind, limit)
        if self.identity is not None and self.identity != identity_here():
            _take_over_identity(*self.identity)


def open_streams() -> None:
    """In a helper: open the standard streams that are closed, on nothing.

    What is printed there would otherwise go into whatever is opened next.
    """
    with contextlib.suppress(OSError):  # there is no such device
        while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(fd, True)
        os.close(fd)


def _attempt(fn: Any, *args: object) -> None:
    """Try a change that the parent could make, but that a child may not be permitted."""
    try:
        fn(*args)
    except (OSError, ValueError) as error:
        logger.debug("%s%r is not possible in a child", fn.__name__, args, exc_info=error)


def _take_over_identity(
    users: tuple[int, ...], groups: tuple[int, ...], others: tuple[int, ...]
) -> None:
    """Take on the parent's users and groups, which may have changed since the forkserver started.

    Raises:
        PermissionError: this process is not permitted to change them.
    """
    if others != tuple(os.getgroups()):
        os.setgroups(others)
    os.setresgid(*groups)
    os.setresuid(*users)  # last, since it may take away the right to the others


def _take_over_env(env: Mapping[str, str]) -> None:
    before = dict(os.environ)
    for name in before.keys() - env.keys():
        del os.environ[name]
    for name, value in env.items():
        if before.get(name) != value:
            os.environ[name] = value
    if env.get("TZ") != before.get("TZ"):
        time.tzset()


def surroundings_here(env: Mapping[str, str], nice: int, status: Mapping[str, str]) -> Surroundings:
    """The settings of this process.

    Args:
        env: the environment of the child; see :func:`environment`.
        nice: is added to the niceness.
        status: the system's status of this process; see :func:`process_status`.
    """
    niceness = _niceness(os.getpid())
    return Surroundings(
        env=env,
        umask=_umask(status),
        nice=None if niceness is None else min(niceness + nice, 19),
        affinity=_affinity(),
        limits=tuple((kind, resource.getrlimit(kind)) for kind in _LIMITS),
        ignored=ignored_here(status),
        blocked=frozenset(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
        identity=identity_here(),
    )


def environment(extra: Mapping[str, str], native_threads: int | None) -> dict[str, str]:
    """The environment of a child that starts now.

    Args:
        extra: variables in addition to this process's, or replacing them.
        native_threads: how many threads libraries for numerical work may have, unless a variable
            sets that already; None for no such limit.
    """
    found = dict(os.environ)
    if (before := found.pop(_SHARE, None)) is not None:
        for name in _NATIVE_THREADS:
            if found.get(name) == before:
                del found[name]
    found.update(extra)
    if native_threads is not None:
        found[_SHARE] = str(native_threads)
        left = _OWN if "OMP_NUM_THREADS" in found else _NATIVE_THREADS
        for name in left:
            found.setdefault(name, str(native_threads))
    return found


def cpus_to_share(cpus: int) -> int:
    """How many of these CPUs a pool in this process may use: it may be another pool's child."""
    share = os.environ.get(_SHARE, "")
    return min(cpus, int(share)) if share.isdecimal() else cpus


def _umask(status: Mapping[str, str]) -> int | None:
    found = status.get("Umask")
    if found is not None:
        return int(found, 8)
    before = os.umask(0o077)  # there is no other way to read it; files made meanwhile are private
    os.umask(before)
    return before


def process_status() -> dict[str, str]:
    """The part of Linux's status of this process that is used here. Elsewhere nothing."""
    with contextlib.suppress(OSError):
        with open("/proc/self/status", "rb") as file:
            found = file.read()
        return {name.decode(): value.decode() for name, value in _STATUS.findall(found)}
    return {}


def _niceness(pid: int) -> int | None:
    """The niceness of the main thread. On Linux each thread has its own."""
    with contextlib.suppress(OSError):
        return os.getpriority(os.PRIO_PROCESS, pid)
    return None


def _affinity() -> frozenset[int] | None:
    """The affinity of the main thread: a worker's thread may have an older one."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return frozenset(os.sched_getaffinity(os.getpid()))
    return None


def identity_here() -> tuple[tuple[int, ...], ...] | None:
    """The users and groups of this process; None if a child could not take them on."""
    if not hasattr(os, "setresuid"):
        return None
    return os.getresuid(), os.getresgid(), tuple(os.getgroups())


def confinement(status: Mapping[str, str]) -> tuple[object, ...]:
    """The rights that this process has given up, and that a child cannot give up by itself."""
    root = os.stat("/")  # differs after chroot
    return (
        None if hasattr(os, "setresuid") else (os.getuid(), os.geteuid(), tuple(os.getgroups())),
        (root.st_dev, root.st_ino),
        *(status.get(name) for name in ("NoNewPrivs", "Seccomp", "CapBnd")),
    )
