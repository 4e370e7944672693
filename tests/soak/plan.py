"""What happens in a soak, drawn from a seed.

Each round is drawn from the seed and its own number, so that a single one can be played again.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["BACKENDS", "Blow", "Ending", "Job", "Lot", "Round", "Strike", "draw"]

BACKENDS = ("thread", "process", "asyncio")


class Lot(enum.Enum):
    """What a task, or a call that makes several tasks, does."""

    WELL = "returns what it was given"
    FAIL = "raises an exception"
    PANIC = "raises what is no Exception"
    EXIT = "raises SystemExit"
    PAUSES = "waits for a moment"
    DEAF = "is busy for a moment, and looks at nothing"
    BIG = "gets and returns a mebibyte"
    COROUTINE = "is a coroutine that waits for a moment"
    HUNGRY = "asks for more memory than there is"
    LATE = "waits for long, and has a time limit"
    UNWANTED = "waits for long, and is cancelled at once"
    NESTED = "submits a task to its own pool, and waits for that"
    BURST = "is a map of many tasks"
    STREAM = "is a stream"
    FLOCK = "is a number of tasks that a coroutine submits"
    KILLED = "kills its process"
    LEAVES = "ends its process"
    UNSENDABLE = "has an argument that cannot be pickled"


ANYWHERE = {
    Lot.WELL: 30, Lot.FAIL: 5, Lot.PANIC: 1, Lot.EXIT: 1, Lot.PAUSES: 6, Lot.DEAF: 3, Lot.BIG: 2,
    Lot.COROUTINE: 6, Lot.HUNGRY: 1, Lot.LATE: 3, Lot.UNWANTED: 4, Lot.BURST: 1, Lot.STREAM: 1,
    Lot.FLOCK: 1,
}  # fmt: skip
LOTS: dict[str, dict[Lot, int]] = {
    "thread": {**ANYWHERE, Lot.NESTED: 4},
    "asyncio": {**ANYWHERE, Lot.NESTED: 4},
    "process": {**ANYWHERE, Lot.KILLED: 1, Lot.LEAVES: 1, Lot.UNSENDABLE: 1},
}
ON_LOOPS = frozenset((Lot.COROUTINE, Lot.FLOCK))
#: They make more tasks than the one whose future is kept, or none that is.
UNCOUNTED = frozenset((Lot.NESTED, Lot.BURST, Lot.STREAM, Lot.FLOCK))


class Strike(enum.Enum):
    """What strikes the pool or the process."""

    RESIZE = "another number of workers"
    LOOK = "metrics, dump, snapshot and the queue are asked for"
    PAUSE = "the pool is paused, and goes on"
    PURGE = "what is queued is called off"
    COLLECT = "garbage is collected"
    JUMP = "clocks jump"
    SUSPEND = "the process stands still for a moment"
    FORK = "the process is forked, and the child uses a pool of its own"
    KILL = "a child process is killed"
    NO_DESCRIPTORS = "there are no more descriptors for a moment"
    NO_MEMORY = "there is no more memory, nor any thread, for a moment"
    DRAIN = "the pool is drained in the middle"
    CLOSE = "the pool is closed in the middle"


HARMLESS = (
    Strike.RESIZE, Strike.LOOK, Strike.PAUSE, Strike.COLLECT, Strike.JUMP, Strike.SUSPEND,
)  # fmt: skip
EXHAUSTING = frozenset((Strike.NO_DESCRIPTORS, Strike.NO_MEMORY))
ENDING = frozenset((Strike.DRAIN, Strike.CLOSE))


class Ending(enum.Enum):
    """How a pool ends that has not been ended before."""

    DRAIN = "drain"
    CLOSE = "close"
    BLOCK = "the end of its block"
    SHUTDOWN = "shutdown, which cancels what is queued"
    CONTEXT = "the end of its context"
    FORGOTTEN = "nobody refers to it any more"


@dataclass(frozen=True, slots=True)
class Job:
    """One thing that a submitter wants to have done."""

    lot: Lot
    verb: str = "submit"
    options: Mapping[str, Any] = field(default_factory=dict)
    cancel: bool = False  # its future, at once
    size: int = 1  # of what consists of several tasks

    @property
    def limited(self) -> bool:
        """Whether something of its own may call it off."""
        return self.cancel or not self.options.keys().isdisjoint(("timeout", "ttl"))


@dataclass(frozen=True, slots=True)
class Blow:
    """What a submitter does to all others."""

    strike: Strike
    amount: float  # from 0 to 1


@dataclass(frozen=True, slots=True)
class Round:
    """The life of one pool."""

    number: int
    backend: str
    size: int
    queue_size: int
    overflow: str
    helping: bool
    virtual: bool  # on a clock that jumps
    interrupted: bool  # the first submitter, again and again, by a signal
    submitters: tuple[tuple[Job | Blow, ...], ...]
    ending: Ending

    @property
    def strikes(self) -> frozenset[Strike]:
        """What strikes it."""
        found = (one for submitter in self.submitters for one in submitter)
        return frozenset(one.strike for one in found if isinstance(one, Blow))

    @property
    def exhausts(self) -> bool:
        """Whether anything at all may fail for want of memory, threads or descriptors."""
        return not self.strikes.isdisjoint(EXHAUSTING)

    @property
    def calls_off(self) -> bool:
        """Whether tasks may be called off that nothing of their own calls off."""
        return (
            not self.strikes.isdisjoint(ENDING | {Strike.PURGE})
            or self.ending not in (Ending.DRAIN, Ending.BLOCK)
            or self.overflow in ("drop_newest", "drop_oldest")
        )

    @property
    def kills(self) -> bool:
        """Whether a task may lose its worker by no fault of its own."""
        return Strike.KILL in self.strikes


def draw(
    seed: int,
    number: int,
    backends: tuple[str, ...],
    *,
    interrupts: bool = True,
    loops: bool = True,
    forks: bool = True,
) -> Round:
    """One round of a soak, which goes on with the next number and so on.

    Args:
        seed: what all rounds are drawn from.
        number: which one it is.
        backends: of the pools.
        interrupts: whether submitters are interrupted by signals.
        loops: whether there are event loops, each in a thread of its own.
        forks: whether the process is forked while other threads run.
    """
    chance = random.Random(f"{seed}/{number}")
    backend = chance.choice(backends)
    queue_size = chance.choice((0, 1, 8, 64, 64, 1000))
    policies = ["block", "block", "block", "reject", "drop_newest", "drop_oldest"]
    if backend == "thread":
        policies.append("caller_runs")
    most = 60 if backend == "process" else 300
    lengths = [chance.randint(most // 6, most) for _ in range(chance.randint(1, 4))]
    lots = {lot: weight for lot, weight in LOTS[backend].items() if loops or lot not in ON_LOOPS}
    jobs = [[_job(chance, lots, queue_size) for _ in range(length)] for length in lengths]
    return Round(
        number=number,
        backend=backend,
        size=chance.randint(1, 3 if backend == "process" else 6),
        queue_size=queue_size,
        overflow=chance.choice(policies),
        # A circle of coroutines that wait for each other is not found out: it would hang.
        helping=backend == "asyncio" or chance.random() < 0.8,
        virtual=backend != "process" and chance.random() < 0.2,
        interrupted=interrupts and chance.random() < 0.3,
        submitters=_struck(chance, jobs, _strikes(chance, backend, forks=forks)),
        ending=chance.choice(list(Ending)),
    )


def _job(chance: random.Random, lots: dict[Lot, int], queue_size: int) -> Job:
    lot = chance.choices(list(lots), list(lots.values()))[0]
    if lot in UNCOUNTED:
        return Job(lot, size=chance.choice((1, 20, 20, 2000 if lot is Lot.BURST else 50)))
    options: dict[str, Any] = {}
    if lot is Lot.LATE:
        options["timeout"] = chance.uniform(0.001, 0.05)
    elif chance.random() < 0.3:
        options = _options(chance, queue_size)
    cancel = lot is Lot.UNWANTED or chance.random() < 0.05
    return Job(lot, chance.choice(("submit", "submit", "try_submit")), options, cancel)


def _options(chance: random.Random, queue_size: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "timeout": chance.uniform(0.001, 5),
        "ttl": chance.uniform(0.001, 5),
        "priority": chance.randint(-2, 2),
        "key": chance.randint(0, 3),
        "name": f"n{chance.randint(0, 9)}",
        "retry": chance.randint(2, 4),
        "retry_on_worker_death": chance.randint(1, 2),
    }
    if queue_size:
        found["delay"] = chance.uniform(0, 0.05)
    return {name: found[name] for name in chance.sample(sorted(found), chance.randint(1, 3))}


def _strikes(chance: random.Random, backend: str, *, forks: bool) -> list[Strike]:
    found = [*HARMLESS]
    if backend == "process":
        found.append(Strike.KILL)
    if chance.random() < 0.3:
        found.append(Strike.PURGE)
    # A fork while there is no memory says nothing about the library.
    fork = [Strike.FORK] if forks else []
    found += chance.choice((fork, fork, list(EXHAUSTING_IN_ORDER), []))
    drawn = chance.choices(found, k=chance.randint(0, 4))
    if chance.random() < 0.2:
        drawn.append(chance.choice((Strike.DRAIN, Strike.CLOSE)))
    return drawn


EXHAUSTING_IN_ORDER = (Strike.NO_DESCRIPTORS, Strike.NO_MEMORY)


def _struck(
    chance: random.Random, jobs: list[list[Job]], strikes: list[Strike]
) -> tuple[tuple[Job | Blow, ...], ...]:
    parts: list[list[Job | Blow]] = [list(one) for one in jobs]
    for strike in strikes:
        part = chance.choice(parts)
        part.insert(chance.randint(0, len(part)), Blow(strike, chance.random()))
    return tuple(tuple(part) for part in parts)
