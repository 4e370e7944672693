"""Which airlines were late, over a table of flights: one program for threads, processes and Ray.

::

    pip install '.[examples]'
    python examples/flight_delays.py                         # threads
    python examples/flight_delays.py --backend process
    pip install '.[ray]'
    python examples/flight_delays.py --backend ray           # a cluster on this machine
    python examples/flight_delays.py --backend ray --address head:6379
    python examples/flight_delays.py --backend ray --kill-a-node

A task gets some thousand rows, and returns how many flights each airline had, and how late they
were. The program adds that up. What to look for:

- *One program*: nothing but ``Pool(..., backend=...)`` differs.
- *Backpressure*: ``map_unordered`` reads the table only as fast as its results are taken.
- *A node that dies*: with ``--kill-a-node``, two nodes of a cluster run on this machine, and one of
  them is killed in the middle. Tasks that ran there are run again, since each says that it may be
  (``retry_on_worker_death``); its workers get a place on the other node as soon as the cluster has
  noticed, which takes some seconds. No row is lost, and none is counted twice.

Exit code: 0, or 1 if a row was lost or counted twice, 2 for wrong arguments or no table, 130 after
Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from extras import require

require("rich", extra="examples", about=__doc__)

from ion_actors import Pool, RayBackend
from support import between
from tablelab.source import Source, SourceError, sample

LATE = 15  # minutes

# Seconds that a task may wait for an end of the cluster's troubles.
PATIENCE = 300

BACKENDS = ("thread", "process", "ray")


@dataclass
class Delays:
    """Of some rows, by airline."""

    rows: int = 0
    flights: Counter[str] = field(default_factory=Counter)  # that have arrived
    late: Counter[str] = field(default_factory=Counter)  # that have arrived late
    minutes: Counter[str] = field(default_factory=Counter)  # of all delays together

    def add(self, other: Delays) -> None:
        """Those of other rows."""
        self.rows += other.rows
        for name in ("flights", "late", "minutes"):
            getattr(self, name).update(getattr(other, name))


def delays_in(rows: Sequence[Sequence[str]], carrier: int, delay: int) -> Delays:
    """The task: add up some rows.

    Args:
        rows: as text.
        carrier: in which column the airline is.
        delay: in which column the minutes are.
    """
    total = Delays(len(rows))
    for row in rows:
        try:
            airline, found = row[carrier], float(row[delay])
        except (IndexError, ValueError):  # it was cancelled or diverted, or the row is spoilt
            continue
        total.flights[airline] += 1
        total.late[airline] += found >= LATE
        total.minutes[airline] += round(found)
    return total


class Job:
    """All tasks of a table.

    Attributes:
        rows: that were read so far.
        tasks: that they were given to.
    """

    def __init__(self, source: Source, length: int) -> None:
        self._source = source
        self._length = length
        self.rows = self.tasks = 0

    def run(self, pool: Pool, on_half: Callable[[], object] | None) -> Delays:
        """The sums of all tasks. In the middle, ``on_half`` is called."""
        patient = pool.options(retry_on_worker_death=3)
        total = Delays()
        with self._source.open() as reader:
            columns = reader.header.index("carrier"), reader.header.index("arr_delay")
            chunks = self._chunks(reader)
            for found in patient.map_unordered(lambda rows: delays_in(rows, *columns), chunks):
                total.add(found)
                if on_half is not None and reader.position > reader.size / 2:
                    on_half()
                    on_half = None
        return total

    def _chunks(self, reader: Any) -> Iterator[list[list[str]]]:
        for chunk in reader.chunks(self._length):
            self.rows += len(chunk)
            self.tasks += 1
            yield [row for _, row in chunk]


@contextlib.contextmanager
def place(
    args: argparse.Namespace,
) -> Iterator[tuple[str | RayBackend, Callable[[], None] | None]]:
    """The backend, and what kills a node of it, if that is wanted."""
    if not args.kill_a_node:
        yield RayBackend(address=args.address) if args.address else args.backend, None
        return
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # only this machine can reach it
    ray: Any = importlib.import_module("ray")  # only now: it is large, and perhaps not there
    cluster_utils: Any = importlib.import_module("ray.cluster_utils")

    logging.getLogger("ray").setLevel(logging.ERROR)
    node = {"num_cpus": args.workers, "node_ip_address": "127.0.0.1"}
    node |= {"object_store_memory": 100_000_000, "include_dashboard": False}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=node)
    try:
        other = cluster.add_node(**node)

        def kill() -> None:
            print("a node is killed")
            cluster.remove_node(other, allow_graceful=False)

        yield RayBackend(address=cluster.address), kill
        while ray.is_initialized():  # the pool's connection is closed a moment after the pool
            time.sleep(0.1)
    finally:
        cluster.shutdown()


def main(argv: Sequence[str] | None = None) -> int:
    """Run it."""
    args = parse(argv)
    logging.getLogger("ion_actors").setLevel(logging.ERROR)  # a lost worker is a warning there
    try:
        job = Job(Source(args.table) if args.table else sample(), args.rows)
        with place(args) as (backend, kill), Pool(args.workers, backend=backend) as pool:
            for future in [pool.submit(os.getpid) for _ in range(args.workers)]:
                future.result(PATIENCE)  # the workers are there: their start is not measured
            began = time.perf_counter()
            found = job.run(pool, kill)
            seconds, lost = time.perf_counter() - began, pool.metrics().restarts
    except (SourceError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    show(found)
    print(f"{job.tasks} tasks, {args.workers} workers ({args.backend}): {seconds:.2f} s")
    if args.kill_a_node:
        print(f"{lost} workers were lost")
    print(f"{found.rows:,} of {job.rows:,} rows were counted")
    return 0 if found.rows == job.rows and bool(lost) == args.kill_a_node else 1


def show(found: Delays) -> None:
    """The airlines, the least punctual first."""
    for airline in sorted(found.flights, key=lambda one: -found.late[one] / found.flights[one]):
        flights = found.flights[airline]
        share, mean = found.late[airline] / flights, found.minutes[airline] / flights
        print(f"{airline:>4} {flights:>8,} flights, {share:>4.0%} late, {mean:>+6.1f} minutes")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument(
        "table", type=Path, nargs="?", help="CSV with columns 'carrier' and 'arr_delay'"
    )
    parser.add_argument("--backend", choices=BACKENDS, default="thread", help="(%(default)s)")
    parser.add_argument("--workers", type=between(1, 256), default=4, help="(%(default)s)")
    parser.add_argument(
        "--rows", type=between(1, 1_000_000), default=2_000, help="of each task (%(default)s)"
    )
    parser.add_argument("--address", help="of a Ray cluster, 'host:port' (default: a new one)")
    parser.add_argument(
        "--kill-a-node", action="store_true", help="with --backend ray: two nodes here, then one"
    )
    args = parser.parse_args(argv)
    if args.kill_a_node and (args.backend != "ray" or args.address):
        parser.error("--kill-a-node needs --backend ray, and starts a cluster of its own")
    if args.address and args.backend != "ray":
        parser.error("--address is that of a Ray cluster: add --backend ray")
    return args


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
