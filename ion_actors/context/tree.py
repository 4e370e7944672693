"""The tree of contexts: how contexts end, and how their callbacks and children are told.

A child *asks* its parents whenever it is asked itself, so a child that nobody waits on costs its
parents nothing, not even a reference. A child is registered with its parents, and with the clock
for its deadline, only while it has callbacks.

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
    """In a forked child: threads of the parent may have held some of them."""
    _LOCKS[:] = [threading.RLock() for _ in _LOCKS]


on_fork(_renew_locks)


class _End(enum.Enum):
    """How a context ended."""

    CANCELLED = "cancelled"
    DEADLINE = "deadline"


class Waker(functools.partial[object]):
    """A callback of the library itself, which is called again if it is interrupted."""

    __slots__ = ()


class Registration:
    """The registration of a callback with a context; :meth:`remove` cancels it."""

    __slots__ = ("_callback", "_context")

    def __init__(self, context: Node, callback: Callable[[], object] | None):
        self._context = context
        self._callback = callback

    def remove(self) -> None:
        """Remove the callback, unless it has begun. Calling twice does no harm."""
        _unlink([self])

    def _tell(self, end: _End, reason: str, untold: list[_Untold]) -> None:
        """The context has ended. A second call does nothing."""
        self._run()

    def _run(self) -> None:
        # Asked before it is taken: an interruption in between would lose it.
        postponed = is_kept_free() and not is_own(self._callback)
        callback, self._callback = self._callback, None  # once, and free what it refers to
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
    """Callbacks of users that must not run on the thread that ended their context."""

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
    """The registration of a child with its parent."""

    __slots__ = ("child", "removed")

    def __init__(self, parent: Node, child: Node):
        super().__init__(parent, None)
        self.child = child
        self.removed = False  # perhaps before it was registered; changes under the parent's lock

    @override
    def _tell(self, end: _End, reason: str, untold: list[_Untold]) -> None:
        self.child._settle(end, reason, untold)


class Node:
    """A node of the tree; its public methods are documented on ``Context``."""

    # Class-level defaults: a context is made for every task, so making one must be cheap.
    _parents: tuple[Node, ...] = ()
    _deadline: float | None = None
    _own_deadline: float | None = None  # without those of its parents
    _clock: Clock = system_clock
    _end: _End | None = None
    _reason: str | None = None
    _callbacks: dict[Registration, None] | None = None
    _links: list[Registration | Timer] | None = None  # registrations with the parents and the clock
    _passes_through = False  # it can no longer be cancelled itself
    _stem: Node | None = None  # see _stem_for_children()
    _handle: weakref.ref[Node] | None = None  # of a stem: the context
    blocks: list[Any] | None = None  # those of it that are open: see ion_actors.context.current

    _endless = False  # the root

    def limit_to(self, deadline: float) -> None:
        """For the library only: set a deadline of its own, before anybody has asked for it."""
        for one in self._parents:
            theirs = one._deadline
            if theirs is not None and theirs < deadline and one._clock is self._clock:
                deadline = theirs
        self._deadline = deadline

    def _inherit(self, parents: tuple[Node, ...], deadline: float | None) -> None:
        if len(parents) == 1 and deadline is None:  # that of most tasks: the quick way
            one = parents[0]
            if one._deadline is None and one.blocks is None and not one._passes_through:
                self._parents = parents
                return
        if deadline is not None:
            self._own_deadline = deadline
        for one in parents:
            # Deadlines of another clock cannot be compared with this one's; such a parent still
            # ends its children.
            limit = one._deadline
            if limit is not None and one._clock is self._clock:
                deadline = limit if deadline is None else min(deadline, limit)
        self._deadline = deadline
        if len(parents) != 1 or parents[0]._passes_through:
            parents = _resolved(parents)
        for one in parents:
            if one.blocks is not None:
                parents = tuple(
                    one if one.blocks is None else one._stem_for_children() for one in parents
                )
                break
        self._parents = parents

    def _stem_for_children(self) -> Node:
        """The node that children refer to instead of this context, which was entered as a block.

        It ends when this one does. Once nobody refers to this one any more, nobody can cancel it,
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

    def is_over(self) -> bool:
        """Whether it has ended or its deadline has passed, for code that holds a lock.

        Unlike :attr:`cancelled`, this never ends the context, and so calls no callbacks.
        """
        todo: list[Node] = [self]
        while todo:
            one = todo.pop()
            if one._end is not None:
                return True
            if one._deadline is not None and one._clock.monotonic() >= one._deadline:
                return True
            todo.extend(one._parents)
        return False

    def _look_up(self) -> None:
        """End this context if a parent has ended, or else if a deadline has passed."""
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
                    one._parents = _resolved(one._parents)
            todo.extend(reversed(one._parents))
        if expired:
            self._expire()

    @property
    def reason(self) -> str | None:
        """Why it has ended, as text; None while it has not."""
        return self._reason if self.cancelled else None

    @property
    def deadline(self) -> float | None:
        """The moment at which it ends by itself (monotonic seconds of its clock), or None."""
        return self._deadline

    @property
    def clock(self) -> Clock:
        """The clock that its deadline and its waits use."""
        return self._clock

    def remaining(self) -> float | None:
        """Seconds until the deadline, 0.0 once it has ended, None if there is no deadline."""
        if self.cancelled:
            return 0.0
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - self._clock.monotonic())

    def check(self) -> None:
        """Return if the context has not ended.

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
        """End it and all its descendants. Returns False if it had ended before."""
        return not self.cancelled and self._finish(_End.CANCELLED, reason)

    def _expire(self) -> None:
        self._finish(_End.DEADLINE, "the deadline has passed")

    def _finish(self, end: _End, reason: str) -> bool:
        """End it and all its descendants. Returns False if it had ended before.

        Raises:
            BaseException: an interruption, such as Ctrl-C; all callbacks were called nevertheless.
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
        """Mark it as ended, and collect whom to tell. Returns False if it had ended before."""
        with self._lock:
            first = self._end is None
            if first:
                self._reason = reason  # before the end: whoever sees the end may read the reason
                self._end = end
                callbacks, links = self._callbacks, self._links
                self._callbacks = self._links = None
                untold.append([callbacks, links])  # no interruption is possible between these lines
        if self._stem is not None:
            self._stem._settle(end, reason, untold)  # also if the first call was interrupted
        return first

    # -- callbacks -------------------------------------------------------------------------

    def add_callback(self, callback: Callable[[], object]) -> Registration:
        """Call ``callback()`` once, when the context ends; now, if it has ended.

        It runs in the thread that ends the context. If that is a thread of the library that must
        not block (the clock's, for a deadline), it runs in another thread, after those that are
        due before it. An error in it is logged; Ctrl-C in it is raised by the call that ended the
        context, after all others were called. The returned registration removes it.

        Raises:
            RuntimeError: there is a deadline, no thread can be started for it, and there is no
                supervisor that could watch the time instead.
        """
        registration = Registration(self, callback)
        try:
            _place(deque((registration,)))
            if self._deadline is not None and not isinstance(callback, Waker):
                self._check_clock()
        except BaseException:  # Ctrl-C: the caller could not remove it
            registration.remove()
            raise
        return registration

    def _check_clock(self) -> None:
        # A thread that waits for a context watches the time itself. Others would never be told.
        if self._clock is system_clock and STANDBY.neglected and self._end is None:
            try:  # there may be threads again, and nobody has looked since
                _thread.start_new_thread(STANDBY.attend, ())
            except NO_MORE_THREADS as error:
                what = "can't start new thread, which a context's deadline needs"
                raise RuntimeError(what) from error

    def _keep(self, registration: Registration) -> _Kept:
        """Keep the registration, if it is of use. Returns what to do next: see :func:`_place`."""
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
            # Another thread may be about to link it. Doing it twice does no harm.
            return _Kept.UNLINKED if self._links is None else _Kept.DONE

    def _drop(self, registration: Registration, unneeded: list[Registration | Timer]) -> None:
        """Drop the registration. Adds to ``unneeded`` the links that are not needed any more."""
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
        """Register with the parents and the clock, for as long as there are callbacks.

        Adds its new links to ``todo``, to be placed; any old ones are removed.
        """
        self._parents = _resolved(self._parents)
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
            _unlink(links)  # the old ones; or the new ones, if they are not needed

    def pass_through(self) -> None:
        """For the library only: from now on, nothing but its parents can end this context.

        So its children follow its parents directly. Without this, a task that submits its
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
        """If this is one of the parents, replace it by its own parents."""
        before = parent if parent._stem is None else parent._stem
        if before not in self._parents:
            return
        parents = [one._parents if one is before else (one,) for one in self._parents]
        self._inherit(tuple(itertools.chain(*parents)), self._own_deadline)
        if self._callbacks:
            self._relink()


def _let_through(stem: weakref.ref[Node], _: object) -> None:
    """The context of this stem was garbage collected."""
    if (found := stem()) is not None:
        found.pass_through()


class _Kept(enum.Enum):
    """The outcome of registering something with a context."""

    DONE = "kept, or not needed any more"
    UNLINKED = "kept, and the context must register with its parents now"
    HAS_ENDED = "the context has ended, so the callback is due now"
    PASSES_THROUGH = "it must be registered with the context's parents instead"


# The callbacks and the links of a context that has ended, as far as they are not dealt with yet.
_Untold = list[Any]


def _tell(untold: list[_Untold], end: _End, reason: str) -> None:
    """Call all callbacks, depth first. What is done is removed, so this can be called again."""
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
            one._tell(end, reason, untold)  # unless it has been called
        callbacks.pop(one, None)
    _call_postponed()
    if interruption is not None:
        raise interruption


def _place(todo: deque[Registration]) -> None:
    """Register these with their contexts, and those contexts with their parents, and so on."""
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
    """Remove these registrations, and those that only they needed, and so on."""
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


def _resolved(contexts: tuple[Node, ...]) -> tuple[Node, ...]:
    """The same contexts, with those that pass through replaced by their own parents."""
    found: dict[Node, None] = {}
    todo = [*reversed(contexts)]
    while todo:
        one = todo.pop()
        if one._passes_through and one._end is None:
            todo.extend(reversed(one._parents))
        else:
            found[one] = None
    return tuple(found)
