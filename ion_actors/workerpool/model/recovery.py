"""When is an exception a panic, and what becomes of a worker that panicked.

Everything here is a pure decision of the policy, what happened, and the time; the supervisor acts
on it. The shape is Erlang/OTP's restart intensity: so many restarts within so many seconds, then
give up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ion_actors._arguments import (
    exceptions_or_predicate,
    make_plain,
    optional_callable,
    seconds,
    whole_number,
)
from ion_actors.errors import WorkerDied
from ion_actors.raised import is_a
from ion_actors.workerpool.model.backoff import Backoff
from ion_actors.workerpool.model.outcomes import Directive
from ion_actors.workerpool.model.reports import Panic

__all__ = ["Decide", "IsPanic", "PanicRecovery", "RestartWindow"]

IsPanic = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]

Decide = Mapping[type[BaseException], Directive] | Callable[[BaseException], Directive | None]


@dataclass(frozen=True, slots=True)
class PanicRecovery:
    """The policy for panics.

    Args:
        handler: told of each panic with a :class:`Panic`, on the thread of the worker that goes,
            after its successor was appointed and before the task's future raises. What it raises is
            logged. While it runs, the future waits for it.
        max_restarts: how many workers may be replaced within ``within`` seconds before the pool
            gives up and breaks; None for any number.
        within: the window in seconds for ``max_restarts``.
        backoff: the retries of a worker whose initializer fails. (A worker that was lost to a task
            is replaced at once: the task was at fault.)
        is_panic: exception types, or a predicate, that count as panics besides everything that is
            not an ``Exception``, and :class:`WorkerDied`.
        decide: what to do about an exception of a task, besides RESUME (for one that is no panic)
            and RESTART (for one that is): a mapping from exception types to :class:`Directive`, of
            which the closest in the exception's family counts, or a callable that is given the
            exception. What is not in the mapping, and what the callable answers None to, is left to
            the other rules.

    Raises:
        TypeError, ValueError: an argument makes no sense.
    """

    handler: Callable[[Panic], object] | None = None
    max_restarts: int | None = None
    within: float = 60.0
    backoff: Backoff = Backoff()  # noqa: RUF009 - it is frozen
    is_panic: IsPanic | None = None
    decide: Decide | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        optional_callable("handler", self.handler)
        if self.max_restarts is not None:
            whole_number("max_restarts", self.max_restarts, minimum=0)
        if not seconds("within", self.within):
            raise ValueError(f"within must be a positive number of seconds, not {self.within!r}")
        make_plain(self, "max_restarts", "within")
        if not isinstance(self.backoff, Backoff):
            raise TypeError(f"backoff must be a Backoff, not {self.backoff!r}")
        exceptions_or_predicate("is_panic", self.is_panic)
        if isinstance(self.decide, Mapping):
            object.__setattr__(self, "decide", _checked_rules(self.decide))
        else:
            optional_callable("decide", self.decide)

    def directive(self, error: BaseException) -> Directive:
        """What to do about this exception from a task.

        Raises:
            Exception: a callable of the policy failed; the caller decides.
        """
        if (decided := self._decided(error)) is not None:
            return decided
        return Directive.RESTART if self.calls_it_panic(error) else Directive.RESUME

    def _decided(self, error: BaseException) -> Directive | None:
        if self.decide is None:
            return None
        if isinstance(self.decide, Mapping):
            rules = self.decide
            return next((rules[kind] for kind in type(error).__mro__ if kind in rules), None)
        decided: object = self.decide(error)
        if decided is not None and not isinstance(decided, Directive):
            raise TypeError(f"decide must answer with a Directive or None, not {decided!r}")
        return decided

    def calls_it_panic(self, error: BaseException) -> bool:
        """Whether this exception from a task is a panic.

        Raises:
            Exception: the predicate failed; the caller decides.
        """
        if not is_a(error, Exception) or is_a(error, WorkerDied):
            return True
        if self.is_panic is None:
            return False
        if isinstance(self.is_panic, type | tuple):
            return is_a(error, self.is_panic)
        return bool(self.is_panic(error))


def _checked_rules(rules: Mapping[Any, Any]) -> dict[type[BaseException], Directive]:
    for kind, directive in rules.items():
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"decide must map exception types to directives, not {kind!r}")
        if not isinstance(directive, Directive):
            raise TypeError(f"decide must map {kind.__name__} to a Directive, not {directive!r}")
    return dict(rules)  # a copy: nobody is to change the rules of a policy


class RestartWindow(NamedTuple):
    """The restarts of the recent past: what restart intensity is judged by."""

    recent: tuple[float, ...] = ()

    def allow(self, policy: PanicRecovery, now: float) -> tuple[RestartWindow, bool]:
        """The window with a restart at ``now`` in it, and whether the policy permits that one."""
        if policy.max_restarts is None:
            return self, True
        recent = (*(at for at in self.recent if at > now - policy.within), now)
        return RestartWindow(recent), len(recent) <= policy.max_restarts
