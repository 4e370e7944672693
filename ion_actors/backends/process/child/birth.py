"""The first and the last steps of a child process.

It was forked by a forkserver, or is a new interpreter. From a stream of its parent it reads its
surroundings, the data that ``multiprocessing`` sets it up with, and what to call; in this order, so
that no module of the user is imported before the surroundings are set.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import pickle
import sys
import weakref
from collections.abc import Sequence
from multiprocessing import process, resource_tracker
from multiprocessing.process import BaseProcess
from typing import IO, Any

from ion_actors.backends.process import main_module
from ion_actors.backends.process.child.environment import Surroundings, open_streams
from ion_actors.backends.process.child.system import ORPHANED

__all__ = ["ChildProcess", "InheritedDescriptor", "SameNumber", "begin", "main", "make_own"]

logger = logging.getLogger(__name__)

_inherited: Sequence[int] = ()  # the descriptors that came from the parent


class InheritedDescriptor:
    """A descriptor of the parent, as ``multiprocessing`` pickles it for a child."""

    def __init__(self, index: int) -> None:
        self._index = index

    def detach(self) -> int:
        """In the child: its number there."""
        return _inherited[self._index]


class SameNumber:
    """A descriptor that has the same number in the child."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def detach(self) -> int:
        """In the child: its number there."""
        os.set_inheritable(self._fd, False)
        return self._fd


class ChildProcess(BaseProcess):
    """The process object that the parent pickles and the child runs."""

    #: To be taken on later, where ``multiprocessing`` starts the child by itself.
    surroundings: Surroundings | None = None

    def _bootstrap(self, parent_sentinel: int | None = None) -> int:
        if self.surroundings is not None:
            self.surroundings.take_on()
        code: int = super()._bootstrap(parent_sentinel)  # type: ignore[misc]
        _run_exit_handlers()
        return code


def _run_exit_handlers() -> None:
    """Call what was registered with ``atexit``, as at the end of any program.

    ``multiprocessing`` does not do that before CPython 3.14. Each function is called once.
    """
    atexit._run_exitfuncs()
    for name in ("stdout", "stderr"):
        with contextlib.suppress(Exception):  # it may be anything, closed, or not there
            getattr(sys, name).flush()


def main(stream: IO[bytes], fds: Sequence[int]) -> None:
    """The main function of a child that is a new interpreter."""
    open_streams()
    for fd in fds:
        os.set_inheritable(fd, False)
    sys.exit(begin(stream, fds))


def begin(stream: IO[bytes], fds: Sequence[int]) -> int:
    """Do what the parent has written.

    Args:
        stream: the stream to read.
        fds: the descriptors from the parent; the first one is that of the resource tracker.

    Returns:
        The exit code.
    """
    global _inherited  # noqa: PLW0603 - there is one parent
    _inherited = fds
    resource_tracker._resource_tracker._fd = fds[0]  # type: ignore[attr-defined]
    current: Any = process.current_process()
    current._inheriting = True  # it must not start children yet
    try:
        with stream:
            _surroundings(stream).take_on()
            main_module.take_on(pickle.load(stream))
            child: ChildProcess = pickle.load(stream)
            parent = os.dup(stream.fileno())  # ends with it
    finally:
        del current._inheriting
    return child._bootstrap(parent)


def _surroundings(stream: IO[bytes]) -> Surroundings:
    try:
        found: Surroundings = pickle.load(stream)
        return found
    except EOFError:
        os._exit(ORPHANED)  # the parent has ended, or has given up


def make_own() -> None:
    """In a fork of the server: make the state of imported modules different from other forks.

    Each gets its own random numbers; Python's ``random`` does that by itself. Temporary folders and
    the like of the server are not removed when one of its forks ends.
    """
    for finalizer in list(getattr(weakref.finalize, "_registry", ())):
        finalizer.atexit = False
    numpy_random: Any = sys.modules.get("numpy.random")
    if numpy_random is not None:
        try:
            numpy_random.seed()
        except Exception as error:  # the module may be partly imported, or another one
            logger.debug("numpy.random has no state of its own", exc_info=error)
