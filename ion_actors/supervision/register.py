"""Who of a supervisor's children is there, and what others are told of them.

It is the supervisor's actor's own. Others see the snapshots that it leaves in the core, and get the
news by the bus.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ion_actors.supervision.events import Lifecycle, LifecycleEvent
from ion_actors.supervision.report import ChildInfo, ChildKind
from ion_actors.supervision.seat import Seat
from ion_actors.supervision.words import Kid, SupervisorState

if TYPE_CHECKING:
    from ion_actors.supervision.core import TreeCore
    from ion_actors.supervision.living import Living
    from ion_actors.supervision.machine import Machine

__all__ = ["Register"]


class Register:
    """See the module."""

    def __init__(self, core: TreeCore) -> None:
        self.seats: dict[str, Seat] = {}  # of the children that live
        self.errors: dict[str, BaseException | None] = {}  # what each last failed with
        self._core = core
        self._now = core.spec.context.clock.monotonic
        self._specs = {one.id: one for one in core.spec.children}
        self._lives: dict[str, int] = {}  # how often each was started
        self._kinds: dict[str, ChildKind] = {}
        self._news: list[LifecycleEvent] = []  # to be told as soon as others can see it

    # -- who is there ----------------------------------------------------------------------

    def begin_life(self, child: str) -> Seat:
        """A child is about to be started: its seat."""
        lives = self._lives[child] = self._lives.get(child, 0) + 1
        seat = self.seats[child] = Seat(self._specs[child], lives - 1)
        return seat

    def take_seat(self, seat: Seat, living: Living) -> None:
        """The child was made."""
        seat.living = living
        self._kinds[seat.spec.id] = living.kind

    def leave(self, seat: Seat) -> None:
        """The child is not there any more."""
        del self.seats[seat.spec.id]

    def is_stale(self, seat: Seat) -> bool:
        """Whether it was abandoned."""
        return self.seats.get(seat.spec.id) is not seat

    # -- what is told ----------------------------------------------------------------------

    def note(
        self,
        kind: Lifecycle,
        seat: Seat | None,
        error: BaseException | None = None,
        because: str | None = None,
    ) -> None:
        """Something has happened to a child, or to the supervisor itself.

        Args:
            kind: what.
            seat: whose; None for the supervisor.
            error: what it failed with.
            because: the id of the child whose restart this belongs to.
        """
        path = (self._core.spec.name,) if seat is None else (self._core.spec.name, seat.spec.id)
        because = None if seat is not None and because == seat.spec.id else because
        restarts = 0 if seat is None else seat.restarts
        self._news.append(LifecycleEvent(kind, path, self._now(), restarts, because, error))

    def tell_news(self) -> None:
        """Tell what was noted."""
        news, self._news = self._news, []
        for event in news:
            self._core.bus.publish(event)

    def show(self, machine: Machine) -> None:
        """Let others see how it is, without asking."""
        self._core.infos = tuple(self._info(kid) for kid in machine.kids)
        self._core.living = {
            name: seat.living for name, seat in self.seats.items() if seat.living is not None
        }
        if machine.state is not SupervisorState.STOPPED:  # that comes last
            self._core.state = machine.state

    def _info(self, kid: Kid) -> ChildInfo:
        seat = self.seats.get(kid.id)
        handle = seat.living.handle if seat is not None and seat.living is not None else None
        return ChildInfo(
            id=kid.id,
            state=kid.state,
            kind=self._kinds.get(kid.id),
            child=handle,
            restart=kid.restart,
            restarts=max(0, self._lives.get(kid.id, 0) - 1),
            error=self.errors.get(kid.id),
        )
