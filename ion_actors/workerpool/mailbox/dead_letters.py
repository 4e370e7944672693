"""Dead letters: the tasks that a pool has given up, for those who want to put them back.

A task is a dead letter when the pool ended it for a :class:`DropReason`, and so did not do what it
was asked to. What its submitter has wished is none: a task that was cancelled, or whose deadline
has passed; nor is one that ran and failed. A submission that was refused is one only if it had
been waiting for room: otherwise its caller has the call at hand, and the error.

Nothing is kept for those who subscribe later: without a subscriber, a dead letter is not even made.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ion_actors._arguments import seconds
from ion_actors.naming import describe
from ion_actors.observe import Bus, Subscription
from ion_actors.raised import in_a_line
from ion_actors.workerpool.model.reports import WorkerDeath

if TYPE_CHECKING:
    from ion_actors.clock import Clock
    from ion_actors.futures import Future
    from ion_actors.workerpool.model.outcomes import DropReason

__all__ = ["DeadLetter", "DeadLetters", "KeptLetter", "KeptLetters"]


class Resubmits(Protocol):
    """Where a dead letter can be put back: a pool, or what its ``options`` return."""

    def options(self, *, name: str) -> Resubmits:
        """The same, for tasks of that name."""
        ...

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit the call; wait for room."""
        ...


class _Tries(Protocol):
    """Where a dead letter can be put back without a wait."""

    def options(self, *, name: str) -> _Tries: ...
    def try_submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]: ...


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A task that a pool has given up, with what it takes to run it after all."""

    pool: str  #: the pool's name
    given_name: str | None  #: what the pool called the task; None: its function's name
    fn: Callable[..., Any]  #: what was to be called
    args: tuple[Any, ...] = field(repr=False)  #: its positional arguments
    kwargs: Mapping[str, Any] = field(repr=False)  #: its keyword arguments
    reason: DropReason  #: why it was given up
    error: BaseException  #: what its future raises, or the submitter that waited for room
    at: float  #: when: a moment of the pool's clock
    history: tuple[WorkerDeath, ...] = ()  #: the workers that it took down, the first one first
    _home: Resubmits | None = field(default=None, repr=False, compare=False)

    @property
    def task(self) -> str:
        """The task's name: the one given by ``options(name=...)``, else its function's."""
        return describe(self.fn, self.given_name)

    def put_back(self, pool: Resubmits | None = None) -> Future[Any]:
        """Submit the call again, under its name and the current context; wait for room.

        Args:
            pool: where to; by default the pool that it comes from. What
                :meth:`Pool.options <ion_actors.Pool.options>` returns will do, for tasks that need
                a time limit, or any other option, again.

        Returns:
            The future of the result: a new one. The old one has its outcome.

        Raises:
            TypeError: this is a pickled copy, which knows no pool, and none is given.
            PoolClosed, BrokenPool: the pool accepts nothing any more.
            Cancelled, DeadlineExceeded: the current context has ended.
        """
        target = self._home if pool is None else pool
        if target is None:
            raise TypeError("pool must be given: a pickled dead letter does not know its own")
        if self.given_name is not None:
            target = target.options(name=self.given_name)
        return target.submit(self.fn, *self.args, **self.kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        facts = (self.pool, self.given_name, self.fn, self.args, dict(self.kwargs))
        return DeadLetter, (*facts, self.reason, self.error, self.at, self.history)


class DeadLetters:
    """The tasks that one pool gives up, as they come: ``Pool.dead_letters``."""

    def __init__(self, pool: str, clock: Clock, home: Resubmits) -> None:
        self._pool = pool
        self._clock = clock
        self._home = home
        self._bus: Bus[DeadLetter] = Bus(f"{pool}-dead-letters")

    def subscribe(self, callback: Callable[[DeadLetter], object]) -> Subscription:
        """Have ``callback(letter)`` called for each task that is given up from now on.

        It is called on a thread for that purpose, one letter at a time, in their order, also after
        the pool has ended. It may block. What it raises is logged.

        Returns:
            The subscription; its ``remove()`` takes it back.

        Raises:
            TypeError: it is not callable.
        """
        return self._bus.add(callback)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the subscribers have been told of all that was given up so far.

        Args:
            timeout: seconds to wait at most; None for as long as it takes.

        Returns:
            Whether they have. False at once in a subscriber, which cannot wait for itself.

        Raises:
            TypeError, ValueError: the timeout makes no sense.
        """
        return self._bus.join(seconds("timeout", timeout))

    def note(
        self,
        name: str | None,
        call: tuple[Any, ...],
        reason: DropReason,
        error: BaseException,
        history: tuple[WorkerDeath, ...],
    ) -> None:
        """A task is given up; under the mailbox's lock, before anybody can see its end."""
        if not self._bus.heard:
            return
        fn, args, kwargs = call[:3]
        now = self._clock.monotonic()
        self._bus.note(
            DeadLetter(
                self._pool, name, fn, args, kwargs or {}, reason, error, now, history, self._home
            )
        )

    def tell(self) -> None:
        """Have the subscribers told of what was noted; under no lock."""
        self._bus.tell()


class KeptLetter(NamedTuple):
    """A dead letter that is kept for those who look."""

    number: int  #: among those of its pool
    letter: DeadLetter
    error: str  #: its error in a line


class KeptLetters:
    """The latest dead letters of a pool, for those who look at them and put them back.

    They are kept only while somebody may look: they keep the arguments of their tasks alive.

    Args:
        letters: of the pool.
        most: how many are kept; the oldest are dropped for new ones.
    """

    def __init__(self, letters: DeadLetters, most: int) -> None:
        # Its methods are atomic, so it needs no lock.
        self._kept: deque[KeptLetter] = deque(maxlen=most)
        self._numbers = itertools.count(1)
        self._subscription = letters.subscribe(self._keep)

    def _keep(self, letter: DeadLetter) -> None:
        # On the bus's thread, where the error's class may do what it likes.
        self._kept.append(KeptLetter(next(self._numbers), letter, in_a_line(letter.error)))

    def all(self) -> list[KeptLetter]:
        """Those that are kept, the oldest first."""
        return list(self._kept.copy())

    def replay(self, number: int, to: _Tries) -> Future[Any]:
        """Put a letter back that is kept, and keep it no more. Never waits for room.

        Raises:
            LookupError: it is not kept, or was put back.
            QueueFull, PoolClosed, BrokenPool: it was not accepted; it is kept.
        """
        one = next((one for one in self.all() if one.number == number), None)
        try:
            if one is None:
                raise ValueError
            self._kept.remove(one)  # first: of two who ask for it, one finds it gone
        except ValueError:
            raise LookupError(f"there is no dead letter {number}; was it put back?") from None
        try:
            return one.letter.put_back(_WithoutWaiting(to))
        except BaseException:
            self._kept.append(one)
            raise

    def stop(self) -> None:
        """Keep nothing any more."""
        self._subscription.remove()
        self._kept.clear()


class _WithoutWaiting:
    """A pool whose ``submit`` is ``try_submit``."""

    def __init__(self, to: _Tries) -> None:
        self._to = to

    def options(self, *, name: str) -> _WithoutWaiting:
        return _WithoutWaiting(self._to.options(name=name))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._to.try_submit(fn, *args, **kwargs)
