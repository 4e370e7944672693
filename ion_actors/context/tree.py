"""The tree: how contexts end, and how the news of it travels.

A child *asks* its parents whenever it is asked itself, so a child that nobody waits on costs its
parents nothing, not even a reference. Only while a child has callbacks is it registered with its
parents, and with the clock for its deadline.

Chains of contexts can be long (a task that submits its successor from within a block, for ever), so
nothing here recurses along them.
"""

from __future__ import annotations

import _thread
import enum
import functools
import itertools
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from typing_extensions import override

from ion_actors.clock import Clock, Timer, system_clock
from ion_actors.delivery import is_kept_free, run_elsewhere
from ion_actors.errors import Cancelled, ContextEnded, DeadlineExceeded
from ion_actors.forking import HOOKS_RAN, on_fork, run_hooks
from ion_actors.interruption import is_interruption
from ion_actors.logs import Logger
from ion_actors.naming import is_own
from ion_actors.standby import NO_MORE_THREADS, STANDBY

__all__ = ["Node", "Registration", "Waker"]

logger = Logger("ion_actors")

# A lock guards one context's end, callbacks and links. There is one context per task, so they share
# a fixed set of locks, chosen by identity; no thread takes two of them on purpose. But a finalizer
# or a signal handler may end a context while its thread holds one, so they are reentrant.
_LOCKS = [threading.RLock() for _ in range(64)]


def _renew_locks() -> None:
    """In a forked child: some may be held by threads that are not here."""
    _LOCKS[:] = [threading.RLock() for _ in _LOCKS]


on_fork(_renew_locks)


class _End(enum.Enum):
    """How a context ended."""

    CANCELLED = "cancelled"
    DEADLINE = "deadline"


class Waker(functools.partial[object]):
    """A callback of this library's own, which is called again if it is interrupted."""

    __slots__ = ()


class Registration:
    """A callback's place on a context; :meth:`remove` gives it up."""

    __slots__ = ("_callback", "_context")

    def __init__(self, context: Node, callback: Callable[[], object] | None):
        self._context = context
        self._callback = callback

    def remove(self) -> None:
        """Take the callback back, unless it has begun. Calling twice does no harm."""
        _unlink([self])

    def _tell(self, end: _End, reason: str, untold: list[_Untold]) -> None:
        """The context has ended. A second call does nothing."""
        self._run()

    def _run(self) -> None:
        # Asked before it is taken: what comes in between would lose it.
        postponed = is_kept_free() and not is_own(self._callback)
        callback, self._callback = self._callback, None  # once, and drop what it refers to
        if callback is None:
            return
        if postponed:
            _postponed.callbacks = [*(_postponed.callbacks or ()), callback]
            return
        try:
            callback()
        except BaseException as error:
            if is_interruption(error):
                if isinstance(callback, Waker):
                    callback()
                raise
            logger.exception("a callback of a context failed: %r", callback)


class _Postponed(threading.local):
    """Callbacks of users for which the thread that has ended their context must not be kept."""

    callbacks: list[Callable[[], object]] | None = None


_postponed = _Postponed()


def _call_postponed() -> None:
    if callbacks := _postponed.callbacks:
        _postponed.callbacks = None
        run_elsewhere(functools.partial(_call_all, callbacks))


def _call_all(callbacks: list[Callable[[], object]]) -> None:
    while callbacks:
        callback = callbacks.pop(0)  # who has posted it must not be the last to let go of it
        try:
            callback()
        except BaseException:
            logger.exception("a callback of a context failed: %r", callback)


class _Link(Registration):
    """A child's place on its parent."""

    __slots__ = ("child", "removed")

    def __init__(self, parent: Node, child: Node):
        super().__init__(parent, None)
        self.child = child
        self.removed = False  # perhaps before it was placed; changes under the parent's lock

    @override
    def _tell(self, end: _End, reason: str, untold: list[_Untold]) -> None:
        self.child._settle(end, reason, untold)


class Node:
    """A context's place in the tree; what is public here is documented on ``Context``."""

    # Class-level defaults: a context is made for every task, so making one must be cheap.
    _parents: tuple[Node, ...] = ()
    _deadline: float | None = None
    _own_deadline: float | None = None  # without those of its parents
    _clock: Clock = system_clock
    _end: _End | None = None
    _reason: str | None = None
    _callbacks: dict[Registration, None] | None = None
    _links: list[Registration | Timer] | None = None  # places on the parents and the clock
    _passes_through = False  # it can no longer be cancelled itself
    _stem: Node | None = None  # see _stem_for_children()
    _handle: weakref.ref[Node] | None = None  # of a stem: the context
    blocks: list[Any] | None = None  # those of it that are open: see ion_actors.context.current

    _endless = False  # the root

    def _inherit(self, parents: tuple[Node, ...], deadline: float | None) -> None:
        if deadline is not None:
            self._own_deadline = deadline
        for one in parents:
            # Moments of another clock mean nothing to this one; such a parent's end is still
            # followed.
            limit = one._deadline
            if limit is not None and one._clock is self._clock:
                deadline = limit if deadline is None else min(deadline, limit)
        self._deadline = deadline
        if len(parents) != 1 or parents[0]._passes_through:
            parents = _living(parents)
        for one in parents:
            if one.blocks is not None:
                parents = tuple(
                    one if one.blocks is None else one._stem_for_children() for one in parents
                )
                break
        self._parents = parents

    def _stem_for_children(self) -> Node:
        """What children hold instead of this context, which was entered as a block.

        It ends when this one does. When nobody refers to this one any more, nobody can cancel it,
        and the stem passes through: so contexts do not pile up where each task starts its successor
        from within a block.
        """
        if self._endless or (stem := self._stem) is not None:
            return self if self._endless else stem  # type: ignore[return-value]
        stem = Node()
        stem._clock, stem._deadline, stem._parents = self._clock, self._deadline, self._parents
        stem._handle = weakref.ref(self, functools.partial(_let_through, weakref.ref(stem)))
        with self._lock:
            if self._stem is None:
                stem._end, stem._reason = self._end, self._reason
                self._stem = stem
            return self._stem

    @property
    def _lock(self) -> AbstractContextManager[object]:
        if not HOOKS_RAN[0]:
            run_hooks()
        return _LOCKS[id(self) >> 6 & 63]

    # -- asking ----------------------------------------------------------------------------

    @property
    def cancelled(self) -> bool:
        """Whether it has ended, for whatever reason."""
        if self._end is None:
            self._look_up()
        return self._end is not None

    def _look_up(self) -> None:
        """Take notice of a parent's end, or else of a deadline that has passed."""
        expired = False
        todo: list[Node] = [self]
        while todo:
            one = todo.pop()
            if one._end is not None:
                self._finish(one._end, one._reason or "the parent context has ended")
                return
            if one._deadline is not None and one._clock.monotonic() >= one._deadline:
                expired = True
            for parent in one._parents:
                if parent._passes_through:
                    one._parents = _living(one._parents)
            todo.extend(reversed(one._parents))
        if expired:
            self._expire()

    @property
    def reason(self) -> str | None:
        """Why it has ended, in words; None while it has not."""
        return self._reason if self.cancelled else None

    @property
    def deadline(self) -> float | None:
        """The moment it ends by itself (its clock's monotonic seconds), or None."""
        return self._deadline

    @property
    def clock(self) -> Clock:
        """The clock that its deadline and its waits go by."""
        return self._clock

    def remaining(self) -> float | None:
        """Seconds until the deadline, 0.0 once it has ended, None if there is no deadline."""
        if self.cancelled:
            return 0.0
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - self._clock.monotonic())

    def check(self) -> None:
        """Return if it is alive.

        Raises:
            Cancelled: it was cancelled.
            DeadlineExceeded: its deadline has passed.
        """
        if self.cancelled:
            raise self._error()

    def _error(self) -> ContextEnded:
        # A new one each time: a shared exception would collect every raiser's traceback.
        reason = self._reason or "the context has ended"
        return DeadlineExceeded(reason) if self._end is _End.DEADLINE else Cancelled(reason)

    # -- ending ----------------------------------------------------------------------------

    def cancel(self, reason: str = "the context was cancelled") -> bool:
        """End it, and with it all its descendants. Returns False if it had ended before."""
        return not self.cancelled and self._finish(_End.CANCELLED, reason)

    def _expire(self) -> None:
        self._finish(_End.DEADLINE, "the deadline has passed")

    def _finish(self, end: _End, reason: str) -> bool:
        """End it and all below it. Returns False if it had ended before.

        Raises:
            BaseException: Ctrl-C or the like came meanwhile; all were told.
        """
        untold: list[_Untold] = []
        try:
            ended = self._settle(end, reason, untold)
            _tell(untold, end, reason)
        except BaseException:
            self._settle(end, reason, untold)
            _tell(untold, end, reason)
            raise
        return ended

    def _settle(self, end: _End, reason: str, untold: list[_Untold]) -> bool:
        """Let it have ended, and note who is to be told. Returns False if it had ended before."""
        with self._lock:
            first = self._end is None
            if first:
                self._reason = reason  # before the end: who sees the end may read the reason
                self._end = end
                callbacks, links = self._callbacks, self._links
                self._callbacks = self._links = None
                untold.append([callbacks, links])  # nothing can come in between these lines
        if self._stem is not None:
            self._stem._settle(end, reason, untold)  # also if the first call was interrupted
        return first

    # -- callbacks -------------------------------------------------------------------------

    def add_callback(self, callback: Callable[[], object]) -> Registration:
        """Have ``callback()`` called once, when the context ends; now, if it has ended.

        It runs in the thread that ends the context; if that is one of the library's that must not
        block (for a deadline, the clock's), in a thread for the callbacks that are due, in their
        order. An error in it is logged; Ctrl-C in it is raised by what ended the
        context, when all others were called. The returned registration takes it back.

        Raises:
            RuntimeError: there is a deadline, no thread can be started for it, and there is no
                supervisor to look at the time instead.
        """
        registration = Registration(self, callback)
        try:
            _place(deque((registration,)))
            if self._deadline is not None and not isinstance(callback, Waker):
                self._check_clock()
        except BaseException:  # Ctrl-C: nobody will be able to take it back
            registration.remove()
            raise
        return registration

    def _check_clock(self) -> None:
        # Who waits for a context looks at the time himself. Others would never be told.
        if self._clock is system_clock and STANDBY.neglected and self._end is None:
            try:  # there may be threads again, and nobody has looked since
                _thread.start_new_thread(STANDBY.attend, ())
            except NO_MORE_THREADS as error:
                what = "can't start new thread, which a context's deadline needs"
                raise RuntimeError(what) from error

    def _keep(self, registration: Registration) -> _Kept:
        """Keep it, if that is of use. Returns what is to be done next: see :func:`_place`."""
        with self._lock:
            if isinstance(registration, _Link):
                if registration.removed:
                    return _Kept.DONE
                if self._passes_through and self._end is None:
                    return _Kept.PASSES_THROUGH
            # Kept before the look: a signal handler may end the context in between.
            callbacks = self._callbacks = self._callbacks or {}
            callbacks[registration] = None
            if self._end is not None:
                self._callbacks = None
                return _Kept.HAS_ENDED
            # Another thread may be about to link it. That it is done twice does no harm.
            return _Kept.UNLINKED if self._links is None else _Kept.DONE

    def _drop(self, registration: Registration, unneeded: list[Registration | Timer]) -> None:
        """Keep it no more. Adds the links that nobody needs any longer."""
        with self._lock:
            if isinstance(registration, _Link):
                registration.removed = True
            if self._callbacks is None or registration not in self._callbacks:
                return
            del self._callbacks[registration]
            if self._callbacks or self._links is None:
                return  # without links, either there are none or _link() is about to look
            links, self._links = self._links, None
            unneeded.extend(links)

    def _link(self, todo: deque[Registration]) -> None:
        """Go by the parents and the clock, for as long as there are callbacks.

        Adds its new links, to be placed; any old ones are given up.
        """
        self._parents = _living(self._parents)
        places = [_Link(one, self) for one in self._parents if not one._endless]
        links: list[Registration | Timer] = [*places]
        try:
            if self._deadline is not None:
                links.append(self._clock.call_at(self._deadline, self._expire))
            todo.extend(places)
            with self._lock:
                if self._callbacks and self._end is None:
                    links, self._links = self._links or [], links
        finally:
            _unlink(links)  # the old ones; or the new ones, if nobody wants them

    def pass_through(self) -> None:
        """For this library's own use: nobody will cancel it any more, except through its parents.

        So its children go by its parents from now on. Without this, a task that submits its
        successor for ever would grow an endless chain.
        """
        self._passes_through = True
        if self._callbacks:
            with self._lock:
                links = [one for one in self._callbacks or () if isinstance(one, _Link)]
            for link in links:
                link.child._relink()

    def _relink(self) -> None:
        todo: deque[Registration] = deque()
        self._link(todo)
        _place(todo)

    def step_over(self, parent: Node) -> None:
        """Go by that parent's parents, and no more by itself, if it is a parent of this one."""
        before = parent if parent._stem is None else parent._stem
        if before not in self._parents:
            return
        parents = [one._parents if one is before else (one,) for one in self._parents]
        self._inherit(tuple(itertools.chain(*parents)), self._own_deadline)
        if self._callbacks:
            self._relink()


def _let_through(stem: weakref.ref[Node], _: object) -> None:
    """The context of this stem is gone."""
    if (found := stem()) is not None:
        found.pass_through()


class _Kept(enum.Enum):
    """What became of a registration that was to be placed on a context."""

    DONE = "kept, or not needed any more"
    UNLINKED = "kept, and the context has to be linked with its parents now"
    HAS_ENDED = "the context has ended, so it is to be told now"
    PASSES_THROUGH = "the context's parents are the place for it"


# The callbacks and the links of a context that has ended: what is not told or given up yet.
_Untold = list[Any]


def _tell(untold: list[_Untold], end: _End, reason: str) -> None:
    """Tell everybody, depth first. What is done is taken out, so it can be called again."""
    interruption: BaseException | None = None
    while untold:
        callbacks, links = untold[-1]
        if links:
            _unlink(links)
            untold[-1][1] = None
        if not callbacks:
            untold.pop()
            continue
        one = next(iter(callbacks))
        try:
            one._tell(end, reason, untold)
        except BaseException as error:
            interruption = error if interruption is None else interruption
            one._tell(end, reason, untold)  # unless it was told
        callbacks.pop(one, None)
    _call_postponed()
    if interruption is not None:
        raise interruption


def _place(todo: deque[Registration]) -> None:
    """Put them on their contexts, and the links of those contexts on their parents, and so on."""
    try:
        _place_each(todo)
    except BaseException:  # Ctrl-C: others may need the links
        _place_each(todo)
        raise


def _place_each(todo: deque[Registration]) -> None:
    while todo:
        one = todo[0]
        context = one._context
        kept = context._keep(one)
        if kept is _Kept.UNLINKED:
            context._link(todo)
        elif kept is _Kept.HAS_ENDED and not isinstance(one, _Link):
            one._run()
            _call_postponed()
        elif kept is _Kept.HAS_ENDED and isinstance(one, _Link) and context._end is not None:
            one.child._finish(context._end, context._reason or "the parent context has ended")
        elif kept is _Kept.PASSES_THROUGH and isinstance(one, _Link):
            one.child._link(todo)
        todo.popleft()


def _unlink(links: list[Registration | Timer] | None) -> None:
    """Give these places up, and those that were only needed for them, and so on."""
    todo = list(links or ())
    try:
        _unlink_each(todo)
    except BaseException:
        _unlink_each(todo)
        raise


def _unlink_each(todo: list[Registration | Timer]) -> None:
    while todo:
        one = todo[0]
        if isinstance(one, Timer):
            one.cancel()
        else:
            one._context._drop(one, todo)
        del todo[0]


def _living(contexts: tuple[Node, ...]) -> tuple[Node, ...]:
    """The same, with those that pass through replaced by their own parents."""
    found: dict[Node, None] = {}
    todo = [*reversed(contexts)]
    while todo:
        one = todo.pop()
        if one._passes_through and one._end is None:
            todo.extend(reversed(one._parents))
        else:
            found[one] = None
    return tuple(found)
