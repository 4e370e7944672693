"""The settings of the Ray backend."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

from ion_actors._arguments import boolean, duration, number, positive_seconds, seconds, whole_number
from ion_actors.backends.process import ProcessBackend
from ion_actors.context import Context
from ion_actors.observe import Log

if TYPE_CHECKING:
    from ion_actors.backends.ray.runner import RayRunner

__all__ = ["RayBackend"]

_MOST = 10_000  # tasks in one message


@dataclass(frozen=True, slots=True, kw_only=True)
class RayBackend:
    """Tasks run on a Ray cluster, in one Ray actor for each worker. Needs the extra ``ray``.

    Args:
        address: ``"host:port"`` of the cluster's head, ``"auto"`` for the one that runs on this
            machine, or ``"local"`` for a new one on this machine. By default the connection that
            this process has, or else the cluster in the variable ``RAY_ADDRESS``, or else a new
            local one, which only this machine can reach and which ends with the last pool.
        init: further arguments for ``ray.init``, such as ``runtime_env``.
        ship: code of the program that the nodes do not have: modules, or paths of a package's
            folder, a ``.py`` file or a wheel. It is sent when this process connects to Ray; if the
            program has done that itself, it has to send it, too.
        num_cpus: logical CPUs that Ray sets aside for each worker. In a local cluster that the
            backend has started itself, none are counted.
        num_gpus: accelerators for each worker; a fraction lets workers share one.
        resources: amounts of custom resources for each worker.
        scheduling: Ray's scheduling strategy: ``"SPREAD"``, ``"DEFAULT"``, or an object of
            ``ray.util.scheduling_strategies``.
        max_tasks_per_child: how many tasks an actor may run before a fresh one replaces it; None
            for any number.
        window: how many tasks may be under way for each worker. So many are if they are small;
            fewer, the longer they take. 1: the next is sent when the last has ended.
        batch: how many of those may go in one message.
        writable: whether large buffers (the data of numpy's arrays) may be written to where they
            arrive. False: they are views of Ray's shared memory that nobody may write to.
        capture_output: keep what a task prints to the standard output and error, also from native
            code: see :attr:`ion_actors.Future.output`. By default it appears here as if it had been
            printed here, as far as Python prints it, unless Ray shows it (``log_to_driver``).
        connect_timeout: seconds that it may take to connect to a running cluster.
        start_timeout: seconds that an actor, once it has been placed, may take until its
            initializer has returned; None for any time. Until it is placed it may wait for ever.
        grace: seconds that a task gets to end by itself when its context has ended. Then an
            exception is raised in it. None: it is never forced.
        kill_after: seconds from then until the actor is killed.
        isolate: whether tasks run in a child process of the actor instead of the actor itself. Then
            a task that crashes, or has to be killed, costs that child only, and it is known how the
            child has ended, on any node; tasks run in a main thread. Large arrays are copied once
            more on their way.
        child: further settings of that child, only with ``isolate=True``; by default
            ``ProcessBackend()``. ``max_tasks_per_child``, ``capture_output``, ``start_timeout``,
            ``grace`` and ``kill_after`` hold for it, whether they are set here or there.
            ``native_threads="share"`` is ``num_cpus``, and at least one.

    Raises:
        TypeError, ValueError: an argument makes no sense.
        ImportError: Ray is not installed.
    """

    address: str | None = None
    init: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)  # has secrets
    ship: Sequence[ModuleType | str | os.PathLike[str]] = ()
    num_cpus: float = 1
    num_gpus: float = 0
    resources: Mapping[str, float] = field(default_factory=dict, hash=False)
    scheduling: Any = "SPREAD"
    max_tasks_per_child: int | None = None
    window: int = 64
    batch: int = 32
    writable: bool = True
    capture_output: bool = False
    connect_timeout: float = 10.0
    start_timeout: float | None = 60.0
    grace: float | None = 1.0
    kill_after: float = 1.0
    isolate: bool = False
    child: ProcessBackend | None = None

    def __post_init__(self) -> None:
        _check_address(self.address)
        self._set("init", _checked_init(self.init))
        self._set("ship", _checked_ship(self.ship))
        number("num_cpus", self.num_cpus, minimum=0)
        number("num_gpus", self.num_gpus, minimum=0)
        self._set("resources", _checked_resources(self.resources))
        if self.max_tasks_per_child is not None:
            whole_number("max_tasks_per_child", self.max_tasks_per_child, minimum=1)
        for name in ("window", "batch"):
            if whole_number(name, getattr(self, name), minimum=1) > _MOST:
                raise ValueError(f"{name} must be at most {_MOST}, not {getattr(self, name)!r}")
        boolean("writable", self.writable)
        boolean("capture_output", self.capture_output)
        self._set("connect_timeout", duration("connect_timeout", self.connect_timeout))
        self._set("start_timeout", positive_seconds("start_timeout", self.start_timeout))
        self._set("grace", seconds("grace", self.grace))
        number("kill_after", self.kill_after, minimum=0)
        boolean("isolate", self.isolate)
        self._check_child()
        if importlib.util.find_spec("ray") is None:
            raise ImportError("the Ray backend needs Ray: install ion_actors with its extra 'ray'")

    def _check_child(self) -> None:
        given: object = self.child
        if given is None:
            return
        if not isinstance(given, ProcessBackend):
            raise TypeError(f"child must be a ProcessBackend, not {given!r}")
        if not self.isolate:
            raise ValueError("child= is for RayBackend(isolate=True): else there is no child")
        for name in _SHARED:
            default, here, there = _default(name), getattr(self, name), getattr(given, name)
            if default not in (here, there) and here != there:
                raise ValueError(
                    f"{name} is {here!r} for RayBackend, and {there!r} for its child: give one"
                )

    @property
    def child_there(self) -> ProcessBackend | None:
        """The child of each actor with all its settings, wherever they are set; None if not."""
        if not self.isolate:
            return None
        child = ProcessBackend() if self.child is None else self.child
        changed = {
            one: getattr(self, one) for one in _SHARED if getattr(self, one) != _default(one)
        }
        if child.native_threads == "share":
            changed["native_threads"] = max(1, int(self.num_cpus))
        return replace(child, **changed)

    @property
    def must_start(self) -> bool:
        """True: there is no actor yet."""
        return True

    def make_runner(self, worker: str, context: Context, log: Log) -> RayRunner:
        """A runner for the worker of that name; its actor is started by its ``start``."""
        from ion_actors.backends.ray.runner import RayRunner  # noqa: PLC0415 - it is large
        from ion_actors.backends.ray.settings import ActorSettings  # noqa: PLC0415

        child = self.child_there
        settings = {one.name: getattr(self, one.name) for one in fields(ActorSettings)}
        settings |= {one: getattr(child, one) for one in _SHARED if child is not None}
        settings["child"] = child
        return RayRunner(ActorSettings(**settings), worker, context, log)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # the class is frozen


_SHARED = ("max_tasks_per_child", "capture_output", "start_timeout", "grace", "kill_after")


def _default(name: str) -> object:
    return next(one.default for one in fields(ProcessBackend) if one.name == name)


def _check_address(given: object) -> None:
    if given is None or given in ("auto", "local"):
        return
    if not isinstance(given, str):
        raise TypeError(f"address must be 'host:port', 'auto', 'local' or None, not {given!r}")
    if "://" in given:
        raise ValueError(
            f"address {given!r} is one of Ray's client, which cannot tell when an actor dies: give "
            "'host:port' of the head, from a machine of the cluster"
        )
    host, _, port = given.rpartition(":")
    if not (host and port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(f"address must be 'host:port', 'auto', 'local' or None, not {given!r}")


def _checked_init(given: object) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise TypeError(f"init must map arguments of ray.init, not be a {type(given).__name__}")
    for name in given:
        if not isinstance(name, str):
            raise TypeError(f"init must map names of arguments of ray.init, not {name!r}")
    if "address" in given:
        raise ValueError("init must not have an address: give RayBackend(address=...)")
    return MappingProxyType(dict(given))


def _checked_ship(given: object) -> tuple[str, ...]:
    """The paths."""
    if isinstance(given, str | os.PathLike | ModuleType) or not isinstance(given, Iterable):
        raise TypeError(f"ship must be a list of modules and paths, not {given!r}")
    return tuple(str(_path_of(one).absolute()) for one in given)


def _path_of(given: object) -> Path:
    if isinstance(given, ModuleType):
        folders: list[str] = list(getattr(given, "__path__", ()))
        found: Any = folders[0] if folders else getattr(given, "__file__", None)
    elif isinstance(given, str | os.PathLike):
        found = given
    else:
        raise TypeError(f"ship must be a list of modules and paths, not of {given!r}")
    path = None if found is None else Path(found)
    if path is None or not (path.is_dir() or (path.suffix in (".py", ".whl") and path.is_file())):
        raise ValueError(
            f"ship must be modules, and paths of folders, .py files and wheels: {given!r} is none"
        )
    return path


def _checked_resources(given: object) -> Mapping[str, float]:
    if not isinstance(given, Mapping):
        raise TypeError(f"resources must map names to amounts, not be a {type(given).__name__}")
    for name, amount in given.items():
        if not isinstance(name, str):
            raise TypeError(f"resources must map names to amounts, not {name!r}")
        if name in ("CPU", "GPU"):
            raise ValueError(f"resources must not have {name}: give num_{name.lower()}s")
        number(f"resources[{name!r}]", amount, minimum=0)
    return MappingProxyType(dict(given))
