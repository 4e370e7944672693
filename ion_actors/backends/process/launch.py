"""How a child process comes to be, by ``multiprocessing``.

The children are kept out of ``multiprocessing.active_children()``: its bookkeeping reads their exit
codes in any thread that asks, and each can be read only once. Here their owners do.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import multiprocessing.process
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from ion_actors.backends.process import program
from ion_actors.backends.process.guard import starting, temporary_name
from ion_actors.backends.process.shelf import nameless_file
from ion_actors.forking import on_fork

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

__all__ = ["LastWords", "forget", "launch", "living", "register"]

# What every child of a forkserver imports before it comes to its main function.
_NEEDED = ("multiprocessing.popen_forkserver", "pkgutil")

_MOST_WORDS = 8 * 1024  # bytes


class _Killable(Protocol):
    def kill(self) -> None: ...


# Those that may still run, of this process and of those that it was forked from.
_children: weakref.WeakSet[Any] = weakref.WeakSet()
_owner = os.getpid()
_preloading = threading.Lock()  # guards the forkserver's list of modules
_first = threading.Lock()  # guards the first start of a process, and that there was one
_has_started = False


def register(child: _Killable) -> None:
    """Kill this child at the interpreter's exit, if it still runs then."""
    _children.add(child)


def forget(child: _Killable) -> None:
    """It has ended."""
    _children.discard(child)


def living() -> list[Any]:
    """The children that have not ended, as far as is known."""
    return list(_children)


def _at_exit() -> None:
    if os.getpid() == _owner:
        for child in living():
            child.kill()


def _after_fork() -> None:
    _children.clear()  # they are the parent's
    global _owner, _first, _preloading, _has_started
    _owner, _has_started = os.getpid(), False
    _first, _preloading = threading.Lock(), threading.Lock()
    program.after_fork()
    _forget_forkserver()


def _forget_forkserver() -> None:
    """The forkserver is the parent's, too: this process cannot wait for it, and needs its own.

    (``multiprocessing`` would try, and fail for ever.)
    """
    module: Any = sys.modules.get("multiprocessing.forkserver")
    server = getattr(module, "_forkserver", None)  # it may be in the middle of its import
    if server is None or server._forkserver_pid is None:
        return
    os.close(server._forkserver_alive_fd)  # the parent has its own
    server._forkserver_pid = server._forkserver_alive_fd = server._forkserver_address = None
    server._lock = threading.RLock()  # a thread that stayed in the parent may have held it


atexit.register(_at_exit)
on_fork(_after_fork)


def launch(
    method: str, name: str, preload: tuple[str, ...], main: Callable[..., None], *args: object
) -> BaseProcess:
    """Start a child process.

    Args:
        method: the start method.
        name: of the process. ``main`` is to give it this.
        preload: modules for a forkserver that is yet to be started.
        main: what it is to call, a function of a module.
        args: its arguments. Sockets and ``DupFd`` may be among them.

    Raises:
        Hopeless: it never can be.
        Exception: it cannot be started.
    """
    context: Any = multiprocessing.get_context(method)
    if method == "forkserver":
        _preload((*_NEEDED, main.__module__, *preload))
    process: BaseProcess = context.Process(
        target=main, args=args, name=temporary_name(name), daemon=False
    )
    with _without_interrupts(), _one_at_first(), program.main_in_place(), starting(method):
        process.start()
    _of_multiprocessing().discard(process)
    return process


def _of_multiprocessing() -> set[BaseProcess]:
    found: set[BaseProcess] = multiprocessing.process._children  # type: ignore[attr-defined]
    return found


def _preload(names: tuple[str, ...]) -> None:
    from multiprocessing import forkserver  # noqa: PLC0415 - not everywhere

    server: Any = forkserver._forkserver
    with _preloading:
        known: list[str] = list(server._preload_modules)
        if new := [one for one in names if one not in known]:
            # Without effect if it runs already; then each child imports them for itself.
            server.set_forkserver_preload([*known, *new])


@contextlib.contextmanager
def _one_at_first() -> Iterator[None]:
    """Should the first process not start, no other thread hides why.

    (By having ``multiprocessing`` start another forkserver, which forgets how the first one ended.)
    """
    global _has_started  # noqa: PLW0603 - of this process there is only one
    if _has_started:
        yield
        return
    with _first:
        yield
        _has_started = True


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ctrl-C is for the parent alone; a child inherits this until it can ignore it by itself."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker  # noqa: PLC0415 - not everywhere

    resource_tracker.ensure_running()  # it unblocks SIGINT when it is started; so before
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class LastWords:
    """A file without a name, in which a dying child says where it was. The kernel keeps it.

    It can be given to a child as an argument of its process, and be pickled at no other time.
    """

    def __init__(self, fd: int | None = None) -> None:
        self._fd = nameless_file("ion_actors-last-words") if fd is None else fd

    def __reduce__(self) -> tuple[Callable[..., LastWords], tuple[Any, ...]]:
        from multiprocessing import reduction  # noqa: PLC0415 - only while a process is started

        return _in_child, (reduction.DupFd(self._fd),)

    def fileno(self) -> int:
        """The file's descriptor."""
        return self._fd

    def read(self) -> str:
        """What it says."""
        size = os.fstat(self._fd).st_size
        os.lseek(self._fd, max(0, size - _MOST_WORDS), os.SEEK_SET)
        return os.read(self._fd, _MOST_WORDS).decode(errors="replace").strip()

    def close(self) -> None:
        """Let go of it. Doing so twice does no harm."""
        fd, self._fd = self._fd, -1
        if fd != -1:
            os.close(fd)


def _in_child(handle: Any) -> LastWords:
    fd = handle.detach()
    os.set_inheritable(fd, False)  # not by the programs that a task runs
    return LastWords(fd)
