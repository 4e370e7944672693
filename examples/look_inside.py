"""A program in trouble, to be looked at in the browser.

::

    pip install '.[examples]'
    python examples/look_inside.py               # prints an address; ends after Ctrl-C
    python examples/look_inside.py --port 8765   # the same address each time, but for the token

It makes thumbnails of photographs, with three things gone wrong:

- *A stuck task*: ``resize holiday.jpg`` reads from a disk that does not answer. The page shows it
  in red at the top, with its stack; the pool ``thumbnails`` goes on with one worker less. Cancel
  it: it listens.
- *A poison task*: ``parse invoice-13.pdf`` takes its worker process down each time. After two tries
  it is put aside, and becomes a dead letter of ``parser``. Replay it: it does the same again.
- *A full queue*: there are more mails than the one worker of ``mails`` can send. Give it more
  workers.

A breaker is open, since the payment service is down; a supervisor watches over the pools.

Exit code: 0 never, since it goes on until it is ended; 130 after Ctrl-C, 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import logging
import os
import random
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from extras import require

require("starlette", "uvicorn", extra="examples", about=__doc__)

from ion_actors import CircuitOpen, Future, Pool, PoolClosed, QueueFull, current_context
from ion_actors.circuit import CircuitBreaker
from ion_actors.dashboard import serve
from ion_actors.ratelimit import TokenBucket, per_second
from ion_actors.semaphore import WeightedSemaphore
from ion_actors.supervision import Supervisor, child

# --- the work -----------------------------------------------------------------------------------


class Broken(Exception):
    """A file that is no picture."""


def resize(name: str, takes: float) -> str:
    """Make a thumbnail."""
    time.sleep(takes)
    if name.endswith("7.jpg"):
        raise Broken(f"{name} is <b>no</b> picture")
    return name


def read_slowly(disk: threading.Event) -> None:
    """Wait for a disk that does not answer, until it does or the task is cancelled."""
    while not disk.is_set():
        current_context().sleep(0.1)


def parse() -> None:
    """Take the process down, as a fault in a native library does."""
    os.abort()


def send(address: str) -> str:
    """Send a mail."""
    time.sleep(0.2)
    return address


def pay() -> None:
    """Ask a service that is down."""
    raise ConnectionError("connection refused")


# --- the load -----------------------------------------------------------------------------------


def photographs(pool: Pool) -> None:
    """Bring as many as there is room for, in waves, until the pool ends."""
    for number in itertools.count():
        time.sleep(0.014 if number % 700 < 450 else 0.04)
        work = pool.options(name=f"resize photo-{number:04}.jpg")
        try:
            photo = work.try_submit(resize, f"photo-{number:04}.jpg", random.uniform(0.02, 0.08))
        except QueueFull:
            time.sleep(0.5)
        except PoolClosed:
            return
        else:
            photo.add_done_callback(Future.exception)  # the page counts the failures


def letters(pool: Pool) -> None:
    """Write more than can be sent, until the pool ends."""
    for number in itertools.count():
        customer = f"customer-{number % 17}"
        work = pool.options(name=f"mail to {customer}", key=customer, priority=number % 3)
        try:
            work.submit(send, customer)
        except PoolClosed:
            return


# --- the program --------------------------------------------------------------------------------


def service() -> Supervisor:
    """The pools, and who watches over them."""
    smtp = TokenBucket(per_second(20), 40, name="smtp")
    pools: list[dict[str, Any]] = [
        {"name": "thumbnails", "size": 4, "queue_size": 60, "stuck_after": 3},
        {"name": "mails", "size": 1, "queue_size": 50, "task_wrapper": smtp.wrap},
        {"name": "parser", "size": 2, "queue_size": 20, "backend": "process"},
    ]
    children = [child(Pool, id=one["name"], kwargs=one) for one in pools]
    return Supervisor(children, name="photo service")


def run(port: int) -> None:
    """Be in trouble until Ctrl-C."""
    disk = threading.Event()
    disks = WeightedSemaphore(8, name="disks")
    payments = CircuitBreaker("payments", failure_threshold=3, recovery_timeout=600)
    for _ in range(4):
        with contextlib.suppress(ConnectionError, CircuitOpen):
            payments.call(pay)
    with disks.hold(3), service() as tree:
        stuck = tree["thumbnails"].options(name="resize holiday.jpg")
        stuck.submit(read_slowly, disk)
        poison = tree["parser"].options(name="parse invoice-13.pdf", retry_on_worker_death=1)
        poison.submit(parse).add_done_callback(Future.exception)
        for load, pool in (photographs, tree["thumbnails"]), (letters, tree["mails"]):
            threading.Thread(target=load, args=(pool,)).start()
        try:
            with serve(port=port, actions=True) as board:
                print(f"Look inside: {board.url}", flush=True)
                threading.Event().wait()
        finally:
            tree.close(1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = argparse.ArgumentParser(description="A program in trouble, to be looked at.")
    parser.add_argument("--port", type=int, default=0, help="of the page; by default any")
    options = parser.parse_args(arguments)
    if not 0 <= options.port <= 65535:
        parser.error(f"--port: {options.port} is not in 0..65535")
    logging.getLogger("ion_actors").setLevel(logging.CRITICAL)  # the page shows it all
    try:
        run(options.port)
    except KeyboardInterrupt:
        print("interrupted")
    return 130


if __name__ == "__main__":
    sys.exit(main())
