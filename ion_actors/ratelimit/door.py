"""A door that lets in one at a time, in the order of arrival: threads and coroutines alike."""

from __future__ import annotations

import threading
from collections import OrderedDict

from ion_actors.context import Turn

__all__ = ["Door"]


class Door:
    """What to wait in with ``wait_turn`` or ``await_turn``; who is through must :meth:`leave`."""

    def __init__(self) -> None:
        # Guards the two below. Reentrant, since a finalizer or a signal handler may come along
        # while its thread is in here.
        self._lock = threading.RLock()
        self._line: OrderedDict[Turn[None], None] = OrderedDict()
        self._inside = False

    def join(self, turn: Turn[None], /) -> bool:
        """See :meth:`ion_actors.context.turns.Line.join`."""
        with self._lock:
            if self._inside:
                self._line[turn] = None
                return False
            self._inside = True
            return True

    def give_up(self, turn: Turn[None], error: BaseException | None, /) -> bool:
        """See :meth:`ion_actors.context.turns.Line.give_up`."""
        with self._lock:
            if turn.over:
                return False
            turn.over = True
            turn.error = error
            del self._line[turn]
        turn.wake()
        return True

    def forsake(self, _: Turn[None], /) -> None:
        """See :meth:`ion_actors.context.turns.Line.forsake`."""
        self.leave()

    def leave(self) -> None:
        """Let the next one in."""
        with self._lock:
            if not self._line:
                self._inside = False
                return
            turn, _ = self._line.popitem(last=False)
            turn.over = True
        turn.wake()

    @property
    def waiting(self) -> int:
        """How many stand in line, without the one inside."""
        return len(self._line)
