"""The hazards of pykka, on which this library is built: none of them reaches a pool's users."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pykka
import pytest

from ion_actors import (
    BrokenPool,
    Cancelled,
    Close,
    Drain,
    Future,
    GetMetrics,
    GetState,
    IonError,
    PanicRecovery,
    Pool,
    PoolState,
    QueueFull,
    Submit,
    TaskPanicked,
    TrySubmit,
)
from ion_actors.workerpool.model.backoff import Backoff
from tests import rounds
from tests.workerpool.helpers import until_waiting

PATIENCE = 30.0
Occupy = Callable[[Pool], list[Future[Any]]]
Ref = pykka.ActorRef[Any]

EXITS = [SystemExit, KeyboardInterrupt, GeneratorExit]


def raiser(error: type[BaseException]) -> Callable[..., Any]:
    """A function of anything that raises that."""

    def raises(*args: object, **kwargs: object) -> Any:
        raise error("on purpose")

    return raises


# -- a BaseException in a handler stops every actor of the process ---


@pytest.mark.parametrize("error", EXITS)
def test_an_exit_in_a_task_does_not_stop_other_actors(
    error: type[BaseException], bystander: Ref
) -> None:
    with Pool(2) as pool:
        assert isinstance(pool.submit(raiser(error)).exception(), TaskPanicked)
        assert pool.submit(str, 1).result() == "1"
        assert bystander.is_alive()


@pytest.mark.parametrize("error", EXITS)
def test_an_exit_in_a_done_callback_does_not_stop_other_actors(
    error: type[BaseException], bystander: Ref, occupy: Occupy, gate: threading.Event
) -> None:
    with Pool(1) as pool:
        (held,) = occupy(pool)
        called = threading.Event()
        held.add_done_callback(raiser(error))
        held.add_done_callback(lambda _: called.set())
        gate.set()
        assert called.wait(PATIENCE)
        assert pool.submit(str, 1).result() == "1"
        assert bystander.is_alive()


@pytest.mark.parametrize("error", EXITS)
def test_an_exit_in_a_callback_of_a_dropped_task_does_not_stop_other_actors(
    error: type[BaseException], bystander: Ref, occupy: Occupy, gate: threading.Event
) -> None:
    pool = Pool(1)
    occupy(pool)
    dropped = pool.submit(print)
    dropped.add_done_callback(raiser(error))
    dropped.add_done_callback(lambda _: gate.set())
    assert len(pool.close().cancelled) == 1
    assert bystander.is_alive()


@pytest.mark.parametrize("error", EXITS)
def test_an_exit_in_an_initializer_does_not_stop_other_actors(
    error: type[BaseException], bystander: Ref
) -> None:
    policy = PanicRecovery(backoff=Backoff(retries=0))
    pool = Pool(1, initializer=raiser(error), panic_recovery=policy)
    with pytest.raises(BrokenPool):
        pool.submit(print).result(PATIENCE)
    pool.close()
    assert bystander.is_alive()


@pytest.mark.parametrize("error", EXITS)
def test_an_exit_in_a_policy_or_a_hook_does_not_stop_other_actors(
    error: type[BaseException], bystander: Ref
) -> None:
    class Hook:
        inc = add = gauge = histogram = start = staticmethod(raiser(error))

    policy = PanicRecovery(handler=raiser(error), is_panic=raiser(error))
    with Pool(1, panic_recovery=policy, metrics=Hook(), tracer=Hook()) as pool:
        assert isinstance(pool.submit(exit).exception(), TaskPanicked)
        assert isinstance(pool.submit(int, "x").exception(), ValueError)
        assert pool.submit(str, 1).result() == "1"
    assert bystander.is_alive()


@pytest.mark.parametrize("error", EXITS)
def test_the_asker_of_a_task_that_exits_has_its_answer(error: type[BaseException]) -> None:
    with Pool(1) as pool:
        future = pool.actor_ref.ask(Submit(raiser(error)), timeout=PATIENCE)
        with pytest.raises(TaskPanicked) as caught:
            future.get(timeout=PATIENCE)
        assert isinstance(caught.value.__cause__, error)


@pytest.mark.parametrize("error", EXITS)
def test_a_coroutine_that_exits_harms_nobody(error: type[BaseException], bystander: Ref) -> None:
    async def leave() -> None:
        await asyncio.sleep(0)
        raise error

    async def fine() -> int:
        return 1

    with Pool(1) as pool:
        seen = pool.submit(leave).exception()
        assert isinstance(seen, TaskPanicked)
        assert pool.submit(fine).result() == 1
    assert bystander.is_alive()


# -- an error under ask keeps the actor, under tell it kills it -------------------------------


@pytest.mark.parametrize("how", ["ask", "tell"])
def test_a_message_that_is_not_understood_harms_nobody(how: str) -> None:
    with Pool(1) as pool:
        with pytest.raises(TypeError, match="does not understand 'what is this'"):
            getattr(pool.actor_ref, how)("what is this")
        assert pool.actor_ref.ask(GetState(), timeout=PATIENCE) is PoolState.RUNNING


@pytest.mark.parametrize("how", ["ask", "tell"])
def test_a_task_message_that_fails_is_the_senders_error(how: str) -> None:
    with Pool(1) as pool:
        with pytest.raises(TypeError, match="must be callable"):
            getattr(pool.actor_ref, how)(Submit(7))  # type: ignore[arg-type]
        assert pool.submit(str, 1).result() == "1"


# -- a race of ask and stop leaves futures pending ---------------------------------------------


@pytest.mark.parametrize(
    "message",
    [GetMetrics(), GetState(), Drain(5), Close(5), Submit(str), TrySubmit(str)],
    ids=lambda message: type(message).__name__,
)
def test_no_ask_that_races_with_the_end_stays_without_an_answer(
    message: object, threads: ThreadPoolExecutor
) -> None:
    for _ in range(rounds(8, thorough=30)):
        pool = Pool(2)
        ref = pool.actor_ref
        begin = threading.Barrier(5)
        counter = itertools.count()

        def ask(
            ref: Ref = ref, begin: threading.Barrier = begin, counter: Any = counter
        ) -> list[Any]:
            replies = []
            begin.wait(PATIENCE)
            while ref.is_alive() and next(counter) < 2000:
                try:
                    replies.append(ref.ask(message, block=False))
                except pykka.ActorDeadError:
                    break
            return replies

        asking = [threads.submit(ask) for _ in range(4)]
        begin.wait(PATIENCE)
        pool.close()
        for reply in itertools.chain.from_iterable(one.result(PATIENCE) for one in asking):
            try:
                value = reply.get(timeout=PATIENCE)
            except (pykka.ActorDeadError, IonError):
                continue
            if isinstance(value, Future):  # of the task that was accepted
                assert not concurrent.futures.wait([value], PATIENCE).not_done


def test_pykkas_own_clean_up_can_settle_our_futures() -> None:
    """It calls ``set_exception(exc_info=...)``, by that name."""
    future: Future[None] = Future()
    future.set_exception(exc_info=(LookupError, LookupError("gone"), None))
    with pytest.raises(LookupError, match="gone"):
        future.get(timeout=0)


@pytest.mark.parametrize("verb", ["drain", "close"])
def test_no_drain_or_close_that_races_with_the_end_hangs(
    verb: str, threads: ThreadPoolExecutor
) -> None:
    for _ in range(rounds(25, thorough=100)):
        pool = Pool(1)
        begin = threading.Barrier(6)

        def end(pool: Pool = pool, begin: threading.Barrier = begin) -> object:
            begin.wait(PATIENCE)
            return [getattr(pool, verb)(timeout=5) for _ in range(3)]

        for one in [threads.submit(end) for _ in range(6)]:
            one.result(PATIENCE)
        assert pool.is_closed


def test_no_stop_that_races_with_another_stays_without_an_answer(
    threads: ThreadPoolExecutor, until: Callable[[Any], None]
) -> None:
    for _ in range(rounds(25, thorough=100)):
        ref = Pool(1).actor_ref
        begin = threading.Barrier(4)

        def stop(ref: Ref = ref, begin: threading.Barrier = begin) -> bool:
            begin.wait(PATIENCE)
            return ref.stop(timeout=PATIENCE)

        stopping = [threads.submit(stop) for _ in range(4)]
        assert any(one.result(PATIENCE) for one in stopping)
        until(lambda ref=ref: not ref.is_alive())  # it is gone a moment after its last reply


# -- start() gives a dead reference when on_start fails ----------------------------------------


def test_a_failing_initializer_is_everybodys_error_and_no_hang() -> None:
    policy = PanicRecovery(backoff=Backoff(initial=0, retries=1))
    pool = Pool(2, initializer=raiser(LookupError), panic_recovery=policy)
    future = None
    with pytest.raises(BrokenPool) as caught:  # at submission, or of the task: whoever is first
        future = pool.submit(print)
        future.result(PATIENCE)
    assert isinstance(caught.value.__cause__, LookupError)
    pool.close()
    with pytest.raises(BrokenPool):
        pool.submit(print)


def test_a_thread_that_cannot_be_started_breaks_the_pool(
    monkeypatch: pytest.MonkeyPatch, until: Callable[[Any], None]
) -> None:
    def no_more(self: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("ion_actors.workerpool.worker.worker.PoolWorker.start_thread", no_more)
    pool = Pool(2, panic_recovery=PanicRecovery(backoff=Backoff(initial=0, retries=0)))
    waiting = pool.submit(print)  # only now is there need of a thread
    assert isinstance(waiting.exception(PATIENCE), BrokenPool)
    until(lambda: pool.is_closed)
    with pytest.raises(BrokenPool, match="failed to start") as caught:
        pool.submit(print)
    assert "can't start new thread" in str(caught.value.__cause__)


# -- await blocks the event loop ---------------------------------------------------------------


def test_await_does_not_block_the_event_loop() -> None:
    async def main(pool: Pool) -> bool:
        called = threading.Event()
        future = pool.submit(called.wait, PATIENCE)
        asyncio.get_running_loop().call_soon(called.set)  # only a loop that is free gets here
        return await future

    with Pool(1) as pool:
        assert asyncio.run(main(pool)) is True


def test_await_of_an_answer_does_not_block_the_event_loop(
    occupy: Occupy, gate: threading.Event
) -> None:
    async def main(pool: Pool) -> Any:
        reply = pool.actor_ref.ask(Drain(PATIENCE), block=False)
        asyncio.get_running_loop().call_soon(gate.set)
        return await reply

    pool = Pool(1)
    occupy(pool)
    assert asyncio.run(main(pool)).running == ()


# -- the inbox is unbounded --------------------------------------------------------------------


@pytest.mark.parametrize("queue_size", [0, 1, 7])
def test_the_inbox_takes_exactly_as_many_tasks_as_it_says(queue_size: int, occupy: Occupy) -> None:
    pool = Pool(2, queue_size)
    occupy(pool)
    accepted = [pool.actor_ref.ask(TrySubmit(print), timeout=PATIENCE) for _ in range(queue_size)]
    with pytest.raises(QueueFull):
        pool.actor_ref.ask(TrySubmit(print), timeout=PATIENCE)
    assert pool.metrics().queued == queue_size
    assert all(one.cancel() for one in accepted)
    pool.close(timeout=0)


def test_a_full_inbox_blocks_the_sender_and_not_the_supervisor(
    occupy: Occupy, gate: threading.Event, threads: ThreadPoolExecutor, until: Callable[[Any], None]
) -> None:
    ran = threading.Event()
    with Pool(1, 0) as pool:
        occupy(pool)
        sending = threads.submit(pool.actor_ref.tell, Submit(ran.set))
        until_waiting(pool, 1)
        assert not sending.done()
        assert pool.actor_ref.ask(GetMetrics(), timeout=PATIENCE).running == 1
        gate.set()
        sending.result(PATIENCE)
    assert ran.is_set()


# -- threads are not daemonic -------------------------------------------------------------------


def test_no_thread_of_a_pool_can_keep_the_interpreter(occupy: Occupy) -> None:
    before = set(threading.enumerate())
    pool = Pool(3, name="crew")
    occupy(pool)
    mine = set(threading.enumerate()) - before
    assert {one.name for one in mine} >= {"crew-supervisor", "crew-0", "crew-1", "crew-2"}
    assert all(one.daemon for one in mine)
    pool.close(timeout=0)


# -- stop queues behind work ---------------------------------------------------------------------


def test_stop_does_not_queue_behind_tasks(occupy: Occupy, gate: threading.Event) -> None:
    ran: list[int] = []
    pool = Pool(1)
    (held,) = occupy(pool)
    queued = [pool.submit(ran.append, number) for number in range(100)]
    stopped = pool.actor_ref.stop(block=False)
    # While the worker is still busy with the first:
    assert not concurrent.futures.wait(queued, PATIENCE).not_done
    assert not held.done()
    gate.set()
    assert stopped.get(timeout=PATIENCE) is True
    assert ran == []
    for one in queued:
        with pytest.raises(Cancelled):
            one.result()


# -- on_stop is skipped on failure ----------------------------------------------------------------


def test_a_worker_that_panicked_still_cleans_up() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def leave() -> None:
        loops.append(asyncio.get_running_loop())
        raise SystemExit

    with Pool(1) as pool:
        pool.submit(leave).exception()
        pool.submit(leave).exception()
    assert loops[0] is not loops[1]
    assert all(one.is_closed() for one in loops)


# -- the reference holds its actor weakly ---


def test_a_reference_to_the_supervisor_keeps_the_pool() -> None:
    ref = Pool(1).actor_ref
    gc.collect()
    assert ref.is_alive()
    future = ref.ask(Submit(str, (1,)), timeout=PATIENCE)
    assert future.result(PATIENCE) == "1"
    assert ref.ask(GetState(), timeout=PATIENCE) is PoolState.RUNNING
    assert ref.ask(Drain(PATIENCE), timeout=PATIENCE).cancelled == ()


def test_a_proxy_of_a_supervisor_keeps_the_pool() -> None:
    proxy = Pool(1).actor_ref.proxy()
    gc.collect()
    assert proxy.actor_ref.ask(GetState(), timeout=PATIENCE) is PoolState.RUNNING
    proxy.actor_ref.ask(Close(PATIENCE), timeout=PATIENCE)


# -- somebody else's stop_all() ---


def test_stop_all_by_somebody_else_leaves_nothing_hanging(
    occupy: Occupy, gate: threading.Event, threads: ThreadPoolExecutor
) -> None:
    pools = [Pool(2, 10) for _ in range(3)]
    held = [one for pool in pools for one in occupy(pool)]
    queued = [pool.submit(str) for pool in pools for _ in range(10)]
    blocked = [threads.submit(pool.submit, str) for pool in pools]
    for one in queued:  # of whichever pool is the first to be stopped
        one.add_done_callback(lambda _: gate.set())
    pykka.ActorRegistry.stop_all(timeout=PATIENCE)
    assert not concurrent.futures.wait([*held, *queued, *blocked], PATIENCE).not_done
    assert all(pool.is_closed for pool in pools)


def test_a_pool_never_stops_all(bystander: Ref, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(pykka.ActorRegistry, "stop_all", lambda *a, **k: calls.append(a))
    with Pool(1) as pool:
        pool.submit(exit).exception()
    Pool(1).close()
    broken = Pool(1, panic_recovery=PanicRecovery(max_restarts=0))
    broken.submit(exit).exception()
    broken.close()
    assert calls == []


def test_a_pool_that_has_ended_is_no_longer_registered() -> None:
    before = pykka.ActorRegistry.get_all()
    with Pool(2) as pool:
        assert len(pykka.ActorRegistry.get_all()) == len(before) + 1
        pool.submit(exit).exception()
    assert pykka.ActorRegistry.get_all() == before
