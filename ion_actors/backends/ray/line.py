"""The tasks that stand in line for an actor: what was sent, seen from both sides.

::

    here:  NearLine  sent, not answered ──answered──▶ kept for its call
                            └──the line was cut──▶ given back
    there: FarLine   may begin? ──▶ begun ──▶ replied

Tasks are numbered in the order in which they are sent, and begin in that order. The line is *cut*
when a task has failed (what follows may depend on what its pool makes of that), when a reply is too
large for the journal, or when the other side asks for what has not begun. Then no task begins that
was sent before: each of them is given back, and those that are sent later belong to the next
*stretch* of the line. A cut says which task was the last to begin, so both sides agree on what has
begun and what has not.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ion_actors.backends.ray.wire import CallEnd, Reply

if TYPE_CHECKING:
    from ion_actors.backends.process.parent.inlet import Inlet
    from ion_actors.backends.process.transport.messages import Cancel
    from ion_actors.backends.protocol import Task
    from ion_actors.context import Registration

__all__ = ["FarLine", "NearLine", "Notes", "Sent"]


class Sent:
    """A task that was sent."""

    __slots__ = ("alone", "cancel", "error", "followed", "inlet", "news", "number", "reply", "task")

    def __init__(self, number: int, task: Task) -> None:
        self.number = number
        self.task = task
        self.alone = False  # nothing is sent with it, or while it runs
        self.reply: Reply | None = None
        self.error: BaseException | None = None  # instead of a reply
        self.cancel: Cancel | None = None  # that it must end
        self.followed: Registration | None = None  # with its context
        self.inlet: Inlet | None = None  # for its items, if it is a stream
        self.news: list[Any] = []  # that came before its turn

    @property
    def answered(self) -> bool:
        """Whether it is known what became of it."""
        return self.reply is not None or self.error is not None


class NearLine:
    """The side that sends. One thread changes it; others may look at its head."""

    def __init__(self) -> None:
        self.stretch = 0
        self.calls = 0  # of Ray's, that carry tasks of this stretch
        self.arrived = 0  # the number of the last reply
        self._number = 0
        self._waiting: deque[Sent] = deque()  # not answered, in order
        self._sent: dict[int, Sent] = {}  # whose call is still to come, by the task's id
        # By their numbers, replies that came before those of earlier tasks: Ray tells of the ends
        # of calls in any order.
        self._early: dict[int, Reply] = {}

    def __len__(self) -> int:
        """How many are not answered."""
        return len(self._waiting)

    @property
    def head(self) -> Sent | None:
        """The first that is not answered: the one that runs there, as far as is known."""
        waiting = self._waiting
        try:
            return waiting[0]
        except IndexError:
            return None

    def add(self, task: Task) -> Sent:
        """A task is about to be sent."""
        self._number += 1
        sent = Sent(self._number, task)
        self._waiting.append(sent)
        self._sent[id(task)] = sent
        return sent

    def find(self, task: Task) -> Sent | None:
        """The task, if it was sent and its call is still to come."""
        return self._sent.get(id(task))

    def numbered(self, number: int) -> Sent | None:
        """That one, likewise."""
        return next((one for one in self._sent.values() if one.number == number), None)

    def rest(self) -> list[Sent]:
        """All whose call is still to come."""
        return list(self._sent.values())

    def leave(self, sent: Sent) -> None:
        """Its call is over."""
        self._sent.pop(id(sent.task), None)
        if sent.inlet is not None:
            sent.inlet.close()

    def take(self, answer: CallEnd) -> tuple[list[Sent], list[Sent]]:
        """Take an answer. Returns who is answered, and who has not begun and is out of the line."""
        waiting, answered = self._waiting, []
        for reply in answer.replies:
            if waiting and reply.number >= waiting[0].number:  # else it came before
                self._early[reply.number] = reply
        while waiting and waiting[0].number in self._early:
            answered.append(waiting.popleft())
            self.arrived = answered[-1].number
            answered[-1].reply = self._early.pop(self.arrived)
        if answer.stretch != self.stretch:
            return answered, []
        if not answer.cut:
            self.calls -= not answer.asked
            return answered, []
        self.stretch, self.calls = self.stretch + 1, 0
        return answered, self._cut(answer.begun)

    def fail(self, numbers: range, error: BaseException) -> list[Sent]:
        """A call with those tasks was not made. Returns them."""
        failed = [one for one in self._waiting if one.number in numbers]
        for one in failed:
            one.error = error
            self._waiting.remove(one)
        self.calls -= 1
        return failed

    def lose(
        self, begun: int, replies: Mapping[int, bytes], make_error: Callable[[], BaseException]
    ) -> tuple[list[Sent], list[Sent]]:
        """The actor has died, and this was left. Returns as :meth:`take`."""
        unbegun = self._cut(begun)
        ended = list(self._waiting)
        self._waiting.clear()
        for one in ended:
            one.reply = self._early.pop(one.number, None)
            if one.reply is None and (body := replies.get(one.number)) is not None:
                one.reply = Reply.of(body)
            if one.reply is None:
                one.error = make_error()
        return ended, unbegun

    def lose_all(self, make_error: Callable[[], BaseException]) -> list[Sent]:
        """The actor has died, and nothing is known of what it had begun."""
        ended = list(self._waiting)
        self._waiting.clear()
        for one in ended:
            one.reply = self._early.pop(one.number, None)
            if one.reply is None:
                one.error = make_error()
        return ended

    def _cut(self, begun: int) -> list[Sent]:
        unbegun: deque[Sent] = deque()
        while self._waiting and self._waiting[-1].number > begun:
            unbegun.appendleft(self._waiting.pop())
        for one in unbegun:
            self.leave(one)
        return list(unbegun)


class Notes(Protocol):
    """Where the far side notes what it has done."""

    def begin(self, number: int, /) -> None:
        """The task with that number begins."""
        ...

    def arrived(self, number: int, /) -> None:
        """The replies up to that one have arrived."""
        ...

    def note(self, number: int, reply: bytes, /) -> bool:
        """Note a task's reply. Returns whether there was room for it."""
        ...


class FarLine:
    """The side that runs the tasks.

    Args:
        notes: where what happens is noted; None: nowhere, and so tasks come one by one.
    """

    def __init__(self, notes: Notes | None) -> None:
        self._notes = notes
        self._lock = threading.Lock()  # guards all below: that a task begins, or the line is cut
        self._stretch = 0
        self._begun = 0
        self._next: int | None = None  # the number that comes next in this stretch
        self._replies: list[Any] = []  # of the current call, ended

    def enter(self, stretch: int, first: int, count: int, arrived: int) -> None:
        """A call with so many tasks comes."""
        with self._lock:
            self._replies = []
            if stretch == self._stretch:
                if self._next not in (None, first):  # one was lost on the way
                    self._cut()
                else:
                    self._next = first + count
        if self._notes is not None:
            self._notes.arrived(arrived)

    def begin(self, stretch: int, number: int) -> bool:
        """Whether a task may begin; if so, it has."""
        with self._lock:
            if stretch != self._stretch:
                return False
            self._begun = number
            if self._notes is not None:
                self._notes.begin(number)
            return True

    def end(self, stretch: int, reply: Reply) -> None:
        """A task has ended like this."""
        notes = self._notes
        kept = reply.whole and (notes is None or notes.note(reply.number, reply.body()))
        with self._lock:
            if stretch == self._stretch and not (kept and reply.fine):
                self._cut()
            self._replies.append(reply)

    def answer(self, stretch: int) -> CallEnd:
        """What is to be said at the end of a call."""
        with self._lock:
            return CallEnd(stretch, self._begun, stretch != self._stretch, False, self._replies)

    def cut(self, stretch: int) -> CallEnd:
        """Cut the line, unless it has been cut. Returns what is known by now."""
        with self._lock:
            if stretch == self._stretch:
                self._cut()
            replies = [one for one in self._replies if one.whole]
            return CallEnd(stretch, self._begun, True, True, replies)

    def cut_now(self) -> None:
        """Cut it, whatever stretch it is."""
        with self._lock:
            self._cut()

    def _cut(self) -> None:
        self._stretch += 1
        self._next = None
