"""One run of a pipeline, without its waits: jobs begin, end and fail.

The one who iterates drives: the source is pulled, items move and jobs begin in that thread (or
coroutine) only, while it waits for the next output. Workers, and whoever closes the run, leave a
note and wake the driver::

    the driver                                     workers, pools
    pulls ──▶ Flow ──▶ Submitter.line_up ────────▶ a task
    waits, and absorbs ◀── wake ◀── arrivals ◀──── it has ended; there is room for it

So no stage has a thread, and no worker ever waits for another stage: one worker is enough for all.
Between two outputs, while the consumer is busy, each stage goes on with what is in its window.
"""

from __future__ import annotations

import concurrent.futures
import functools
import reprlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ion_actors.awaitables import is_coroutine
from ion_actors.clock import Clock
from ion_actors.context import current_context, helper_here
from ion_actors.errors import ContextEnded
from ion_actors.futures import Future
from ion_actors.naming import printable, shown
from ion_actors.pipeline.flow import Cell, Flow
from ion_actors.pipeline.metrics import PipelineMetrics, StageMetrics
from ion_actors.pipeline.stages import Stage
from ion_actors.raised import add_note
from ion_actors.workerpool.submission.place import Place

__all__ = ["Run"]

_SHORT = reprlib.Repr()  # an item may be huge
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


class Run:
    """See the module.

    Args:
        stages: in their order.
        clock: what tells the time.

    Attributes:
        flow: where the items are.
        clock: what tells the time.
        closed: whether somebody has asked for the end.
        wake: wakes the driver; None while it does not wait.
    """

    def __init__(self, stages: Sequence[Stage], clock: Clock) -> None:
        self.flow = Flow([stage.shape for stage in stages])
        self.clock = clock
        self.closed = False
        self.wake: Callable[[], object] | None = None
        self._stages = stages
        self._places: dict[Cell, Place] = {}  # of the tasks under way
        self._lined_up: dict[Cell, None] = {}  # those that wait for room
        self._arrivals: deque[Cell | None] = deque()
        self._error: BaseException | None = None  # the first one, which ends the run
        self._began: float | None = None
        self._ended: float | None = None

    # -- what any thread may call --------------------------------------------------------------

    def arrive(self, cell: Cell | None, task: Future[Any] | None = None) -> None:
        """Something has happened: to this job, or outside of them all. Wakes the driver."""
        if self.closed and task is not None:
            _error_of(task)  # nobody else will ask for it, and it would be reported for that
            return
        self._arrivals.append(cell)  # first: who waits looks for it after it can be woken
        if (wake := self.wake) is not None:
            wake()

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._ended is not None

    @property
    def news(self) -> bool:
        """Whether there is something to absorb."""
        return bool(self._arrivals)

    def close(self) -> None:
        """Cancel what is under way, and have the driver end the run."""
        self.closed = True
        self._cancel()
        self.arrive(None)

    def _cancel(self) -> None:
        for place in list(self._places.values()):
            place.cancel()

    def metrics(self) -> PipelineMetrics:
        """The numbers of this moment."""
        began, now = self._began, self.clock.monotonic() if self._ended is None else self._ended
        numbers = tuple(
            StageMetrics(
                stage.name, station.items_in, station.items_out, station.failed, station.skipped,
                station.count, station.busy, 1 if stage.pool is None else stage.pool.size,
                stage.shape.window,
            )
            for stage, station in zip(self._stages, self.flow.stations, strict=True)
        )  # fmt: skip
        seconds = 0.0 if began is None else now - began
        return PipelineMetrics(numbers, self.flow.pulled, self.flow.given, seconds)

    # -- what the driver calls -----------------------------------------------------------------

    def begin(self) -> None:
        """The first output is asked for."""
        self._began = self.clock.monotonic()

    def advance(self) -> None:
        """Do all that can be done now without the source and without waiting.

        Raises:
            Cancelled, DeadlineExceeded: the current context has ended.
            Exception: a job has failed, and that ends the run.
        """
        current_context().check()
        while self._arrivals and not self.closed:
            cell = self._arrivals.popleft()
            if cell is not None:
                self._absorb(cell)
        if self.flow.timed:
            self.flow.tick(self.clock.monotonic())
        while not self.closed:
            self.flow.hand_on()
            job = self.flow.next_job()
            if job is None:
                break
            self._begin(job)
        # What is ready was finished before: it comes out first.
        if self._error is not None and not self.flow.ready and not self.closed:
            raise self._error

    def help(self) -> None:
        """Inside a task of a pool: run what waits for this very worker, until something is done."""
        if (helper := helper_here()) is None:
            return
        place = None
        try:
            for cell, place in list(self._places.items()):
                if self._arrivals:
                    return
                if cell not in self._lined_up:
                    helper.help(place.future)
        finally:
            del place  # the error of a task that is run here holds the frames below it, too

    def end(self) -> None:
        """No more outputs are taken: they were all, or a job failed, or the run was left."""
        self.closed = True
        self._ended = self.clock.monotonic()
        self.flow.close()
        self._cancel()
        for cell, place in self._places.items():
            if cell not in self._lined_up and place.future.done():
                _error_of(place.future)  # see arrive()
        self._places.clear()
        self._lined_up.clear()
        self._error = None  # its traceback holds this object

    # -- jobs ----------------------------------------------------------------------------------

    def _begin(self, cell: Cell) -> None:
        stage = self._stages[cell.stage]
        if stage.pool is None:
            self._call_here(stage, cell)
            return
        assert stage.call is not None
        try:
            place = stage.pool.line_up(functools.partial(self.arrive, cell), stage.call, cell.item)
            self._places[cell] = place
            self._enter(cell, place)
        except Exception as error:
            self._refused(stage, cell, error)
        finally:
            place = None  # type: ignore[assignment]  # its error may hold this frame

    def _enter(self, cell: Cell, place: Place) -> None:
        if place.enter():
            self._lined_up.pop(cell, None)
            self.flow.hold(cell.stage, held=False)
            place.future.add_done_callback(functools.partial(self.arrive, cell))
        else:
            self._lined_up[cell] = None
            self.flow.hold(cell.stage, held=True)  # one of a stage is enough in the line

    def _absorb(self, cell: Cell) -> None:
        place = self._places.get(cell)
        if place is None:
            return
        stage = self._stages[cell.stage]
        try:
            if cell in self._lined_up:
                try:
                    self._enter(cell, place)
                except Exception as error:
                    self._refused(stage, cell, error)
            elif place.future.done():
                del self._places[cell]
                self._finish(stage, cell, place.future)
        finally:
            del place

    def _finish(self, stage: Stage, cell: Cell, future: Future[Any]) -> None:
        error = _error_of(future)
        try:
            if error is not None:
                self._fail(stage, cell, error)
                return
            busy, found = future.result()
            self._keep(cell, found, busy)
        finally:
            del error, future

    def _call_here(self, stage: Stage, cell: Cell) -> None:
        assert stage.func is not None
        began = self.clock.monotonic()
        try:
            keep = stage.func(cell.item)
            if is_coroutine(keep):
                keep.close()
                raise TypeError("a filter that is a coroutine function must be given a pool")
            kept = bool(keep)
        except Exception as error:
            self._fail(stage, cell, error)
        else:
            self._keep(cell, kept, self.clock.monotonic() - began)

    def _keep(self, cell: Cell, found: Any, busy: float) -> None:
        if type(found) is bool:  # of a filter
            found = [cell.item] if found else ()
        self.flow.end(cell, found, busy)

    def _refused(self, stage: Stage, cell: Cell, error: Exception) -> None:
        """The pool has ended: no item of this stage can go on, whatever its ``on_error``."""
        if not self.closed and self._error is None:  # else the wait for room was called off
            self._note(error, stage, cell.item)
            raise error

    # -- errors --------------------------------------------------------------------------------

    def _fail(self, stage: Stage, cell: Cell, error: BaseException) -> None:
        """Skip the item, or call off all others."""
        try:
            if self.closed or self._error is not None:
                return  # it was cancelled for that
            current_context().check()  # its end is why
            self.flow.fail(cell)
            if self._skips(stage, cell, error):
                if stage.pool is not None and stage.func is not None:
                    stage.pool.report_skipped(stage.func, (cell.item,), error)
                self.flow.skip(cell)
                return
            self._note(error, stage, cell.item)
            self._error = error
            self.flow.stop()
            self._cancel()
        finally:
            del error  # its traceback holds this frame

    def _skips(self, stage: Stage, cell: Cell, error: BaseException) -> bool:
        decision: Any = stage.on_error
        if callable(decision):
            decision = decision(error, cell.item)
        if decision not in ("stop", "skip"):
            raise TypeError(f'on_error must return "stop" or "skip", not {shown(decision)}')
        return bool(decision == "skip")

    def _note(self, error: BaseException, stage: Stage, item: object) -> None:
        if not isinstance(error, ContextEnded) or not current_context().cancelled:
            name = printable(stage.name)
            add_note(error, f"in stage {name!r} of the pipeline, at the item {_short(item)}")


def _error_of(future: Future[Any]) -> BaseException | None:
    try:
        return future.exception()
    except concurrent.futures.CancelledError as cancelled:
        return cancelled
    finally:
        del future


def _short(item: object) -> str:
    """The item in few words, whatever its class does."""
    try:
        return printable(_SHORT.repr(item))
    except BaseException:
        return shown(item)
