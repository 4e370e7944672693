"""Who waits for tokens, and who of those is next. There is no lock in here: that is the gate's."""

from __future__ import annotations

from ion_actors.context import Turn
from ion_actors.ratelimit.places import Claim, Place

__all__ = ["Lines"]


class Lines:
    """All lines of one limiter: whoever wants tokens of several buckets stands in several.

    Ctrl-C may come in the midst of any change. So whoever waits is put into ``waiting`` first and
    taken out last, and :meth:`mend` makes all else from that.

    Args:
        shared: the place that all others share, if there is one. It has a line only for those
            who want nothing else.

    Attributes:
        waiting: all who wait, in order of arrival.
        fronts: those who are first in all of their lines.
    """

    def __init__(self, shared: Place | None) -> None:
        self._shared = shared
        self.waiting: dict[Turn[Claim], None] = {}
        self.fronts: dict[Turn[Claim], None] = {}

    def of(self, claim: Claim) -> tuple[Place, ...]:
        """Where it stands in line."""
        places = claim.places
        return places[:-1] if len(places) > 1 and places[-1] is self._shared else places

    def enter(self, turn: Turn[Claim]) -> None:
        """Stand at the end of its lines."""
        claim = turn.item
        self.waiting[turn] = None
        for place in self.of(claim):
            place.line[turn] = None
            place.wanted += claim.n
        if self._is_front(turn):
            self.fronts[turn] = None

    def leave(self, turn: Turn[Claim]) -> list[Turn[Claim]]:
        """Take it out of its lines. Returns who is at the front instead."""
        self.fronts.pop(turn, None)
        heirs = []
        for place in self.of(turn.item):
            del place.line[turn]
            place.wanted -= turn.item.n
            if place.line:
                heir = next(iter(place.line))
                if heir not in self.fronts and self._is_front(heir):
                    self.fronts[heir] = None
                    heirs.append(heir)
        del self.waiting[turn]
        return heirs

    def mend(self) -> None:
        """After an interruption: those whose wait is over leave, and are woken; the rest stay."""
        waiting, self.waiting, self.fronts = self.waiting, {}, {}
        for turn in waiting:
            for place in turn.item.places:
                place.line.clear()
                place.wanted = 0
        for turn in waiting:
            if turn.over:
                turn.wake()  # twice does no harm
            else:
                self.enter(turn)

    def _is_front(self, turn: Turn[Claim]) -> bool:
        return all(next(iter(place.line)) is turn for place in self.of(turn.item))
