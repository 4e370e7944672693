"""The scheduler of waiting calls: their lines, and when each is served.

::

    allow() ──▶ scheduler ──take──▶ bucket, bucket, …     from all of them, or from none
    wait()  ──▶ line ──first─▶ scheduler, at the moment when all buckets have its tokens

A waiting call is in the line of each bucket that it needs tokens of, and takes nothing before it is
first in all of them and each has enough: so it reserves the next tokens, and can be cancelled at no
cost. One bucket may be shared by all calls and have no line of its own (a limiter's global one): a
call that lacks only its tokens holds back all later calls; one that lacks others' holds back none.

The moment of the next one is computed, so one timer is enough. It is set again whenever the result
changes, and there is none while no call waits.
"""

from __future__ import annotations

import heapq
import itertools
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ion_actors.clock import Clock, Timer
from ion_actors.context import Turn
from ion_actors.errors import DeadlineExceeded, RateLimited, RateLimitedPastDeadline
from ion_actors.forking import HOOKS_RAN, renew_after_fork, run_hooks
from ion_actors.ratelimit.bucket import PER_SECOND, Bucket, moment, ticks
from ion_actors.ratelimit.claims import BucketQueue, Claim, Find, check_possible, possible

__all__ = ["Scheduler", "WaitingLines", "earliest", "refusal"]


class WaitingLines:
    """All lines of one limiter: a call that needs tokens of several buckets is in several.

    Ctrl-C may come in the middle of any change. So a waiter is added to ``waiting`` first and
    removed from it last, and :meth:`mend` rebuilds everything else from that.

    Args:
        shared: the queue that all calls share, if there is one. It has only the calls that need
            nothing else.

    Attributes:
        waiting: all waiters, in order of arrival.
        fronts: those that are first in all of their lines.
    """

    def __init__(self, shared: BucketQueue | None) -> None:
        self._shared = shared
        self.waiting: dict[Turn[Claim], None] = {}
        self.fronts: dict[Turn[Claim], None] = {}

    def of(self, claim: Claim) -> tuple[BucketQueue, ...]:
        """The queues that it is in."""
        queues = claim.queues
        return queues[:-1] if len(queues) > 1 and queues[-1] is self._shared else queues

    def enter(self, turn: Turn[Claim]) -> None:
        """Add it to its lines: behind all of its priority, and before those of a lower one."""
        claim = turn.item
        self.waiting[turn] = None
        for queue in self.of(claim):
            last = next(reversed(queue.turns), turn)
            queue.turns[turn] = None
            queue.wanted += claim.n
            if last.item.priority < claim.priority:
                self._pass(queue, claim.priority)
        if self._is_front(turn):
            self.fronts[turn] = None

    def _pass(self, queue: BucketQueue, priority: int) -> None:
        """Move those of a lower priority to the end of the line."""
        for other in [one for one in queue.turns if one.item.priority < priority]:
            queue.turns.move_to_end(other)
            self.fronts.pop(other, None)

    def leave(self, turn: Turn[Claim]) -> list[Turn[Claim]]:
        """Remove it from its lines. Returns those that are at the front instead."""
        self.fronts.pop(turn, None)
        heirs = []
        for queue in self.of(turn.item):
            del queue.turns[turn]
            queue.wanted -= turn.item.n
            if queue.turns:
                heir = next(iter(queue.turns))
                if heir not in self.fronts and self._is_front(heir):
                    self.fronts[heir] = None
                    heirs.append(heir)
        del self.waiting[turn]
        return heirs

    def mend(self) -> None:
        """After an interruption: remove and wake those whose wait is over; the rest stay."""
        waiting, self.waiting, self.fronts = self.waiting, {}, {}
        for turn in waiting:
            for queue in turn.item.queues:
                queue.turns.clear()
                queue.wanted = 0
        for turn in waiting:
            if turn.over:
                turn.wake()  # twice does no harm
            else:
                self.enter(turn)

    def _is_front(self, turn: Turn[Claim]) -> bool:
        return all(next(iter(queue.turns)) is turn for queue in self.of(turn.item))


def earliest(
    claim: Claim, now: int, behind: tuple[BucketQueue, ...] = ()
) -> tuple[int | None, BucketQueue]:
    """The first tick at which a claim may be served, and the queue whose bucket comes last.

    Args:
        claim: the tokens, and their queues.
        now: this tick.
        behind: the queues that it is in, so that those before it there come first.

    Returns:
        None for a tick that never comes. It may be later, if others are served meanwhile.
    """
    found: tuple[int | None, BucketQueue] = (now, claim.queues[0])
    for queue in claim.queues:
        ahead = queue.ahead_of(claim) if queue in behind else 0
        due = queue.bucket.when(claim.n, now, ahead)
        if due is None:
            return None, queue
        if found[0] is not None and due > found[0]:
            found = due, queue
    return found


def _rank(turn: Turn[Claim]) -> tuple[int, int]:
    """Those of a lower rank come first."""
    return -turn.item.priority, turn.item.number


def refusal(
    limiter: str, claim: Claim, now: int, behind: tuple[BucketQueue, ...], *, in_context: bool
) -> RateLimited:
    """The error for it; ``in_context`` if the context's deadline is the reason."""
    due, queue = earliest(claim, now, behind)
    retry_after = None if due is None else moment(due - now)
    what = f"{claim.n} token{'s' if claim.n > 1 else ''}"
    what += "" if queue.label is None else f" of {queue.label}"
    kind = RateLimitedPastDeadline if in_context or claim.in_context else RateLimited
    end = "the timeout" if kind is RateLimited else "the deadline of the context"
    return kind(
        f"limiter {limiter!r}: its limit never allows {what}"
        if retry_after is None
        else f"limiter {limiter!r}: {what} can be there in {retry_after:.3g} s; {end} is earlier",
        limiter=limiter,
        retry_after=retry_after,
        is_global=queue.is_global,
        bucket=queue.label,
        remaining=int(queue.bucket.tokens(now)),
        limit=queue.bucket.current.burst,
    )


class Scheduler:
    """See the module. It is a :class:`ion_actors.context.Line`.

    Args:
        name: the limiter's.
        clock: the clock to use.
        jitter: waits take up to this part (0 to 1) longer.
        shared: the queue that all calls share, if there is one.
    """

    def __init__(
        self, name: str, clock: Clock, jitter: float, shared: BucketQueue | None = None
    ) -> None:
        self.name = name
        self.clock = clock
        self._monotonic = clock.monotonic
        self._jitter = jitter
        self._shared = shared
        self._numbers = itertools.count()
        self._lines = WaitingLines(shared)
        self._reset()
        renew_after_fork(self)

    def _reset(self) -> None:
        # Guards all below, the lines, all queues, their buckets, and finding them. Reentrant, since
        # a finalizer or a signal handler may use the scheduler while its thread holds the lock.
        self.lock = threading.RLock()
        self._timer: Timer | None = None
        self._settling = False

    def after_fork(self) -> None:
        """In a forked child: no call waits here, and no method is running."""
        self._reset()
        for turn in self._lines.waiting:
            if not turn.over:
                # The waiter is this very thread if a signal handler has forked; or a coroutine.
                turn.error = RuntimeError("this process was forked while it waited")
                turn.over = True
        self._lines.mend()

    # -- without waiting -------------------------------------------------------------------

    @property
    def crowded(self) -> bool:
        """Whether any call waits."""
        return bool(self._lines.fronts)

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        if not HOOKS_RAN[0]:
            run_hooks()
        with self.lock:  # or one that was just served could still count
            return len(self._lines.waiting)

    def take_one(self, find: Find, bucket: Bucket, n: int) -> bool:
        """:meth:`take` for a limiter with one bucket: quicker while no call waits."""
        if not HOOKS_RAN[0]:
            run_hooks()
        with self.lock:
            if self._lines.fronts or n > bucket.lasting.burst:
                return self.take(find, n)
            return bucket.try_take(n, int(self._monotonic() * PER_SECOND))

    def take(self, find: Find, n: int, priority: int = 0) -> bool:
        """Take ``n`` tokens from the buckets of all queues, or none.

        Waiting calls come first, except for those of a lower priority.

        Raises:
            ValueError: there can never be so many.
        """
        if not HOOKS_RAN[0]:
            run_hooks()
        with self.lock:
            queues = find()
            if n > 1:  # one is always possible
                check_possible(n, queues)
            if self._lines.fronts:
                return self._take_in_line(n, queues, priority)
            now = ticks(self.clock.monotonic())
            for queue in queues:
                if not queue.bucket.has(n, now):
                    return False
            for queue in queues:
                queue.bucket.take(n, now)
            return True

    def _take_in_line(self, n: int, queues: tuple[BucketQueue, ...], priority: int) -> bool:
        """The same while calls wait: those that are due are served first."""
        claim = Claim(n, lambda: queues, None, False, priority)
        claim.hold = 0  # it does not wait, so there is no jitter
        turn = Turn(claim, lambda: None)
        try:
            return self.join(turn)
        finally:
            self.give_up(turn, None)

    # -- as a line -------------------------------------------------------------------------

    def join(self, turn: Turn[Claim]) -> bool:
        """See :class:`ion_actors.context.Line`.

        Raises:
            RateLimited: its deadline passes before there can be enough tokens.
            ValueError: there can never be enough.
        """
        if not HOOKS_RAN[0]:
            run_hooks()
        refusal: BaseException | None = None
        try:
            with self.lock:
                self._enter(turn)
                self._settle()
                refusal = turn.error if turn.over else self._hopeless(turn.item)
                if refusal is None:
                    return turn.over
                raise refusal
        except BaseException as error:
            self._withdraw(turn, torn=error is not refusal)
            raise
        finally:
            del refusal  # it keeps this frame

    def _withdraw(self, turn: Turn[Claim], *, torn: bool) -> None:
        """Undo a failed join, which may have been interrupted at any point."""
        with self.lock:
            if torn:
                self._lines.mend()
            if not self.give_up(turn, None) and turn.over and turn.error is None:
                self.forsake(turn)

    def give_up(self, turn: Turn[Claim], error: BaseException | None) -> bool:
        """See :class:`ion_actors.context.Line`."""
        with self.lock:
            try:
                return self._give_up(turn, error)
            except BaseException:  # Ctrl-C: the caller will not end it a second time
                self._lines.mend()
                self._give_up(turn, error)
                raise

    def _give_up(self, turn: Turn[Claim], error: BaseException | None) -> bool:
        if isinstance(error, TimeoutError):
            self._settle()  # a claim that is due at this very moment is in time
        if turn.over or turn not in self._lines.waiting:
            return False
        if type(error) is DeadlineExceeded:
            error = self._error(turn.item, in_context=True)
        self._end(turn, error)
        self._lines.leave(turn)
        self._settle()
        return True

    def forsake(self, turn: Turn[Claim]) -> None:
        """See :class:`ion_actors.context.Line`."""
        claim = turn.item
        with self.lock:
            now = ticks(self.clock.monotonic())
            for queue, mark in zip(claim.queues, claim.marks, strict=True):
                queue.bucket.give_back(claim.n, mark, now)
            self._forget_holds()
            self._settle()

    def late(self, claim: Claim) -> RateLimited:
        """The error of a wait whose deadline has passed."""
        with self.lock:
            return self._error(claim)

    @contextmanager
    def changing(self) -> Iterator[int]:
        """A block that changes buckets, at the tick that it is given; waits are adjusted."""
        if not HOOKS_RAN[0]:
            run_hooks()
        with self.lock:
            self._settle()  # claims that are due already are due by the old terms
            try:
                yield ticks(self.clock.monotonic())
            finally:  # Ctrl-C may come after the change
                self._forget_holds()
                self._settle()

    def _forget_holds(self) -> None:
        """Forget computed moments, which no longer hold, with their jitter."""
        for turn in self._lines.fronts:
            turn.item.hold = 0

    # -- under the lock: whose turn it is --------------------------------------------------

    def _enter(self, turn: Turn[Claim]) -> None:
        claim = turn.item
        claim.queues = claim.queues or claim.find()
        check_possible(claim.n, claim.queues)
        claim.number = next(self._numbers)
        self._lines.enter(turn)

    def _settle(self) -> None:
        """Serve all that are due, and set the timer for the next."""
        if self._settling:
            return  # a clock makes a late call at once, from the loop below, which goes on
        self._settling = True
        try:
            self._serve_and_plan()
        except BaseException:  # Ctrl-C: other calls wait for the rest
            self._lines.mend()
            self._serve_and_plan()
            raise
        finally:
            self._settling = False

    def _serve_and_plan(self) -> None:
        while not self._plan(self._serve(ticks(self.clock.monotonic()))):
            pass

    def _fire(self) -> None:
        with self.lock:
            self._settle()

    def _plan(self, due: int | None) -> bool:
        """Set the timer for that tick. Returns False if it has fired already."""
        when = None if due is None else moment(due)
        if self._timer is not None:
            if self._timer.pending and self._timer.when == when:
                return True
            self._timer.cancel()
            self._timer = None
        if when is None:
            return True
        self._timer = self.clock.call_at(when, self._fire)
        return self._timer.pending

    def _serve(self, now: int) -> int | None:
        """Serve all that can be, by priority and in order of arrival. Returns when the next can."""
        fronts = [(*_rank(turn), turn) for turn in self._lines.fronts]
        heapq.heapify(fronts)
        dues = []
        while fronts:
            turn = heapq.heappop(fronts)[-1]
            claim = turn.item
            due = self._due(claim, now)
            if due is not None and due <= now:
                self._grant(turn, now)
            elif not possible(claim.n, claim.queues):  # a burst was made smaller meanwhile
                self._end(turn, self._error(claim))
            else:
                dues.append(due)
                if self._lacks_only_shared(claim, now):
                    break
                continue
            for heir in self._lines.leave(turn):
                heapq.heappush(fronts, (*_rank(heir), heir))
        return min((due for due in dues if due is not None), default=None)

    def _due(self, claim: Claim, now: int) -> int | None:
        """When it is served, if no other comes before it."""
        due = now
        for queue in claim.queues:
            found = queue.bucket.when(claim.n, now)
            if found is None:
                return None
            due = max(due, found)
        if claim.hold is None:
            claim.hold = self._held_up(claim, now, due)
        return max(due, claim.hold)

    def _held_up(self, claim: Claim, now: int, due: int) -> int:
        if not self._jitter:
            return 0
        hold = due + ticks(self._jitter * random.random()) * (due - now) // ticks(1.0)
        return hold if claim.latest is None else min(hold, ticks(claim.latest))

    def _lacks_only_shared(self, claim: Claim, now: int) -> bool:
        shared = self._shared
        return (
            shared is not None
            and not shared.bucket.has(claim.n, now)
            and all(one is shared or one.bucket.has(claim.n, now) for one in claim.queues)
        )

    def _grant(self, turn: Turn[Claim], now: int) -> None:
        claim = turn.item
        for queue in claim.queues:
            queue.bucket.take(claim.n, now)
        claim.marks = tuple(queue.bucket.mark() for queue in claim.queues)
        self._end(turn, None)

    def _end(self, turn: Turn[Claim], error: BaseException | None) -> None:
        # Woken here, not after the release of the lock: Ctrl-C in between would leave it asleep.
        turn.error = error
        turn.over = True
        turn.wake()

    # -- under the lock: who need not wait, as it would be in vain ---------------------------

    def _hopeless(self, claim: Claim) -> RateLimited | None:
        """The error of the last in line, if it cannot be served by its deadline."""
        if claim.latest is None:
            return None
        due = earliest(claim, ticks(self.clock.monotonic()), self._lines.of(claim))[0]
        when = None if due is None else moment(due)
        if when is None or when > claim.latest:
            return self._error(claim, last=True)
        return None

    def _error(self, claim: Claim, *, in_context: bool = False, last: bool = False) -> RateLimited:
        behind = self._lines.of(claim) if last else ()
        now = ticks(self.clock.monotonic())
        return refusal(self.name, claim, now, behind, in_context=in_context)
