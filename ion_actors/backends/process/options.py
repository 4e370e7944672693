"""The settings of the process backend."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from ion_actors._arguments import boolean, number, positive_seconds, seconds, whole_number
from ion_actors.context import Context
from ion_actors.observe import Log

if TYPE_CHECKING:
    from ion_actors.backends.process.runner import ProcessRunner

__all__ = ["ProcessBackend"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessBackend:
    """Tasks run in child processes, one for each worker.

    Args:
        start_method: ``"forkserver"``, the default where there is one, or ``"spawn"``. Never a bare
            fork, which copies the locks of threads that it does not copy.
        preload: modules to be imported before the first task. With a forkserver that has not been
            started yet, they are imported there, once for all children.
        max_tasks_per_child: how many tasks a child may run before a fresh one takes its place; None
            for any number.
        max_memory_per_child: bytes of resident memory; a child that holds more after a task is
            replaced by a fresh one. None for any amount.
        nice: is added to the niceness of the children.
        env: environment variables of the children, besides or instead of the parent's. They are
            set before a child imports ``preload`` and unpickles anything, but after the forkserver,
            if there is one, did its preloading.
        start_timeout: seconds that a child may take until its initializer has returned; None for
            any time.
        grace: seconds that a task gets to end itself when its context has ended. Then it is sent
            SIGTERM, which raises an exception in it, so that its ``finally`` blocks run. None:
            it is never forced.
        kill_after: seconds from then until the child is killed.
        heartbeat: seconds. A child that has a task is asked this often whether it still answers.
            If it has not by the next time, it is sent SIGABRT, which makes it say where it is, and
            killed after ``kill_after``; its task panics. Native code that keeps Python's lock does
            not answer, either, so give it time. None: nobody asks.
        capture_output: what a task prints to the standard output and error, also below Python, is
            kept, the last mebibyte of each, and not shown; see :attr:`ion_actors.Future.output`.

    Raises:
        TypeError, ValueError: an argument makes no sense.
    """

    start_method: str | None = None
    preload: tuple[str, ...] = ()
    max_tasks_per_child: int | None = None
    max_memory_per_child: int | None = None
    nice: int = 0
    env: Mapping[str, str] = field(default_factory=dict, hash=False)
    start_timeout: float | None = 60.0
    grace: float | None = 1.0
    kill_after: float = 1.0
    heartbeat: float | None = None
    capture_output: bool = False

    def __post_init__(self) -> None:
        self._set("start_method", _checked_method(self.start_method))
        self._set("preload", _checked_modules(self.preload))
        if self.max_tasks_per_child is not None:
            whole_number("max_tasks_per_child", self.max_tasks_per_child, minimum=1)
        if self.max_memory_per_child is not None:
            whole_number("max_memory_per_child", self.max_memory_per_child, minimum=1)
        whole_number("nice", self.nice, minimum=0)
        self._set("env", _checked_env(self.env))
        self._set("start_timeout", positive_seconds("start_timeout", self.start_timeout))
        self._set("grace", seconds("grace", self.grace))
        number("kill_after", self.kill_after, minimum=0)
        self._set("heartbeat", positive_seconds("heartbeat", self.heartbeat))
        if boolean("capture_output", self.capture_output) and os.name == "nt":
            raise ValueError("capture_output must be False: output cannot be captured here")

    @property
    def must_start(self) -> bool:
        """It does: there is no child yet."""
        return True

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # it is frozen for everybody else

    def make_runner(self, worker: str, context: Context, log: Log) -> ProcessRunner:
        """A runner for the worker of that name; its child is started by its ``start``."""
        from ion_actors.backends.process.guard import leave_if_unguarded  # noqa: PLC0415
        from ion_actors.backends.process.program import remember_main  # noqa: PLC0415
        from ion_actors.backends.process.runner import ProcessRunner  # noqa: PLC0415 - it is large

        leave_if_unguarded()
        remember_main()
        return ProcessRunner(self, worker, context, log)


def _checked_method(given: object) -> str:
    import multiprocessing  # noqa: PLC0415 - only whoever has processes should pay for it

    there = multiprocessing.get_all_start_methods()
    usable = [one for one in ("forkserver", "spawn") if one in there]
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
        raise TypeError(f"env must map names to values, not {given!r}")
    for name, value in given.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            raise TypeError(f"env must map strings to strings, not {name!r} to {value!r}")
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(f"env: no variable can have the name {name!r} and the value {value!r}")
    return MappingProxyType(dict(given))
