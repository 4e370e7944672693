"""What belongs to a task and not to its arguments: ``pool.options(...)``.

:class:`TaskOptions` are what was asked for, checked; :class:`TaskTerms` what follows for each task.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from ion_actors._arguments import make_plain, moment, number, seconds, whole_number
from ion_actors.clock import Clock
from ion_actors.context import Context
from ion_actors.workerpool.model.retry import Retry

__all__ = [
    "NO_OPTIONS",
    "PLAIN",
    "TaskOptions",
    "TaskTerms",
    "check_key",
    "moment_of",
    "simple_options",
    "terms_of",
]


_fields_of = attrgetter(
    "context", "timeout", "name", "ttl", "priority", "key", "key_limit", "retry_on_worker_death",
    "retry", "delay",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TaskOptions:
    """What belongs to a task and not to its arguments: see ``Submitter.options``."""

    context: Context | None = None
    timeout: float | None = None
    name: str | None = None
    ttl: float | None = None
    priority: int | None = None
    key: Hashable | None = None
    key_limit: int | None = None
    retry_on_worker_death: int | None = None
    retry: Retry | None = None
    delay: float | None = None
    at: float | None = None  # instead: a moment of the pool's clock
    pass_context: bool = False

    def __post_init__(self) -> None:
        if self.context is not None and not isinstance(self.context, Context):
            raise TypeError(f"context must be a Context or None, not {self.context!r}")
        seconds("timeout", self.timeout)
        if self.name is not None and not isinstance(self.name, str):
            raise TypeError(f"name must be a string or None, not {self.name!r}")
        if self.name is not None:  # no subclass: it is shown on threads that must not block
            object.__setattr__(self, "name", str.__str__(self.name))
        seconds("ttl", self.ttl)
        if self.priority is not None:
            object.__setattr__(self, "priority", whole_number("priority", self.priority))
        if self.key_limit is not None:
            whole_number("key_limit", self.key_limit, minimum=1)
        if self.retry_on_worker_death is not None:
            whole_number("retry_on_worker_death", self.retry_on_worker_death, minimum=0)
        _check_retry(self.retry)
        if self.delay is not None:
            number("delay", self.delay, minimum=0)
        make_plain(
            self, "timeout", "ttl", "priority", "key_limit", "retry_on_worker_death", "delay"
        )
        check_key(self.key)

    def overridden_by(self, given: tuple[Any, ...], *, pass_context: bool) -> TaskOptions:
        """The same, but for what is given: the fields up to the delay, None for what stays."""
        pairs = zip(_fields_of(self), given, strict=True)
        merged = [old if new is None else new for old, new in pairs]
        at = self.at if given[-1] is None else None
        merged += at, self.pass_context or pass_context
        return TaskOptions(*merged)

    @property
    def delayed(self) -> bool:
        """Whether the tasks have to wait for their time."""
        return bool(self.delay) or self.at is not None

    @property
    def timed(self) -> bool:
        """Whether they have to, or may have to between two tries."""
        return self.delayed or self.retry is not None

    @property
    def bare(self) -> bool:
        """Whether the tasks have nothing but a name, a priority and a key: they end by themselves,
        or with their pool."""
        at_once = self.delay is None and self.at is None and self.ttl is None
        once = self.retry is None and not self.retry_on_worker_death
        return self.endless and at_once and once

    @property
    def endless(self) -> bool:
        """Whether the tasks need no context of their own: no deadline ends them, and they do not
        ask for it as an argument."""
        return self.context is None and self.timeout is None and not self.pass_context

    @property
    def ranked(self) -> bool:
        """Whether the tasks may begin in another order than that of acceptance."""
        return bool(self.priority) or self.key is not None


def check_key(given: object) -> None:
    """Raises ``TypeError`` unless it can be hashed."""
    try:
        hash(given)
    except TypeError:
        raise TypeError(f"key must be hashable, not {given!r}") from None


def _check_retry(given: object) -> None:
    if given is not None and not isinstance(given, Retry):
        hint = f": write Retry(attempts={given})" if type(given) is int else ""
        raise TypeError(f"retry must be a Retry or None, not {given!r}{hint}")


#: Those of a submitter that was given none.
NO_OPTIONS = TaskOptions()


@dataclass(slots=True)
class TaskTerms:
    """What the options of a submitter say about each of its tasks.

    There is one for all tasks of a submitter: a task refers to it instead of having a copy of each
    value. It is not changed once a task has it.

    Attributes:
        name: what to call the tasks; None for the name of their function.
        limit: seconds from when a task is accepted until it must have ended.
        ttl: seconds that it may be queued.
        delay: seconds from when it is accepted until it may begin.
        at: instead, that moment.
        retry: how it is tried again if it fails.
        retries: how often it is run again after it took down its worker.
        priority: the more, the sooner.
        key_limit: how many of its key may run while it does, itself included.
        ranked: it has a priority or a key.
        timed: it has a delay, or may be tried again.
        bare: it has nothing but a name, a priority and a key: it ends by itself, or with its pool.
        endless: it needs no context of its own.
        limited: it has a moment when it ends, or before which it does not begin.
        again: it may be tried again, or run again.
        brief: a timeout is all that may matter once it is accepted.
    """

    name: str | None = None
    limit: float | None = None
    ttl: float | None = None
    delay: float | None = None
    at: float | None = None
    retry: Retry | None = None
    retries: int = 0
    priority: int = 0
    key_limit: int = 1
    ranked: bool = False
    timed: bool = False
    bare: bool = True
    endless: bool = True
    limited: bool = False
    again: bool = False
    brief: bool = False


#: Those of a task without options.
PLAIN = TaskTerms()


def terms_of(options: TaskOptions) -> TaskTerms:
    """What these options say about each task."""
    limit, ttl = seconds("timeout", options.timeout), seconds("ttl", options.ttl)
    retries = options.retry_on_worker_death or 0
    return TaskTerms(
        options.name, limit, ttl, options.delay, options.at, options.retry, retries,
        options.priority or 0, options.key_limit or 1, options.ranked, options.timed,
        options.bare, options.endless,
        limited=options.timed or ttl is not None or limit is not None,
        again=retries > 0 or options.retry is not None,
        brief=not (options.timed or ttl is not None or retries),
    )  # fmt: skip


_ANY = "any"


@functools.lru_cache(maxsize=256, typed=True)
def simple_options(
    timeout: float | None,
    name: str | None,
    ttl: float | None,
    priority: int | None,
    retries: int | None,
    delay: float | None,
    keyed: bool,
) -> tuple[TaskOptions, TaskTerms]:
    """Options that have no objects of the user's, which ``pool.options(...).submit(...)`` makes for
    each task, mostly the same ones. Those with a key have one that stands for any."""
    options = TaskOptions(
        timeout=timeout, name=name, ttl=ttl, priority=priority, retry_on_worker_death=retries,
        delay=delay, key=_ANY if keyed else None,
    )  # fmt: skip
    return options, terms_of(options)


def moment_of(when: object, clock: Clock) -> float:
    """The moment of that clock which was meant: see ``Submitter.submit_at``.

    Raises:
        TypeError, ValueError: none.
    """
    from datetime import UTC, datetime  # noqa: PLC0415 - seldom wanted

    if isinstance(when, datetime):
        if when.utcoffset() is None:
            raise ValueError(f"when must have a time zone, as datetime.now(UTC) has, not {when!r}")
        return clock.monotonic() + (when - datetime.now(UTC)).total_seconds()
    found = moment("when", when)
    if when is None or found is None:
        raise TypeError(f"when must be a datetime or a moment of the clock, not {when!r}")
    return found
