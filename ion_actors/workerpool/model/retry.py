"""Whether a task that failed is tried again, and when: a pure decision of policy, past and time.

The task waits for its next try in the mailbox (:mod:`ion_actors.workerpool.mailbox.delayed`), and
its worker goes on with other tasks meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ion_actors._arguments import exceptions_or_predicate, make_plain, seconds, whole_number
from ion_actors.errors import TaskPanicked, WorkerDied
from ion_actors.raised import is_a
from ion_actors.workerpool.model.backoff import Backoff, random_part
from ion_actors.workerpool.model.outcomes import excess_of

__all__ = ["PastTries", "Plan", "Retry", "hint_of"]

_Kinds = type[BaseException] | tuple[type[BaseException], ...]

_KEPT = 10  # failures whose text is kept, from the last ones

_LONGEST = 300  # characters of an error's text


@dataclass(frozen=True, slots=True)
class Retry:
    """Try a task again that failed. For ``pool.options(retry=Retry(...))``.

    Until its next try a task waits in the mailbox and takes no worker. It ends as its last try
    does: if that raised, the future raises that error, with the failures before it in its notes.

    Args:
        attempts: how often the task may be tried, the first try included; None for any number.
        backoff: how long to wait for the next try. An error with an attribute ``retry_after``
            (seconds) makes it at least that long.
        on: what is tried again: exception types, or a predicate that is given the error. It runs on
            the task's worker; if it raises, that is logged and counts as False. A task that took
            its worker down is tried again only if ``on`` names a class for that: ``WorkerDied``,
            ``TaskPanicked`` (any panic), or one that is no ``Exception``; or if
            ``retry_on_worker_death`` says so. One that held too much memory is tried again only if
            ``on`` names ``TaskOutOfMemory`` or ``MemoryError``.
        deadline: seconds from when the task was accepted, or its delay is over, after which no try
            begins; None for no limit. (It is relative, unlike other deadlines: a policy is made
            before its tasks.) A task whose next try would begin later ends at once.

    Raises:
        TypeError, ValueError: an argument makes no sense.
    """

    attempts: int | None = 3
    backoff: Backoff = Backoff()  # noqa: RUF009 - it is frozen
    on: _Kinds | Callable[[BaseException], bool] = Exception
    deadline: float | None = None

    def __post_init__(self) -> None:
        if self.attempts is not None:
            whole_number("attempts", self.attempts, minimum=1)
        if not isinstance(self.backoff, Backoff):
            raise TypeError(f"backoff must be a Backoff, not {self.backoff!r}")
        on: object = self.on
        if on is None or (isinstance(on, tuple) and not on):
            raise TypeError(f"on must be exception types or a predicate, not {on!r}")
        exceptions_or_predicate("on", on)
        object.__setattr__(self, "deadline", seconds("deadline", self.deadline))
        make_plain(self, "attempts", "deadline")

    def covers(self, error: BaseException) -> bool:
        """Whether a task that failed with this is tried again.

        Raises:
            Exception: the predicate failed; the caller decides.
        """
        if not isinstance(self.on, type | tuple):
            return bool(self.on(error))
        return is_a(error, self.on) if excess_of(error) is None else self._covers_excess()

    def covers_death(self, error: BaseException) -> bool:
        """Whether a task that took its worker down with this is tried again."""
        if not isinstance(self.on, type | tuple):
            return False
        kinds = self.on if isinstance(self.on, tuple) else (self.on,)
        if excess_of(error) is not None:
            return self._covers_excess()
        named = tuple(one for one in kinds if _names_a_death(one))
        return any(one is TaskPanicked for one in kinds) or is_a(error, named)

    def _covers_excess(self) -> bool:
        """Whether it is tried again after it held too much memory: it would take that again."""
        kinds = self.on if isinstance(self.on, tuple) else (self.on,)
        return any(isinstance(one, type) and issubclass(one, MemoryError) for one in kinds)

    def plan(
        self,
        failures: int,
        now: float,
        accepted_at: float,
        hint: float | None,
        chance: Callable[[], float] = random_part,
    ) -> Plan:
        """What follows after a failure that is covered.

        Args:
            failures: how often the task has failed, 1 or more.
            now: the moment of the last failure.
            accepted_at: when the task was accepted.
            hint: seconds that the error wants to be waited for.
            chance: gives numbers from 0 to 1.
        """
        if self.attempts is not None and failures >= self.attempts:
            return Plan(None, f"attempts={self.attempts}")
        wait = max(self.backoff.wait(failures, chance), hint or 0.0)
        if math.isinf(wait):
            return Plan(None, "its error says that waiting is of no use")
        if self.deadline is not None and now + wait > accepted_at + self.deadline:
            return Plan(None, f"deadline={self.deadline:g}")
        return Plan(now + wait, "")


def _names_a_death(kind: type[BaseException]) -> bool:
    return issubclass(kind, WorkerDied) or not issubclass(kind, Exception)


class Plan(NamedTuple):
    """The moment of the next try or, if there is none, why."""

    due: float | None
    why: str


@dataclass(frozen=True, slots=True)
class PastTries:
    """The failures of one task, as text: its errors would keep alive what its tries had at hand."""

    count: int = 0
    last: str = ""
    why: str = ""  # there is no other try
    _texts: tuple[str, ...] = ()

    def added(self, error: str, took: float) -> PastTries:
        """These and one more, after so many seconds."""
        count = self.count + 1
        last = error if len(error) <= _LONGEST else f"{error[:_LONGEST]}..."
        text = f"try {count} failed after {took:.3g} s with {last}"
        return PastTries(count, last, "", (*self._texts, text)[-_KEPT:])

    def notes(self) -> list[str]:
        """A line for each failure, and for the last try if that has ended."""
        left_out = self.count - len(self._texts)
        notes = [f"{left_out} tries failed before these"] if left_out else []
        last = [f"try {self.count + 1} was the last: {self.why}"] if self.why else []
        return [*notes, *self._texts, *last]


def hint_of(error: BaseException) -> float | None:
    """The seconds after which the error says that another try makes sense; None if it does not.

    The class of the error is the user's, and so is this attribute. Infinity means never.
    """
    try:
        found: object = getattr(error, "retry_after", None)
        if isinstance(found, bool) or not isinstance(found, int | float):
            return None
        hint = float(found)
    except BaseException:
        return None
    return hint if hint >= 0 else None
