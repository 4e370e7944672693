"""A lock that lets in one caller at a time, in order of arrival: threads and coroutines alike."""

from __future__ import annotations

import threading
from collections import OrderedDict

from ion_actors.context import Turn
from ion_actors.forking import HOOKS_RAN, renew_after_fork, run_hooks

__all__ = ["FairLock"]


class FairLock:
    """Wait for it with ``wait_turn`` or ``await_turn``; a caller that is served must :meth:`leave`.

    Attributes:
        held_up: whether the caller inside has to wait there; only that caller sets this.
    """

    def __init__(self) -> None:
        self._reset()
        renew_after_fork(self)

    def _reset(self) -> None:
        # Guards all in here. Reentrant, since a finalizer or a signal handler may use it while
        # its thread holds the lock.
        self._lock = threading.RLock()
        self._line: OrderedDict[Turn[None], None] = OrderedDict()
        self._inside = False
        self.held_up = False

    def after_fork(self) -> None:
        """In a forked child: no caller is inside, and none waits."""
        line = self._line
        self._reset()
        for turn in line:
            if not turn.over:
                # The waiter is this very thread if a signal handler has forked; or a coroutine.
                turn.error = RuntimeError("this process was forked while it waited")
                turn.over = True
                turn.wake()

    def join(self, turn: Turn[None], /) -> bool:
        """See :meth:`ion_actors.context.turns.Line.join`."""
        if not HOOKS_RAN[0]:
            run_hooks()
        try:
            with self._lock:
                self._line[turn] = None
                self._serve()
                return turn.over
        except BaseException:  # Ctrl-C: the caller will neither give it up nor leave
            if not self.give_up(turn, None) and turn.error is None:
                self.leave()
            raise

    def give_up(self, turn: Turn[None], error: BaseException | None, /) -> bool:
        """See :meth:`ion_actors.context.turns.Line.give_up`."""
        ended = False
        try:
            with self._lock:
                if turn.over:
                    return False
                turn.error = error
                turn.over = ended = True
            self._serve(turn)
        except BaseException:
            if ended:
                self._serve(turn)
            raise
        return ended

    def forsake(self, _: Turn[None], /) -> None:
        """See :meth:`ion_actors.context.turns.Line.forsake`."""
        self.leave()

    def leave(self) -> None:
        """Let the next one in."""
        left = False
        try:
            with self._lock:
                self.held_up = self._inside = False
                left = True
            self._serve()
        except BaseException:  # Ctrl-C: the caller will not leave a second time
            if not left:
                self.held_up = self._inside = False
            self._serve()
            raise

    def _serve(self, leaving: Turn[None] | None = None) -> None:
        """Let in the next one, and wake those whose wait has ended, anywhere in the line.

        It may be called again at any time.
        """
        with self._lock:
            if leaving is not None:
                leaving.wake()
                self._line.pop(leaving, None)
            for turn in list(self._line):
                if not turn.over:
                    if self._inside:
                        break
                    self._inside = turn.over = True
                turn.wake()  # twice does no harm
                self._line.pop(turn, None)

    @property
    def waiting(self) -> int:
        """How many wait, in line or inside."""
        if not HOOKS_RAN[0]:
            run_hooks()
        return len(self._line) + self.held_up
