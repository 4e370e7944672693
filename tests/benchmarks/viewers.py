"""What it costs a program to be looked at: ``python -m tests.benchmarks.viewers``.

A hundred pools, of which all but one are paused and have 10 000 queued tasks between them. The last
one runs no-op tasks as fast as it can, for some seconds at a time: alone, and while a dashboard is
served and four viewers follow it. They take turns, and each pair gives one ratio. The viewers are
another process, as browsers are.

On a machine that does other things, only the last line means something: the time that the
dashboard's own threads have had of a CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from ion_actors import Pool
from ion_actors.dashboard import serve

__all__ = ["main"]

# Reads the events of all viewers until it is ended; says so once each has had a frame.
_VIEWERS = """
import select, socket, sys
port, token, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
headers = "Host: localhost", f"Authorization: Bearer {token}", "", ""
ask = "\\r\\n".join(("GET /api/events HTTP/1.1", *headers))
streams, told = {}, False
def begin():
    stream = socket.create_connection(("127.0.0.1", port))
    stream.sendall(ask.encode())
    streams[stream] = False
for _ in range(count):
    begin()
while True:
    for stream in select.select(list(streams), [], [])[0]:
        data = stream.recv(1 << 20)
        streams[stream] |= b"event: frame" in data
        if data.endswith(b"0\\r\\n\\r\\n") or not data:  # the stream has ended: as a browser does
            stream.close()
            del streams[stream]
            begin()
    if not told and all(streams.values()):
        told = True
        print("seen", flush=True)
"""


@contextlib.contextmanager
def _looked_at(viewers: int) -> Iterator[None]:
    with serve() as board:
        port = board.url.split(":")[2].partition("/")[0]
        command = [sys.executable, "-c", _VIEWERS, port, board.token, str(viewers)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            yield
            process.kill()


def _own_time() -> float:
    """Seconds of a CPU that the dashboard's threads have had."""
    clocks = [
        time.pthread_getcpuclockid(one.ident or 0)
        for one in threading.enumerate()
        if one.name.startswith("ion_actors-dashboard")
    ]
    return sum(map(time.clock_gettime, clocks))


def _rate(pool: Pool, seconds: float) -> tuple[float, float]:
    """Tasks per second, and tasks per second of CPU time of the whole process."""
    done, began, cpu = 0, time.perf_counter(), time.process_time()
    while (now := time.perf_counter()) < began + seconds:
        for future in [pool.submit(_nothing) for _ in range(200)]:
            future.result()
        done += 200
    return done / (now - began), done / (time.process_time() - cpu)


def _nothing() -> None:
    pass


@contextlib.contextmanager
def _program(pools: int, tasks: int) -> Iterator[Pool]:
    with contextlib.ExitStack() as stack:
        for number in range(pools - 1):
            pool = stack.enter_context(Pool(2, name=f"waits-{number}"))
            stack.callback(pool.close, 0)
            pool.pause()
            for task in range(tasks // max(1, pools - 1)):
                pool.options(name=f"task {task}").submit(_nothing)
        yield stack.enter_context(Pool(4, 1000, name="works"))


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description="What it costs a program to be looked at.")
    parser.add_argument("--pools", type=int, default=100)
    parser.add_argument("--tasks", type=int, default=10_000, help="that wait")
    parser.add_argument("--viewers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one part of a round")
    options = parser.parse_args()
    logging.disable()
    walls, cpus, shares = [], [], []
    with _program(options.pools, options.tasks) as pool:
        _rate(pool, 0.1)
        for number in range(options.rounds):
            found: dict[bool, tuple[float, float]] = {}
            for looked_at in (True, False) if number % 2 else (False, True):
                with _looked_at(options.viewers) if looked_at else contextlib.nullcontext():
                    began, own = time.perf_counter(), _own_time()
                    found[looked_at] = _rate(pool, options.seconds)
                    share = (_own_time() - own) / (time.perf_counter() - began)
                if looked_at:
                    shares.append(share)
            walls.append(found[True][0] / found[False][0])
            cpus.append(found[True][1] / found[False][1])
    for title, ratios in ("tasks per second", walls), ("tasks per CPU second", cpus):
        low, high = min(ratios), max(ratios)
        print(f"{title}, looked at / alone: {statistics.median(ratios):.3f} "
              f"({low:.3f} to {high:.3f})")  # fmt: skip
    print(f"the dashboard's share of a CPU: {statistics.mean(shares):.1%}")


if __name__ == "__main__":
    main()
