"""The checked arguments of a supervisor and its children."""

from __future__ import annotations

import contextvars
import enum
import itertools
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from ion_actors._arguments import boolean, make_plain, optional, seconds
from ion_actors.context import Context, background, current_context
from ion_actors.naming import printable
from ion_actors.observe import Log, Metrics, Probe
from ion_actors.supervision.states import AutoShutdown, ChildRecord, Restart, Rules, Strategy
from ion_actors.workerpool.model.backoff import Backoff
from ion_actors.workerpool.model.recovery import PanicRecovery

__all__ = ["WORKER_SHUTDOWN", "ChildSpec", "TreeSpec", "child"]

#: Seconds that a pool or an actor has to stop, by default: as in OTP.
WORKER_SHUTDOWN = 5.0

_numbers = itertools.count(1)

E = TypeVar("E", bound=enum.Enum)


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How a child is made, and how its supervisor handles its end. See :func:`child`."""

    start: Callable[..., Any]
    id: str
    args: tuple[Any, ...] = field(default=(), repr=False)  # may contain a password
    kwargs: Mapping[str, Any] = field(default_factory=dict, repr=False)
    restart: Restart = Restart.PERMANENT
    shutdown: float | Literal["default"] | None = "default"
    significant: bool = False

    def __post_init__(self) -> None:
        _check_start(self.start)
        _check_id(self.id)
        if self.shutdown != "default":
            seconds("shutdown", self.shutdown)
            make_plain(self, "shutdown")
        boolean("significant", self.significant)
        if self.significant and self.restart is Restart.PERMANENT:
            raise ValueError(f"child {self.id!r} is always restarted, so it cannot be significant")

    @property
    def record(self) -> ChildRecord:
        """Its record for the machine."""
        return ChildRecord(self.id, self.restart, self.significant)


def child(
    start: Callable[..., Any],
    *,
    id: str | None = None,  # noqa: A002  # the word of OTP's child specifications
    args: Iterable[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    restart: Restart | str = Restart.PERMANENT,
    shutdown: float | Literal["default"] | None = "default",
    significant: bool = False,
) -> ChildSpec:
    """A child of a :class:`Supervisor`.

    Args:
        start: makes the child, each time that it is started: a pykka actor class, or a callable
            that returns a new ``Pool`` or a new ``Supervisor``. It is called in a thread of its
            own, in a copy of the context variables of the code that made the supervisor.
        id: its name among its siblings; by default the name of ``start``.
        args: positional arguments for ``start``.
        kwargs: keyword arguments for ``start``.
        restart: PERMANENT (always restart it, the default), TRANSIENT (only if it failed) or
            TEMPORARY (never), or the same as a string.
        shutdown: seconds that it has to stop before it is abandoned; None for any number. By
            default 5 for a pool or an actor, any number for a supervisor, whose children have
            deadlines of their own. At the interpreter's exit, None means 30 seconds, or for a pool
            its ``drain_timeout``.
        significant: its end can end its supervisor: see ``auto_shutdown`` there. Not for permanent
            children.

    Raises:
        TypeError, ValueError: an argument makes no sense; the message names it.
    """
    if id is None:
        id = _default_id(start)  # noqa: A001
    if isinstance(args, str) or not isinstance(args, Iterable):
        raise TypeError(f"args must be a tuple of arguments, not a {type(args).__name__}")
    return ChildSpec(
        start, id, tuple(args), dict(kwargs or {}), one_of(Restart, "restart", restart),
        shutdown, significant,
    )  # fmt: skip


def one_of(kind: type[E], name: str, value: object) -> E:
    """A member of an enum, given as itself or as its value."""
    if isinstance(value, kind):
        return value
    try:
        return kind(value)
    except ValueError:
        choices = ", ".join(repr(member.value) for member in kind)
        raise ValueError(f"{name} must be one of {choices}, not {value!r}") from None


def _default_id(start: object) -> str:
    name = getattr(start, "__name__", None)
    if not isinstance(name, str) or name == "<lambda>":
        _check_start(start)
        raise ValueError(f"child {start!r} has no name; give it an id")
    return name


def _check_id(given: object) -> None:
    if not isinstance(given, str) or not given:
        raise ValueError(f"id must be a string that is not empty, not {given!r}")


def _check_start(start: object) -> None:
    if not callable(start):
        raise TypeError(
            f"start must be a callable that makes the child, not {start!r}: after a crash it has "
            "to be made again"
        )


@dataclass(frozen=True, slots=True)
class TreeSpec:
    """The arguments of a supervisor, checked, and with the defaults filled in."""

    name: str
    children: tuple[ChildSpec, ...]
    rules: Rules
    context: Context  # the supervisor's own: a child of the one that was given
    log: Log
    probe: Probe | None
    variables: contextvars.Context = field(default_factory=contextvars.copy_context)

    @classmethod
    def checked(
        cls,
        children: Iterable[ChildSpec | Callable[..., Any]],
        strategy: Strategy | str,
        max_restarts: int | None,
        within: float,
        backoff: Backoff | None,
        auto_shutdown: AutoShutdown | str,
        name: str | None,
        context: Context | None,
        logger: logging.Logger | None,
        metrics: Metrics | None,
    ) -> TreeSpec:
        """The spec for these arguments of ``Supervisor``.

        Raises:
            TypeError, ValueError: one of them makes no sense.
        """
        optional("name", name, str)
        name = printable(name) if name else f"supervisor-{next(_numbers)}"
        optional("context", context, Context)
        optional("backoff", backoff, Backoff)
        rules = Rules(
            strategy=one_of(Strategy, "strategy", strategy),
            limit=PanicRecovery(max_restarts=max_restarts, within=within),
            backoff=backoff,
            auto_shutdown=one_of(AutoShutdown, "auto_shutdown", auto_shutdown),
        )
        clock = (context or current_context()).clock
        return cls(
            name=name,
            children=_checked_children(children, rules.auto_shutdown),
            rules=rules,
            context=Context(background() if context is None else context, clock=clock),
            log=Log(logger, "ion_actors.supervision", later=True, supervisor=name),
            probe=Probe.checked(metrics, None, supervisor=name),
        )


def _checked_children(children: object, auto_shutdown: AutoShutdown) -> tuple[ChildSpec, ...]:
    if isinstance(children, str) or not isinstance(children, Iterable):
        raise TypeError(f"children must be a list of child(...), not {children!r}")
    specs = tuple(one if isinstance(one, ChildSpec) else child(one) for one in children)
    ids: set[str] = set()
    for spec in specs:
        if spec.id in ids:
            raise ValueError(f"two children have the id {spec.id!r}")
        ids.add(spec.id)
        if spec.significant and auto_shutdown is AutoShutdown.NEVER:
            raise ValueError(
                f"child {spec.id!r} is significant, but auto_shutdown is never; give "
                "auto_shutdown='any_significant' or 'all_significant'"
            )
    return specs
