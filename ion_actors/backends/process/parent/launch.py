"""How a child process is started.

``multiprocessing`` provides the code that sets up a child, and pickles what is handed over. The
start itself is the library's own: see :mod:`.forkserver` for the reasons.
"""

from __future__ import annotations

import atexit
import io
import multiprocessing.context
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import reduction, spawn
from typing import Any, Protocol

from ion_actors.backends.process import main_module
from ion_actors.backends.process.child import birth
from ion_actors.backends.process.child.environment import (
    SharedStream,
    Surroundings,
    confinement,
    environment,
    process_status,
    surroundings_here,
)
from ion_actors.backends.process.main_module import check_bootstrapped, temporary_name
from ion_actors.backends.process.parent import forkserver, interpreter
from ion_actors.backends.process.parent.handle import Handle
from ion_actors.backends.process.signals import without_sigpipe
from ion_actors.forking import on_fork

__all__ = ["ChildSettings", "forget", "launch", "register", "running_children"]


class _Killable(Protocol):
    def kill(self) -> None: ...


# Children that may still be running, of this process and of those that it was forked from.
_children: weakref.WeakSet[Any] = weakref.WeakSet()
_owner = os.getpid()


def register(child: _Killable) -> None:
    """Kill this child at the interpreter's exit, if it still runs then."""
    _children.add(child)


def forget(child: _Killable) -> None:
    """It has ended."""
    _children.discard(child)


def running_children() -> list[Any]:
    """The children that have not ended, as far as known."""
    return list(_children)


def _at_exit() -> None:
    if os.getpid() == _owner:
        for child in running_children():
            child.kill()
        forkserver.close_all()


def _after_fork() -> None:
    _children.clear()  # they are the parent's
    global _owner  # noqa: PLW0603 - of this process there is only one
    _owner = os.getpid()
    main_module.after_fork()
    forkserver.after_fork()


atexit.register(_at_exit)
on_fork(_after_fork)


@dataclass(frozen=True, slots=True)
class ChildSettings:
    """The settings of one child: the fields of :class:`.ProcessBackend`."""

    start_method: str
    preload: tuple[str, ...]
    max_tasks_per_child: int | None
    max_memory_per_child: int | None
    nice: int
    env: Mapping[str, str] = field(repr=False)  # has secrets
    threads_per_child: int | None
    start_timeout: float | None
    grace: float | None
    kill_after: float
    heartbeat: float | None
    capture_output: bool


def launch(settings: ChildSettings, name: str, main: Callable[..., None], *args: object) -> Handle:
    """Start a child process.

    Args:
        settings: how to start it.
        name: the name of the process, which ``main`` must set.
        main: the function of a module that it calls.
        args: the arguments for that. They may contain sockets and ``DupFd``.

    Raises:
        Hopeless: it can never be started.
        Exception: it cannot be started now.
    """
    check_bootstrapped()
    process: Any = birth.ChildProcess(target=main, args=args, name=temporary_name(name))
    process.daemon = False  # also in a daemon: our children end by their lifelines
    process.authkey = bytes(process.authkey)  # one of billiard's (Celery) cannot be pickled
    process._start_method = settings.start_method
    env = environment(settings.env, settings.threads_per_child)
    status = process_status()
    surroundings = surroundings_here(env, settings.nice, status)
    with ExitStack() as opened:
        if settings.start_method == "forkserver":
            return _forked(settings, surroundings, confinement(status), process, opened)
        return _spawned(surroundings, process, opened)


class _Spawner:
    """Collects descriptors while arguments are pickled, as ``multiprocessing`` expects it."""

    def __init__(self, kind: type[birth.InheritedDescriptor | birth.SameNumber]) -> None:
        self.DupFd = kind
        self.fds = [interpreter.resource_tracker_fd()]

    def duplicate_for_child(self, fd: int) -> int:
        """Hand this descriptor over. Returns the argument for ``DupFd``."""
        self.fds.append(fd)
        return len(self.fds) - 1 if self.DupFd is birth.InheritedDescriptor else fd


def _packed(spawner: _Spawner, *things: object) -> bytes:
    found = io.BytesIO()
    multiprocessing.context.set_spawning_popen(spawner)  # type: ignore[arg-type]
    try:
        for one in things:
            reduction.dump(one, found)
    finally:
        multiprocessing.context.set_spawning_popen(None)
    return found.getvalue()


def _forked(
    settings: ChildSettings,
    surroundings: Surroundings,
    confined: tuple[object, ...],
    process: Any,
    opened: ExitStack,
) -> Handle:
    spawner = _Spawner(birth.InheritedDescriptor)
    here = surroundings._replace(
        directory=_directory(opened),
        streams=tuple((fd, SharedStream(fd)) for fd in (1, 2) if _is_inherited(fd)),
    )
    data = _packed(spawner, here, main_module.preparation(process.name), process)
    theirs, ours = os.pipe()
    opened.callback(os.close, theirs)
    with _closed_if_it_fails(ours):
        fds = (theirs, *spawner.fds)
        pid, status = forkserver.fork(
            settings.preload, surroundings.env, confined, fds, settings.start_timeout
        )
        with _closed_if_it_fails(status):
            _tell(ours, data)
            return Handle(pid, status, ours, forked=True)


def _directory(opened: ExitStack) -> SharedStream | None:
    """The current directory. It may have been removed or moved, or be unreadable."""
    for flags in (os.O_RDONLY, getattr(os, "O_PATH", os.O_RDONLY)):
        try:
            fd = os.open(".", flags | os.O_DIRECTORY)
        except OSError:
            continue
        opened.callback(os.close, fd)
        return SharedStream(fd)
    return None


def _is_inherited(fd: int) -> bool:
    """Whether programs that this one starts have it. A closed stream's number may be any file's."""
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


def _spawned(surroundings: Surroundings, process: Any, opened: ExitStack) -> Handle:
    spawner = _Spawner(birth.SameNumber)
    theirs, ours = map(interpreter.above_streams, os.pipe())
    opened.callback(os.close, theirs)
    with _closed_if_it_fails(ours):
        sentinel, held = map(interpreter.above_streams, os.pipe())
        opened.callback(os.close, held)
        with _closed_if_it_fails(sentinel):
            start = _start_frozen if interpreter.is_frozen() else _start_interpreter
            pid, data = start(surroundings, process, spawner, theirs, held)
            _tell(ours, data)
            return Handle(pid, sentinel, ours, forked=False)


def _start_interpreter(
    surroundings: Surroundings, process: Any, spawner: _Spawner, stream: int, held: int
) -> tuple[int, bytes]:
    """Returns its id, and the data to write to it."""
    data = _packed(spawner, surroundings, main_module.preparation(process.name), process)
    fds = (*spawner.fds, held)
    pid = interpreter.start_helper(birth.__name__, stream, (fds,), fds, surroundings.env)
    return pid, interpreter.path_here() + data


def _start_frozen(
    surroundings: Surroundings, process: Any, spawner: _Spawner, stream: int, held: int
) -> tuple[int, bytes]:
    """The same for a frozen executable, in which the program calls ``freeze_support()``."""
    process.surroundings = surroundings
    data = _packed(spawner, main_module.preparation(process.name), process)
    command = spawn.get_command_line(tracker_fd=spawner.fds[0], pipe_handle=stream)
    return interpreter.start(command, (stream, *spawner.fds, held), surroundings.env), data


def _tell(stream: int, data: bytes) -> None:
    """Write this for a child. If it is dead, the wait for it finds out."""
    with (
        suppress(BrokenPipeError),
        without_sigpipe(),
        open(stream, "wb", closefd=False) as file,
    ):
        file.write(data)


@contextmanager
def _closed_if_it_fails(fd: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.close(fd)
        raise
