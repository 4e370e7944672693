"""The settings of the process backend."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from ion_actors._arguments import boolean, number, positive_seconds, seconds, whole_number
from ion_actors.context import Context
from ion_actors.observe import Log

if TYPE_CHECKING:
    from ion_actors.backends.process.parent.runner import ProcessRunner

__all__ = ["ProcessBackend"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessBackend:
    """Tasks run in child processes, one for each worker.

    Args:
        start_method: ``"forkserver"``, the default where it exists, or ``"spawn"``. ``"fork"`` is
            not supported: it copies the locks of threads, but not the threads.
        preload: modules to be imported before the first task. With a forkserver, they are imported
            there, once for all children, which then share the files that the modules open.
        max_tasks_per_child: how many tasks a child may run before a fresh one replaces it; None for
            any number.
        max_memory_per_child: bytes of resident memory; a child that holds more after a task is
            replaced by a fresh one. On Linux, one that holds more during a task is ended, and the
            task with it: :class:`.TaskOutOfMemory`. None for any amount.
        nice: is added to the niceness of the children.
        env: environment variables of the children, in addition to those that the parent has when a
            child starts, or replacing them. They are set before any module is imported that is not
            the library's.
        native_threads: how many threads libraries for numerical work (OpenMP, OpenBLAS, MKL, BLIS,
            Accelerate, numba, numexpr) may have in each child: a number; ``"share"``, the default,
            for this process's CPUs divided by the size of the pool, and at least one; or None for
            the libraries' own defaults. It sets ``OMP_NUM_THREADS`` and similar variables, except
            those that are set in ``env`` or in this process's environment.
        start_timeout: seconds that a child may take until its initializer has returned; None for
            any time.
        grace: seconds that a task gets to end by itself when its context has ended. Then SIGTERM
            raises an exception in it, so that its ``finally`` blocks run. None: it is never forced.
        kill_after: seconds from then until the child is killed.
        heartbeat: seconds between two questions to a child that runs a task. If it has not answered
            by the next one, it gets SIGABRT, which makes it report its stacks, and is killed after
            ``kill_after``; its task panics. Native code that holds the GIL does not answer, either,
            so choose a long interval. None: no questions.
        capture_output: keep what a task prints to the standard output and error, also from native
            code: the last mebibyte of each, instead of showing it; see
            :attr:`ion_actors.Future.output`.

    Raises:
        TypeError, ValueError: an argument makes no sense.
        NotImplementedError: the system is not like Unix.
    """

    start_method: str | None = None
    preload: tuple[str, ...] = ()
    max_tasks_per_child: int | None = None
    max_memory_per_child: int | None = None
    nice: int = 0
    env: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)  # has secrets
    native_threads: int | Literal["share"] | None = "share"
    start_timeout: float | None = 60.0
    grace: float | None = 1.0
    kill_after: float = 1.0
    heartbeat: float | None = None
    capture_output: bool = False

    def __post_init__(self) -> None:
        if os.name != "posix":
            raise NotImplementedError("child processes need a system like Unix: Linux, macOS, BSD")
        self._set("start_method", _checked_method(self.start_method))
        self._set("preload", _checked_modules(self.preload))
        if self.max_tasks_per_child is not None:
            whole_number("max_tasks_per_child", self.max_tasks_per_child, minimum=1)
        if self.max_memory_per_child is not None:
            whole_number("max_memory_per_child", self.max_memory_per_child, minimum=1)
        whole_number("nice", self.nice, minimum=0)
        self._set("env", _checked_env(self.env))
        if self.native_threads not in ("share", None):
            whole_number("native_threads", self.native_threads, minimum=1)
        self._set("start_timeout", positive_seconds("start_timeout", self.start_timeout))
        self._set("grace", seconds("grace", self.grace))
        number("kill_after", self.kill_after, minimum=0)
        self._set("heartbeat", positive_seconds("heartbeat", self.heartbeat))
        boolean("capture_output", self.capture_output)

    @property
    def must_start(self) -> bool:
        """True: there is no child yet."""
        return True

    @property
    def threads_per_child(self) -> int | None:
        """How many native threads a child may have; None for any number."""
        return None if self.native_threads == "share" else self.native_threads

    def among(self, workers: int, cpus: int) -> ProcessBackend:
        """The backend for a pool that has this many workers, which share these CPUs."""
        if self.native_threads != "share":
            return self
        from ion_actors.backends.process.child.environment import cpus_to_share  # noqa: PLC0415

        return replace(self, native_threads=max(1, cpus_to_share(cpus) // workers))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # the class is frozen

    def make_runner(self, worker: str, context: Context, log: Log) -> ProcessRunner:
        """A runner for the worker of that name; its child is started by its ``start``."""
        from ion_actors.backends.process.main_module import (  # noqa: PLC0415
            leave_if_unguarded,
            remember_main,
        )
        from ion_actors.backends.process.parent.launch import ChildSettings  # noqa: PLC0415
        from ion_actors.backends.process.parent.runner import (  # noqa: PLC0415 - it is large
            ProcessRunner,
        )

        leave_if_unguarded()
        remember_main()
        settings: Any = {one.name: getattr(self, one.name) for one in fields(ChildSettings)}
        return ProcessRunner(ChildSettings(**settings), worker, context, log)

    def try_launch(self) -> None:
        """Start a process and end it at once, to find out whether there can be any.

        Raises:
            OSError: there can be none now.
        """
        from ion_actors.backends.process.main_module import (  # noqa: PLC0415
            leave_if_unguarded,
            remember_main,
        )
        from ion_actors.backends.process.parent.launch import (  # noqa: PLC0415
            ChildSettings,
            launch,
        )

        leave_if_unguarded()
        remember_main()
        settings: Any = {one.name: getattr(self, one.name) for one in fields(ChildSettings)}
        handle = launch(ChildSettings(**settings), "probe", _do_nothing)
        handle.send_signal(signal.SIGKILL)
        handle.await_end()
        handle.bury()


def _do_nothing() -> None:
    """In a process that is started only to find out whether there can be one."""


def _checked_method(given: object) -> str:
    import multiprocessing  # noqa: PLC0415 - only whoever has processes should pay for it

    there = multiprocessing.get_all_start_methods()
    usable = [one for one in ("forkserver", "spawn") if one in there]
    if getattr(sys, "frozen", False):
        usable = ["spawn"]  # a frozen executable cannot be a forkserver
    if given is None:
        return usable[0]
    if given not in usable:
        raise ValueError(f"start_method must be one of {', '.join(usable)}, not {given!r}")
    return str(given)


def _checked_modules(given: object) -> tuple[str, ...]:
    if isinstance(given, str):
        raise TypeError(f"preload must be the names of modules, as in ({given!r},), not {given!r}")
    if not isinstance(given, Iterable):
        raise TypeError(f"preload must be the names of modules, not {given!r}")
    names = tuple(given)
    for one in names:
        if not isinstance(one, str):
            raise TypeError(f"preload must be the names of modules, not {one!r}")
        if not all(part.isidentifier() for part in one.split(".")):
            raise ValueError(f"preload must be the full names of modules, not {one!r}")
    return names


def _checked_env(given: object) -> Mapping[str, str]:
    if not isinstance(given, Mapping):
        raise TypeError(f"env must map names to values, not be a {type(given).__name__}")
    for name, value in given.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            raise TypeError(
                f"env must map strings to strings, not {name!r} to a {type(value).__name__}"
            )
        if not name or "=" in name or not _is_for_the_system(name + value):
            raise ValueError(f"env: no variable can have the name {name!r}, or such a value")
    return MappingProxyType(dict(given))


def _is_for_the_system(text: str) -> bool:
    """Whether the system can be given this: it would only be found out by a child, at its start."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False
