"""Which contests there are, with their targets. The targets are those of the project's plan."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

from ion_actors import Pool
from tests.benchmarks import peers, tasks
from tests.benchmarks.measure import LIMIT, Contest, Line, Target

__all__ = ["ACTORS", "FULL", "QUICK", "THREADS", "Sizes", "contests"]

THREADS = "ThreadPoolExecutor"
ACTORS = "pykka actors"

_ROUNDS_IF_LONG = 3

_per_second = "tasks/s"
_bind = functools.partial


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many tasks there are of each kind."""

    burst: int = 20_000
    trips: int = 200
    parts: int = 45  # of a round of trips
    memory: int = 100_000
    close: int = 10_000
    items: int = 1_000_000
    few: int = 1_000
    many: int = 1_000_000


FULL = Sizes()
#: Only shows that everything works.
QUICK = Sizes(burst=200, trips=20, parts=2, memory=200, close=200, items=2_500, few=20, many=200)

_PEERS: dict[str, peers.MakePeer] = {
    THREADS: peers.threads,
    ACTORS: peers.actors,
    LIMIT: peers.bare,
}


def contests(sizes: Sizes) -> list[Contest]:
    """All of them, in the order of the table."""
    return [
        *(_burst(size, sizes) for size in (1, 4, 16, 64)),
        *(_round_trips(size, sizes) for size in (1, 4)),
        *(_producers(size, sizes) for size in (1, 4, 16)),
        _memory(sizes),
        _close(sizes),
        *(_start(size) for size in (4, 64)),
        _map(sizes),
        _growth(sizes),
    ]


def _spaced(number: int) -> str:
    return f"{number:,}".replace(",", "\N{NO-BREAK SPACE}")


def _workers(size: int) -> str:
    return "1 worker" if size == 1 else f"{size} workers"


def _against_all(
    key: str, line: Line, measure: Callable[[peers.MakePeer], tuple[float, ...]]
) -> Contest:
    rivals = {name: _bind(measure, make) for name, make in _PEERS.items()}
    return Contest(key, (line,), _bind(measure, peers.pool), rivals)


def _burst(size: int, sizes: Sizes) -> Contest:
    title = f"burst of {_spaced(sizes.burst)} no-op tasks, {_workers(size)}"
    line = Line(title, _per_second, (Target(4.0, at_least=True, peer=THREADS),))
    measure = _bind(tasks.burst, size=size, count=sizes.burst)
    contest = _against_all(f"burst-{size}", line, measure)
    # What waiting for room in a mailbox of the default size costs.
    roomy = _bind(measure, _bind(peers.pool, queue_size=sizes.burst))
    name = f"a Pool with room for all ({_spaced(sizes.burst)})"
    return replace(contest, peers={**contest.peers, name: roomy})


def _round_trips(size: int, sizes: Sizes) -> Contest:
    target = Target(1.0, at_least=True, peer=THREADS, even=True)
    line = Line(f"round trips, {_workers(size)}", _per_second, (target,))
    measure = _bind(tasks.round_trips, size=size, count=sizes.trips)
    contest = _against_all(f"round-trip-{size}", line, measure)
    return replace(contest, parts=sizes.parts)


def _producers(size: int, sizes: Sizes) -> Contest:
    targets = (Target(5.0, at_least=True, peer=THREADS),) if size == 4 else ()
    line = Line(f"8 producers, {_workers(size)}", _per_second, targets)
    measure = _bind(tasks.producers, size=size, count=sizes.burst)
    return _against_all(f"producers-{size}", line, measure)


def _memory(sizes: Sizes) -> Contest:
    target = Target(0.7, at_least=False, peer=THREADS)
    line = Line(f"memory of a queued task ({_spaced(sizes.memory)} are)", "B", (target,))
    roomy = _bind(peers.pool, queue_size=sizes.memory)
    rivals = {name: _bind(tasks.memory, make, sizes.memory) for name, make in _PEERS.items()}
    ours = _bind(tasks.memory, roomy, sizes.memory)
    return Contest("memory", (line,), ours, rivals, _ROUNDS_IF_LONG)


def _close(sizes: Sizes) -> Contest:
    def ours() -> tuple[float]:
        peer = peers.pool(1)
        assert isinstance(peer.executor, Pool)
        return tasks.close(peer, peer.executor.close, sizes.close)

    def theirs() -> tuple[float]:
        peer = peers.threads(1)
        return tasks.close(peer, peer.close, sizes.close)

    line = Line(
        f"closing with {_spaced(sizes.close)} queued",
        "ms",
        (Target(2.0, at_least=False, peer=THREADS),),
    )
    return Contest("close", (line,), ours, {THREADS: theirs})


def _start(size: int) -> Contest:
    targets = (Target(1.2, at_least=False, peer=THREADS),) if size == 4 else ()
    line = Line(f"starting and stopping {_workers(size)}", "ms", targets)
    return _against_all(f"start-{size}", line, _bind(tasks.start, size=size))


def _map(sizes: Sizes) -> Contest:
    line = Line(
        f"map over {_spaced(sizes.items)} items, chunks of {_spaced(1000)}, 4 workers",
        "items/s",
        (Target(1.0, at_least=True, peer=THREADS),),
    )
    rivals = {
        THREADS: _bind(tasks.map_of_threads, 4, sizes.items),
        LIMIT: _bind(tasks.map_of_builtin, sizes.items),
    }
    return Contest("map", (line,), _bind(tasks.map_of_pool, 4, sizes.items), rivals)


def _growth(sizes: Sizes) -> Contest:
    lines = (
        Line(f"submit and run a task, {_spaced(sizes.few)} queued", "µs"),
        Line(f"submit and run a task, {_spaced(sizes.many)} queued", "µs"),
        Line(
            "the latter divided by the former",
            "\N{MULTIPLICATION SIGN}",
            (Target(1.2, at_least=False),),
        ),
    )
    measure = _bind(tasks.growth, few=sizes.few, many=sizes.many)
    ours = _bind(measure, _bind(peers.pool, queue_size=sizes.many))
    rivals = {name: _bind(measure, _PEERS[name]) for name in (THREADS, LIMIT)}
    return Contest("million", lines, ours, rivals, _ROUNDS_IF_LONG)
