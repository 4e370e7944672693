"""How a child process begins, and how it ends.

It has been forked by a forkserver, or is an interpreter of its own. In a stream from its parent it
finds its surroundings, what to make of itself, and what to call; in this order, so that nothing of
a user's is imported before the surroundings are there.
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
    """A descriptor of the parent's, as ``multiprocessing`` pickles it for a child."""

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
    """What a child makes of itself. It is pickled by the parent, and run by the child."""

    #: To be taken on late, where ``multiprocessing`` begins by itself.
    surroundings: Surroundings | None = None

    def _bootstrap(self, parent_sentinel: int | None = None) -> int:
        if self.surroundings is not None:
            self.surroundings.take_on()
        code: int = super()._bootstrap(parent_sentinel)  # type: ignore[misc]
        _run_exit_handlers()
        return code


def _run_exit_handlers() -> None:
    """Call what was registered with ``atexit``, as at the end of any program.

    ``multiprocessing`` leaves that out before CPython 3.14. What was called is not called again.
    """
    atexit._run_exitfuncs()
    for name in ("stdout", "stderr"):
        with contextlib.suppress(Exception):  # it may be anything, closed, or not there
            getattr(sys, name).flush()


def main(stream: IO[bytes], fds: Sequence[int]) -> None:
    """Of a child that is an interpreter of its own."""
    open_streams()
    for fd in fds:
        os.set_inheritable(fd, False)
    sys.exit(begin(stream, fds))


def begin(stream: IO[bytes], fds: Sequence[int]) -> int:
    """Do what the parent says.

    Args:
        stream: what it has written.
        fds: the descriptors that it has handed over: first that of the resource tracker.

    Returns:
        The exit code.
    """
    global _inherited  # noqa: PLW0603 - there is one parent
    _inherited = fds
    resource_tracker._resource_tracker._fd = fds[0]  # type: ignore[attr-defined]
    current: Any = process.current_process()
    current._inheriting = True  # it must not have children yet
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
        os._exit(ORPHANED)  # the parent is gone, or has given up


def make_own() -> None:
    """In a fork: what has been imported before it must not be the same in all forks.

    They have numbers of their own; Python's ``random`` sees to that by itself. What the server
    keeps for itself, such as temporary folders, is not removed when one of them ends.
    """
    for finalizer in list(getattr(weakref.finalize, "_registry", ())):
        finalizer.atexit = False
    numpy_random: Any = sys.modules.get("numpy.random")
    if numpy_random is not None:
        try:
            numpy_random.seed()
        except Exception as error:  # it may be in the middle of its import, or another's
            logger.debug("numpy.random has not got a state of its own", exc_info=error)
