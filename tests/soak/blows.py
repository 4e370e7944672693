"""What strikes a pool and the process: each is over when its function returns."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

from ion_actors import Pool
from ion_actors.backends.process.parent.launch import running_children
from ion_actors.testing import VirtualClock
from tests.soak.books import unbalanced
from tests.soak.plan import Strike

__all__ = ["strike"]

MOMENT = 0.05  # seconds that a want lasts
FORKED = 30.0  # seconds after which a forked child hangs

# One want at a time: each sets a limit of the process, and restores what it has found.
_one_at_a_time = threading.Lock()


def strike(kind: Strike, amount: float, pool: Pool, clock: VirtualClock | None) -> str | None:
    """Strike.

    Args:
        kind: what happens.
        amount: from 0 to 1, how much of it.
        pool: the pool.
        clock: the pool's, if it is not the system's.

    Returns:
        What was wrong.
    """
    if kind is Strike.JUMP:
        _jump(amount, clock)
    elif kind in (Strike.DRAIN, Strike.CLOSE):
        end = pool.drain if kind is Strike.DRAIN else pool.close
        end(amount if clock is None else None)
    elif kind in _OF_POOLS:
        return _OF_POOLS[kind](pool, amount)
    else:
        return _OF_PROCESSES[kind](amount)
    return None


def _resize(pool: Pool, amount: float) -> None:
    pool.resize(1 + int(amount * 6))


def _look(pool: Pool, amount: float) -> str | None:
    pool.dump()
    pool.snapshot(stacks=amount < 0.5)
    pool.queued()
    numbers = pool.metrics()
    return f"a snapshot does not balance: {numbers}" if unbalanced(numbers) else None


def _pause(pool: Pool, amount: float) -> None:
    pool.pause()
    try:
        time.sleep(MOMENT * amount)
    finally:
        pool.resume()


def _purge(pool: Pool, amount: float) -> None:
    pool.purge()


def _kill(pool: Pool, amount: float) -> None:
    mine = [one.pid for one in pool.dump().workers if one.pid not in (None, os.getpid())]
    for child in running_children():
        if child.pid in mine:
            child.kill()
            return


_OF_POOLS: dict[Strike, Callable[[Pool, float], str | None]] = {
    Strike.RESIZE: _resize,
    Strike.LOOK: _look,
    Strike.PAUSE: _pause,
    Strike.PURGE: _purge,
    Strike.KILL: _kill,
}


# -- the process -----------------------------------------------------------------------------


def _jump(amount: float, clock: VirtualClock | None) -> None:
    """The pool's clock by an hour; or the wall clock, which the library is not to ask.

    The monotonic one is left alone: event loops ask it, and would wait for an hour.
    """
    if clock is not None:
        clock.advance(3600 * amount)
        return
    with _one_at_a_time:
        real, by = time.time, 7200 * amount - 3600
        time.time = lambda: real() + by
        try:
            threading.Event().wait(MOMENT)
        finally:
            time.time = real


def _collect(amount: float) -> None:
    gc.collect()


def _suspend(amount: float) -> None:
    script = f"kill -STOP {os.getpid()}; sleep {MOMENT * amount:.3f}; kill -CONT {os.getpid()}"
    subprocess.run(["sh", "-c", script], check=True)


def _fork(amount: float) -> str | None:
    child = os.fork()
    if child == 0:
        _live_in_a_child()
    until = time.monotonic() + FORKED
    while time.monotonic() < until:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            return f"a forked child ended with {code}" if code else None
        time.sleep(0.002)
    os.kill(child, signal.SIGABRT)  # it may show where it is
    os.waitpid(child, 0)
    return "a forked child hangs"


def _live_in_a_child() -> None:
    code = 1
    try:
        with Pool(1) as pool:
            code = 0 if pool.submit(pow, 2, 3).result(FORKED) == 8 else 2
    finally:
        os._exit(code)


@contextlib.contextmanager
def _limited(what: int, soft: int) -> Iterator[None]:
    with _one_at_a_time:
        before = resource.getrlimit(what)
        resource.setrlimit(what, (soft, before[1]))
        try:
            yield
        finally:
            while resource.getrlimit(what) != before:
                with contextlib.suppress(MemoryError):  # it may take some itself
                    resource.setrlimit(what, before)


def _no_descriptors(amount: float) -> None:
    spare = int(amount * 4)
    last = os.dup(0)  # the lowest that is free
    os.close(last)
    with _limited(resource.RLIMIT_NOFILE, last + spare):
        threading.Event().wait(MOMENT)


def _no_memory(amount: float) -> None:
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - nothing that needs much
        used = int(file.read().split()[0]) * resource.getpagesize()
    with _limited(resource.RLIMIT_AS, used + int(amount * (4 << 20))):
        threading.Event().wait(MOMENT)


_OF_PROCESSES: dict[Strike, Callable[[float], str | None]] = {
    Strike.COLLECT: _collect,
    Strike.SUSPEND: _suspend,
    Strike.FORK: _fork,
    Strike.NO_DESCRIPTORS: _no_descriptors,
    Strike.NO_MEMORY: _no_memory,
}
