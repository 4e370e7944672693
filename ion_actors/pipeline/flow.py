"""Where the items of a pipeline are, and what may happen to them next.

Decisions only: it knows neither threads nor pools nor clocks, and calls nothing. A driver pulls the
source, begins jobs, says how they ended and what time it is, and takes the output.

::

    pull ──▶ station ──▶ station ──▶ … ──▶ the way out (one item) ──▶ take
             cells       cells

An item that enters a station takes a cell there, until all that came of it was handed on. An item
moves only if there is room for it. So no more are in flight than there are cells, besides one on
the way out and one in the driver's hands.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Cell", "Flow", "Shape", "Station", "Work"]


class Work(enum.Enum):
    """How a stage is worked."""

    TASK = "task"  #: each item is a task of a pool
    CALL = "call"  #: each item is a call by the driver, on its way to the next station
    BATCH = "batch"  #: items are gathered


@dataclass(frozen=True, slots=True)
class Shape:
    """What the flow has to know of a stage.

    Attributes:
        work: how it is worked.
        window: how many cells it has; the size of a batch.
        ordered: whether what comes out is in the order of what came in.
        within: seconds after which a batch is closed, counted from its first item.
    """

    work: Work
    window: int = 1
    ordered: bool = True
    within: float | None = None


class Cell:
    """One item in one station, until what came of it was handed on."""

    __slots__ = ("item", "outputs", "stage")

    def __init__(self, stage: int, item: Any) -> None:
        self.stage = stage
        self.item = item
        self.outputs: deque[Any] | None = None  # None until the job has ended


class Station:
    """The cells of one stage, and its numbers.

    Attributes:
        items_in, items_out: how many items came in, and how many went on.
        failed: how many jobs ended with an error.
        skipped: how many of them were left out.
        busy: seconds that jobs took.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.items_in = self.items_out = self.failed = self.skipped = 0
        self.busy = 0.0
        self.count = 0  # cells that are taken
        self.waiting: deque[Cell] = deque()  # whose jobs have not begun
        self.held = False  # no job may begin now
        self.due: float | None = None  # when the batch that is gathered is to be closed
        self._line: deque[Cell] = deque()  # in the order in which they may go on
        self._batch: list[Any] = []

    @property
    def free(self) -> bool:
        """Whether a cell is free."""
        return self.count < self.shape.window and not self._closed

    @property
    def _closed(self) -> bool:
        return self.shape.work is Work.BATCH and bool(self._line)

    def enter(self, stage: int, item: Any, now: float) -> None:
        """An item comes in."""
        self.items_in += 1
        self.count += 1
        if self.shape.work is Work.BATCH:
            self._gather(stage, item, now)
            return
        cell = Cell(stage, item)
        self.waiting.append(cell)
        if self.shape.ordered:
            self._line.append(cell)

    def _gather(self, stage: int, item: Any, now: float) -> None:
        if not self._batch and self.shape.within is not None:
            self.due = now + self.shape.within
        self._batch.append(item)
        if len(self._batch) >= self.shape.window:
            self.close_batch(stage)

    def close_batch(self, stage: int) -> None:
        """What was gathered, if anything was, is a batch."""
        if self._batch:
            cell = Cell(stage, None)
            cell.outputs = deque([self._batch])
            self._line.append(cell)
            self._batch, self.due = [], None

    def end(self, cell: Cell, outputs: Iterable[Any]) -> None:
        """A job has ended, and these are to be handed on."""
        cell.outputs = deque(outputs)
        cell.item = None
        if not self.shape.ordered:
            self._line.append(cell)

    @property
    def ready(self) -> bool:
        """Whether there is something to hand on. Frees the cells of which nothing is left."""
        while self._line and self._line[0].outputs is not None:
            if self._line[0].outputs:
                return True
            self._free_first()
        return False

    def leave(self) -> Any:
        """The next item to hand on."""
        outputs = self._line[0].outputs
        assert outputs
        item = outputs.popleft()
        self.items_out += 1
        if not outputs:
            self._free_first()
        return item

    def _free_first(self) -> None:
        self._line.popleft()
        # A batch is handed on as a whole, and nothing is gathered meanwhile.
        self.count = 0 if self.shape.work is Work.BATCH else self.count - 1

    def clear(self) -> None:
        """Forget what is here."""
        self.count, self.due = 0, None
        self.waiting.clear()
        self._line.clear()
        self._batch = []


class Flow:
    """See the module.

    Args:
        shapes: of the stages, in their order.

    Attributes:
        timed: whether it has to be told the time.
    """

    def __init__(self, shapes: Sequence[Shape]) -> None:
        self.stations = [Station(shape) for shape in shapes]
        self.pulled = self.given = 0
        self._exhausted = self._stopped = False
        self._way_out: list[Any] = []
        self._gathers = any(shape.work is Work.BATCH for shape in shapes)
        self.timed = any(shape.within is not None for shape in shapes)
        self._now = 0.0

    # -- the source and the output -----------------------------------------------------------

    @property
    def wants(self) -> bool:
        """Whether the source may be pulled now."""
        return not self._exhausted and self._has_room(0)

    def pull(self, item: Any) -> None:
        """The source has given an item."""
        self.pulled += 1
        self._put(0, item)

    def exhaust(self) -> None:
        """The source has no more."""
        self._exhausted = True

    @property
    def ready(self) -> bool:
        """Whether there is an output to take."""
        return bool(self._way_out)

    def take(self) -> Any:
        """The output."""
        self.given += 1
        return self._way_out.pop()

    @property
    def over(self) -> bool:
        """Whether nothing more will come out."""
        return (
            self._exhausted
            and not self._way_out
            and all(not station.count for station in self.stations)
        )

    # -- moving on ---------------------------------------------------------------------------

    def hand_on(self) -> None:
        """Move each item as far as there is room for it."""
        while self._hand_on_once() and self._gathers:
            pass  # a batch that has become full may go on, too

    def _hand_on_once(self) -> bool:
        self._close_last_batches()
        moved = False
        for stage in reversed(range(len(self.stations))):  # what goes on makes room
            station = self.stations[stage]
            while station.ready and self._has_room(stage + 1):
                self._put(stage + 1, station.leave())
                moved = True
        return moved

    def _close_last_batches(self) -> None:
        """Nothing more comes to a station if all before it are empty."""
        if not (self._exhausted and self._gathers):
            return
        for stage, station in enumerate(self.stations):
            if station.shape.work is Work.BATCH:
                station.close_batch(stage)
            if station.ready or station.count:
                return

    def _has_room(self, stage: int) -> bool:
        while stage < len(self.stations):
            station = self.stations[stage]
            if not station.free:
                return False
            if station.shape.work is not Work.CALL:
                return True
            stage += 1  # what passes a call goes on at once
        return not self._way_out

    def _put(self, stage: int, item: Any) -> None:
        if stage < len(self.stations):
            self.stations[stage].enter(stage, item, self._now)
        else:
            self._way_out.append(item)

    # -- jobs --------------------------------------------------------------------------------

    def next_job(self) -> Cell | None:
        """What is to be begun now: the latest stage first, since what leaves makes room."""
        for station in reversed(self.stations):
            if station.waiting and not station.held:
                return station.waiting.popleft()
        return None

    def hold(self, stage: int, *, held: bool) -> None:
        """Whether jobs of this stage must wait: there is no room for them where they are done."""
        self.stations[stage].held = held or self._stopped

    def end(self, cell: Cell, outputs: Iterable[Any], busy: float = 0.0) -> None:
        """A job has ended after so many seconds, and these came of it."""
        station = self.stations[cell.stage]
        station.busy += busy
        station.end(cell, outputs)

    def fail(self, cell: Cell) -> None:
        """A job has ended with an error. It is to be skipped, or the flow to be closed."""
        self.stations[cell.stage].failed += 1

    def skip(self, cell: Cell) -> None:
        """Leave out what would have come of a job that has failed."""
        station = self.stations[cell.stage]
        station.skipped += 1
        station.end(cell, ())

    # -- time and the end --------------------------------------------------------------------

    @property
    def due(self) -> float | None:
        """When the driver is to say what time it is, if nothing happens before."""
        return min((one.due for one in self.stations if one.due is not None), default=None)

    def tick(self, now: float) -> None:
        """It is so late."""
        self._now = now
        for stage, station in enumerate(self.stations):
            if station.due is not None and station.due <= now:
                station.close_batch(stage)

    def stop(self) -> None:
        """A job has failed: no task begins any more, and only what is done goes on."""
        self._exhausted = self._stopped = True
        for station in self.stations:
            station.held = station.shape.work is Work.TASK

    def close(self) -> None:
        """Nothing more is pulled, and what is in flight is forgotten."""
        self._exhausted = True
        self._way_out.clear()
        for station in self.stations:
            station.clear()
