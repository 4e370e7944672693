"""How many workers a pool should have: pure decisions on what it has done lately.

A pool has *too few* workers if tasks wait, all workers are busy, and more of them would end more
tasks. Only a trial can tell the last. So the size climbs a hill::

    measure how many tasks end in a second ──▶ try another size ──▶ measure again
              ▲                                     │ kept, if the workers that make the
              └─────── the other way, or a rest ◀───┘ difference are (or are not) worth it

A trial that is kept is followed by the next one at once; one that is not is undone. When trials in
both directions have failed, the next comes after a rest, which doubles each time. So the size stays
where it is good, and trials become rare. If many more or fewer tasks end without a trial, something
has changed: trials begin at once. A worker that waits for a busy server adds nothing, and goes
again; so does one that competes for a CPU.

A pool of which all workers are busy for long with the same tasks cannot be measured. It grows a
little, so that what waits is not held up, and the less often the longer that lasts.

A pool in which workers are idle needs no trial: it shrinks, slowly, to a little more than what
was busy of late.

The idea is that of hill climbing for thread pools (Hellerstein, Morrison and Eilebrecht 2010, in
.NET), with a trial and a comparison in place of its filter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ion_actors._arguments import make_plain, number, whole_number

__all__ = ["Adaptive", "PoolLoad", "Sizing"]

# Fewer ends than this tell nothing: after a bold trial, after a careful one.
_ENDS = 15, 60
# The same for each worker. (All may end at one moment, and that is an error of one for each.)
_ENDS_PER_WORKER = 5, 8
# What each worker has to add, in parts of what one does on average, so that a trial with more is
# kept; and what it may add at most, so that one with fewer is. In between, the size stays.
_GAIN, _LOSS = 0.4, 0.3
_BOLD, _CAREFUL = 2.0, 1.25  # by what a trial changes the size
_LEAST = 2  # workers: the change of a small pool would not be noticed otherwise
_RESTS = 3, 8  # measurements after trials that failed: at first, and at the most
_CHANGED = 1.5  # so many times more or less is no noise
_IDLE_LOOKS = 5  # before a pool shrinks
_PATIENCE = 20  # looks, while not even one task for each worker ends
_SPARE = 1.25  # how many workers an idle pool keeps, in parts of what was busy


@dataclass(frozen=True, slots=True)
class Adaptive:
    """A pool's size that follows its work: ``Pool(size=Adaptive(2, 64))``.

    For work that waits: for servers, disks, other processes. The pool begins with ``minimum``
    workers. While tasks wait, it has more, as long as these end more tasks; it has fewer when
    fewer end as many, or when workers are idle.

    Args:
        minimum: the least number of workers, 1 or more.
        maximum: the most, no less than that.
        interval: seconds between two looks at the pool's numbers, more than 0. To compare two sizes
            takes that long, and at least 60 tasks and 8 for each worker (while it grows from the
            start: 15 and 5).

    Raises:
        TypeError, ValueError: an argument makes no sense.
    """

    minimum: int
    maximum: int
    interval: float = 0.5

    def __post_init__(self) -> None:
        whole_number("minimum", self.minimum, minimum=1)
        whole_number("maximum", self.maximum, minimum=1)
        if self.maximum < self.minimum:
            raise ValueError(
                f"maximum must be at least minimum ({self.minimum}), not {self.maximum!r}"
            )
        number("interval", self.interval, minimum=0.0)
        if not 0 < self.interval < math.inf:
            raise ValueError(f"interval must be more than 0 seconds, not {self.interval!r}")
        make_plain(self, "minimum", "maximum", "interval")

    def begin(self) -> Sizing:
        """What is known of a new pool with these bounds."""
        return Sizing(self, self.minimum)

    def hold(self, size: float) -> int:
        """The nearest size within the bounds."""
        return int(min(max(size, self.minimum), self.maximum))


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """The numbers of a pool at one moment.

    Attributes:
        now: the moment, in seconds.
        size: how many workers it is to have.
        running: how many tasks run.
        backlog: how many tasks could begin, if there were workers for them.
        ended: how many tasks have ended since it began.
    """

    now: float
    size: int
    running: int
    backlog: int
    ended: int

    @property
    def is_saturated(self) -> bool:
        """Whether tasks wait and all workers are busy."""
        return self.backlog > 0 and self.running >= self.size


@dataclass(frozen=True, slots=True)
class _Trial:
    """Another size is tried: what there was before."""

    size: int
    rate: float  # tasks that ended in a second


@dataclass(frozen=True, slots=True)
class Sizing:
    """What is known of a pool, and its size by that. It is never changed; see :meth:`after`."""

    bounds: Adaptive
    size: int
    since: PoolLoad | None = None  # the measurement began
    settled: bool = True  # what began before the last change of size has ended
    rate: float | None = None  # of the last measurement at this size
    trial: _Trial | None = None  # under way
    upwards: bool = True  # where the next trial goes
    step: float = _BOLD  # by what it changes the size
    rest: int = 0  # measurements until then
    pause: int = _RESTS[0]  # the rest after it, if it fails
    looks: int = 0  # since the measurement began
    patience: int = _PATIENCE  # for how many of them next to nothing may end
    busy: tuple[int, ...] = ()  # how many ran at the last looks, while workers were idle

    def after(self, load: PoolLoad) -> Sizing:
        """What is known after another look, and the size that the pool is to have now."""
        if load.size != self.size:  # somebody else has set it
            return replace(self.bounds.begin(), size=self.bounds.hold(load.size))
        if not load.is_saturated:
            return self._after_idle_look(load)
        if self.since is None:
            return replace(self, since=load, looks=0, busy=())
        ends, seconds = load.ended - self.since.ended, load.now - self.since.now
        if ends < (self._enough if self.settled else self.size) or seconds <= 0:
            return self._after_wait(load, ends)
        begun = replace(self, since=load, looks=0, busy=())
        if not self.settled:
            return replace(begun, settled=True)
        return replace(begun, patience=_PATIENCE)._after_measurement(ends / seconds)

    @property
    def _enough(self) -> int:
        """How many tasks have to end until a measurement says something."""
        careful = self.step < _BOLD
        return max(_ENDS[careful], _ENDS_PER_WORKER[careful] * self.size)

    # -- workers are idle, or nothing waits ------------------------------------------------

    def _after_idle_look(self, load: PoolLoad) -> Sizing:
        """No measurement goes on, since more workers would do nothing."""
        ended = replace(self, since=None, settled=True, rate=None, trial=None, rest=0)
        if load.backlog:
            return replace(ended, busy=())  # workers start, or keys are in the way
        busy = (*self.busy, load.running)
        if len(busy) < _IDLE_LOOKS:
            return replace(ended, busy=busy)
        wanted = max(math.ceil(max(busy) * _SPARE), self.size // 2)
        # What was learnt of other work may not hold for the next: begin as a new pool does.
        return replace(self.bounds.begin(), size=self.bounds.hold(min(wanted, self.size)))

    # -- all are busy, and tasks wait ------------------------------------------------------

    def _after_wait(self, load: PoolLoad, ends: int) -> Sizing:
        """The measurement goes on, unless the tasks that run keep it from ever ending."""
        looks = self.looks + 1
        if looks < self.patience or ends >= self.size:
            return replace(self, looks=looks, busy=())
        more = max(_LEAST, round(self.size * (_CAREFUL - 1)))
        return replace(
            self._resized(self.bounds.hold(self.size + more)),
            since=load, looks=0, patience=2 * self.patience, rate=None, trial=None, busy=(),
        )  # fmt: skip

    def _after_measurement(self, rate: float) -> Sizing:
        if self.trial is not None:
            return self._after_trial(self.trial, rate)
        if self.rate is not None and not 1 / _CHANGED < rate / self.rate < _CHANGED:
            rose = rate > self.rate
            step = _CAREFUL if rose else _BOLD
            return replace(self, upwards=rose, step=step, pause=_RESTS[0])._try(rate)
        if self.rest > 0:
            return replace(self, rest=self.rest - 1, rate=self.rate or rate)
        return self._try(rate)

    def _after_trial(self, trial: _Trial, rate: float) -> Sizing:
        """Keep the size that was tried, or go back."""
        # Of two sizes, the larger one is worth it if those who are more add enough to the rate.
        few, many = sorted([(trial.size, trial.rate), (self.size, rate)])
        part = _GAIN if self.upwards else _LOSS
        worth = many[1] >= few[1] * (1 + part * (many[0] / few[0] - 1))
        if worth is self.upwards:
            bolder = min(self.step**2, _BOLD)
            return replace(self, trial=None, step=bolder, pause=_RESTS[0])._try(rate)
        back = replace(self._resized(trial.size), rate=trial.rate, trial=None, step=_CAREFUL)
        return back if self.step > _CAREFUL else back._turned()

    def _turned(self) -> Sizing:
        """The next trial goes the other way; once both ways have failed, it comes after a rest."""
        if self.upwards and self.size > self.bounds.minimum:
            return replace(self, upwards=False, step=_CAREFUL, rest=0)
        return replace(
            self,
            upwards=self.size < self.bounds.maximum,
            step=_CAREFUL,
            rest=min(self.pause, 2 * self.size),  # a mistake of a small pool is mended soon
            pause=min(2 * self.pause, _RESTS[1]),
        )

    def _try(self, rate: float) -> Sizing:
        """Begin the next trial, or rest where the bounds leave none."""
        factor = self.step if self.upwards else 1 / self.step
        change = max(abs(round(self.size * factor) - self.size), min(self.size, _LEAST))
        other = self.bounds.hold(self.size + (change if self.upwards else -change))
        if other == self.size:
            return replace(self, rate=rate)._turned()
        return replace(self._resized(other), rate=rate, trial=_Trial(self.size, rate))

    def _resized(self, size: int) -> Sizing:
        return replace(self, size=size, settled=False)
