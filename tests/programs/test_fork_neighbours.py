"""``os.fork`` while others are at a semaphore, a limiter, a breaker: the child is alone with it."""

from __future__ import annotations

import os

import pytest

from tests.programs.conftest import forking_program
from tests.programs.test_fork import IGNORE, Run, Source

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

_SEMAPHORE = """
from ion_actors.semaphore import WeightedSemaphore
one = WeightedSemaphore(2, name="mine")
one.acquire()
wait, lock = lambda: one.acquire(2), lambda: one._permits._lock
serve = one.release
use = lambda: (one.available, one.acquire(2, timeout=9), one.release(2))
"""

_BUCKET = """
from ion_actors.ratelimit import *
one = TokenBucket(per_hour(1), 1)
one.allow()
wait, lock = one.wait, lambda: one._scheduler.lock
serve = lambda: one.set_rate(per_second(1000))
use = lambda: (one.allow(), serve(), one.wait(timeout=9))
"""

_TIERS = """
from ion_actors.ratelimit import *
tiers = MultiTierLimiter(route_limit=Limit(per_hour(1), 1))
one = tiers.for_(route="GET /a", resource=7)
one.allow()
wait, lock = one.wait, lambda: one._scheduler.lock
serve = lambda: one.set_limit(Limit(per_second(1000), 1))
use = lambda: (one.allow(), serve(), one.wait(timeout=9))
"""

_SHARED = """
import limits.storage
from ion_actors.ratelimit import *
storage = limits.storage.MemoryStorage()
one = SharedLimiter(per_second(1), storage=storage, key="mine")
one.allow()
one._fair_lock.join(Turn(None, lambda: None))  # somebody is inside, and may never leave
wait, lock = one.wait, lambda: one._fair_lock._lock
serve = one._fair_lock.leave
use = lambda: (one.rate.tokens, one.wait(timeout=9))
"""

ALL = pytest.mark.parametrize(
    ("made", "used"),
    [
        (_SEMAPHORE, "(2, True, None)"),
        (_BUCKET, "(False, None, None)"),
        (_TIERS, "(False, None, None)"),
        (_SHARED, "(1, None)"),
    ],
    ids=["semaphore", "bucket", "tiers", "shared"],
)


def neighbour(made: str, source: str) -> str:
    return "from ion_actors.context import Turn\n" + made + source


@ALL
def test_nobody_of_the_parent_is_in_the_childs_way(
    made: str, used: str, program: Source, run: Run
) -> None:
    code, lines, errors = run(
        neighbour(
            made,
            program("""
            waiter = threading.Thread(target=wait)
            waiter.start()
            while not one.waiting:
                time.sleep(0.001)
            held, done = threading.Event(), threading.Event()
            def hold():
                with lock():
                    held.set()
                    done.wait()
            holder = threading.Thread(target=hold)
            holder.start()
            held.wait()
            in_child(lambda: say(one.waiting, use(), one.waiting))
            done.set()
            holder.join()
            say(one.waiting)
            serve()
            waiter.join()
            say(one.waiting)
            """),
        ),
        *IGNORE,
    )
    assert lines == [f"0 {used} 0", "exit 0", "1", "0"], errors
    assert code == 0


@ALL
def test_a_wait_that_itself_has_come_to_the_child_ends_there(
    made: str, used: str, program: Source, run: Run
) -> None:
    code, lines, errors = run(
        neighbour(
            made,
            program("""
            def on_signal(*_):
                global child
                child = fork()
                forked.set()
            forked = threading.Event()
            signal.signal(signal.SIGUSR1, on_signal)
            when_main_thread_is_in("wait_turn", lambda: os.kill(os.getpid(), signal.SIGUSR1))
            def serve_later():
                forked.wait()
                serve()
            helper = threading.Thread(target=serve_later)
            helper.start()
            try:
                wait()
            except RuntimeError as error:
                say(error, one.waiting)
                os._exit(0)
            helper.join()
            os.waitpid(child, 0)
            say("parent")
            """),
        ),
        *IGNORE,
    )
    assert lines == ["this process was forked while it waited 0", "parent"], errors
    assert code == 0


def test_a_coroutine_that_has_come_to_the_child_can_be_dropped_there(
    program: Source, run: Run
) -> None:
    code, lines, errors = run(
        program(
            """
            import asyncio, gc
            from ion_actors.semaphore import WeightedSemaphore
            from ion_actors.ratelimit import TokenBucket, per_hour
            permits, tokens = WeightedSemaphore(1), TokenBucket(per_hour(1), 1)
            async def main():
                permits.acquire()
                tokens.allow()
                waits = [asyncio.ensure_future(permits.aacquire()),
                         asyncio.ensure_future(tokens.awaits())]
                await asyncio.sleep(0)
                def child():
                    for one in waits:
                        one.get_coro().close()
                    say(permits.available, permits.waiting, tokens.waiting, int(tokens.tokens))
                in_child(child)
                say(permits.waiting, tokens.waiting)
                for one in waits:
                    one.cancel()
                say(len(await asyncio.gather(*waits, return_exceptions=True)))
            asyncio.run(main())
            """
        ),
        *IGNORE,
    )
    assert lines == ["1 0 0 0", "exit 0", "1 1", "2"], errors
    assert code == 0


def test_a_fork_in_the_middle_of_heavy_use_does_not_hang_the_child(run: Run) -> None:
    code, lines, errors = run(
        forking_program(
            """
            from ion_actors.circuit import CircuitBreaker
            from ion_actors.ratelimit import *
            from ion_actors.semaphore import WeightedSemaphore
            permits = WeightedSemaphore(2)
            bucket = TokenBucket(per_second(20_000), 2)
            tiers = MultiTierLimiter(*[Limit(per_second(20_000), 2)] * 3)
            breaker = CircuitBreaker("mine", half_open_max_requests=1)
            breaker.trip(0)
            request = tiers.for_(route="GET /a", resource=1)
            wrapped = (bucket.wrap | permits.wrap)(lambda: request.wait())
            stop = threading.Event()
            def flood():
                while not stop.is_set():
                    wrapped()
                    breaker.trip(0)
                    try:
                        breaker.execute(str)
                    except CircuitOpen:
                        pass
            flooding = [threading.Thread(target=flood) for _ in range(4)]
            for one in flooding:
                one.start()
            def child():
                for _ in range(3):
                    wrapped()
                breaker.reset()
                breaker.execute(str)
                assert permits.available == 2
                assert permits.waiting == bucket.waiting == tiers.waiting == 0
            for _ in range(10):
                in_child(child)
            stop.set()
            for one in flooding:
                one.join()
            """
        ),
        *IGNORE,
    )
    assert lines == ["exit 0"] * 10, errors
    assert code == 0
