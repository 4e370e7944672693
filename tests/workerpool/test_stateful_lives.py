"""Workers with state from their start to their end, and what reaches all of them."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import logging
import random
import threading
import weakref
from typing import Any

import pykka
import pytest

from ion_actors import (
    Backoff,
    Broadcast,
    BrokenPool,
    Cancelled,
    Context,
    DeadlockError,
    Directive,
    PanicRecovery,
    Pool,
    PoolClosed,
    TaskAbandoned,
    TaskPanicked,
    Worker,
    background,
    current_context,
)
from ion_actors.delivery import FINALIZERS
from ion_actors.testing import VirtualClock
from ion_actors.workerpool.worker.worker import current_worker
from tests.inside import core_of
from tests.workerpool.helpers import (
    PATIENCE,
    Gate,
    await_threads,
    busy,
    eventually,
    run_in_thread,
    why_broken,
)

QUICK = Backoff(initial=0.0, retries=2)
TENANT: contextvars.ContextVar[str] = contextvars.ContextVar("TENANT", default="nobody")


class Poisoned(Exception):
    """The state of whoever raised this is not to be trusted."""


RESTART = PanicRecovery(decide={Poisoned: Directive.RESTART}, backoff=QUICK)


class Diary(Worker):
    """Writes down what happens to it, into a list that all share."""

    def __init__(self, diary: list[Any]) -> None:
        super().__init__()
        self.diary = diary

    def on_start(self) -> None:
        self.diary.append("start")

    def on_stop(self) -> None:
        self.diary.append("stop")

    def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
        self.diary.append(exception_value)

    def on_receive(self, message: Any) -> Any:
        return message(self) if callable(message) else message

    def fail(self, error: BaseException) -> None:
        raise error

    def leave(self) -> None:
        self.stop()

    def wait(self, gate: Gate) -> str:
        return gate()


def with_diary(**more: Any) -> tuple[list[Any], functools.partial[Diary]]:
    diary: list[Any] = []
    return diary, functools.partial(Diary, diary, **more)


# -- hooks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [Pool.drain, Pool.close, Pool.shutdown])
def test_each_worker_starts_once_and_stops_once(end: Any) -> None:
    diary, worker = with_diary()
    pool = Pool(3, worker=worker)
    eventually(lambda: diary == ["start"] * 3)
    end(pool)
    assert diary == ["start"] * 3 + ["stop"] * 3


def test_resizing_starts_and_stops_workers() -> None:
    diary, worker = with_diary()
    with Pool(1, worker=worker) as pool:
        eventually(lambda: diary == ["start"])
        pool.resize(2)
        eventually(lambda: diary == ["start"] * 2)
        pool.resize(1)
        eventually(lambda: diary == ["start"] * 2 + ["stop"])
    assert diary.count("stop") == 2


def test_a_worker_that_fails_is_told_why_before_its_successor_starts() -> None:
    diary, worker = with_diary()
    error = Poisoned()
    with Pool(1, worker=worker, panic_recovery=RESTART) as pool:
        with pytest.raises(TaskPanicked):
            pool.proxy().fail(error).result(PATIENCE)
        eventually(lambda: len(diary) == 3)
    assert diary == ["start", error, "start", "stop"]


def test_hooks_run_in_the_workers_thread_and_not_in_the_tasks_context() -> None:
    seen: list[Any] = []

    class Looks(Worker):
        def look(self) -> None:
            seen.append((threading.current_thread(), current_context(), TENANT.get()))

        on_start = on_stop = look

        def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
            self.look()

        def fail(self) -> None:
            self.look()
            raise Poisoned

    TENANT.set("somebody")
    with Pool(1, worker=Looks, panic_recovery=RESTART) as pool:
        pool.options(timeout=PATIENCE).call(Looks.fail).exception(PATIENCE)
    TENANT.set("nobody")
    start, task, failure, *_ = seen
    assert start[0] is task[0] is failure[0]
    assert task[1] is not background()
    assert start[1] is failure[1] is background()
    assert [one[2] for one in seen] == ["nobody", "somebody", "nobody", "nobody", "nobody"]


def test_an_initializer_runs_before_the_worker_starts_in_the_same_thread() -> None:
    seen: list[Any] = []

    class Second(Worker):
        def on_start(self) -> None:
            seen.append(threading.get_ident())

    with Pool(
        1, initializer=lambda word: seen.append((word, threading.get_ident())), initargs=("x",),
        worker=Second,
    ) as pool:  # fmt: skip
        pool.ask(1).result(PATIENCE)
    assert seen == [("x", seen[1]), seen[1]]


@pytest.mark.parametrize("fault", [ZeroDivisionError("in a hook"), SystemExit("in a hook")])
def test_a_hook_of_the_end_that_raises_is_logged_and_changes_nothing(
    fault: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    class Clumsy(Worker):
        def on_stop(self) -> None:
            raise fault

        def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
            raise fault

        def fail(self) -> None:
            raise Poisoned

    with Pool(1, name="p", worker=Clumsy, panic_recovery=RESTART) as pool:
        assert isinstance(pool.call(Clumsy.fail).exception(PATIENCE), TaskPanicked)
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8
    assert "on_failure failed in worker p-0" in caplog.text
    assert "on_stop failed in worker p-0" in caplog.text


@pytest.mark.parametrize("fault", [OSError("not yet"), SystemExit("not yet")])
def test_a_start_that_raises_is_tried_again(fault: BaseException) -> None:
    diary: list[str] = []

    class Late(Diary):
        def on_start(self) -> None:
            super().on_start()
            if len(diary) < 3:
                raise fault

    policy = PanicRecovery(backoff=QUICK)
    with Pool(1, worker=functools.partial(Late, diary), panic_recovery=policy) as pool:
        assert pool.ask("here").result(PATIENCE) == "here"
    assert diary == ["start"] * 3 + ["stop"]


@pytest.mark.parametrize("where", ["__init__", "on_start"])
def test_a_start_that_never_works_breaks_the_pool(where: str) -> None:
    class Hopeless(Worker):
        def __init__(self) -> None:
            super().__init__()
            if where == "__init__":
                raise OSError("no such model")

        def on_start(self) -> None:
            raise OSError("no such model")

    pool = Pool(2, worker=Hopeless, panic_recovery=PanicRecovery(backoff=QUICK))
    try:
        with pytest.raises(BrokenPool, match="failed to start"):
            pool.ask(1).result(PATIENCE)
    finally:
        pool.drain()
    assert isinstance(why_broken(pool).__cause__, OSError)


def test_the_retries_of_a_start_back_off_on_the_clock(clock: VirtualClock) -> None:
    tries = threading.Semaphore(0)

    class Hopeless(Worker):
        def on_start(self) -> None:
            tries.release()
            raise OSError

    policy = PanicRecovery(backoff=Backoff(initial=1, factor=2, maximum=9, jitter=0, retries=2))
    pool = Pool(1, context=Context(clock=clock), worker=Hopeless, panic_recovery=policy)
    for delay in (1, 2):
        assert tries.acquire(timeout=PATIENCE)
        clock.wait_for_timers()
        clock.advance(delay)
    assert tries.acquire(timeout=PATIENCE)
    assert why_broken(pool)
    pool.drain()


def test_hooks_may_be_coroutines_on_the_workers_loop() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    class Async(Worker):
        async def on_start(self) -> None:  # type: ignore[override]
            await asyncio.sleep(0)
            loops.append(asyncio.get_running_loop())

        async def work(self) -> None:
            loops.append(asyncio.get_running_loop())

        async def on_stop(self) -> None:  # type: ignore[override]
            await asyncio.sleep(0)
            loops.append(asyncio.get_running_loop())

    pool = Pool(1, worker=Async)
    pool.call(Async.work).result(PATIENCE)
    pool.close()  # by then the pool's context has ended, and the hook still runs to its end
    assert len(loops) == 3
    assert len(set(loops)) == 1


def test_a_worker_with_tasks_below_is_told_when_they_are_over() -> None:
    diary, worker = with_diary()
    error = Poisoned()

    with Pool(1, worker=worker, panic_recovery=RESTART) as pool:

        def outer() -> list[Any]:
            inner = pool.call(Diary.fail, error)
            assert isinstance(inner.exception(PATIENCE), TaskPanicked)  # run here, on top
            return list(diary[:1]) + [one for one in diary if one is error]

        assert pool.submit(outer).result(PATIENCE) == ["start"]
        eventually(lambda: error in diary)
        assert pool.ask(1).result(PATIENCE) == 1
    assert sorted(map(str, diary)) == sorted(["start", "start", str(error), "stop"])


def test_a_worker_that_crashes_outside_of_a_task_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from ion_actors.workerpool.mailbox.mailbox import Mailbox

    diary, worker = with_diary()
    crash = threading.Event()
    real = Mailbox.take

    def take(self: Mailbox, taker: Any) -> Any:
        if crash.is_set():
            crash.clear()
            raise Poisoned("from the machinery")
        return real(self, taker)

    monkeypatch.setattr(Mailbox, "take", take)
    with Pool(1, worker=worker) as pool:
        pool.submit(crash.set).result(PATIENCE)
        assert pool.ask(1).result(PATIENCE) == 1
    assert [type(one) for one in diary] == [str, Poisoned, str, str]


def test_nothing_holds_the_state_once_it_is_over(without_gc: None) -> None:
    states: list[weakref.ref[Any]] = []

    class State:
        pass

    class Holder(Worker):
        def on_start(self) -> None:
            self.state = State()
            states.append(weakref.ref(self.state))

        def fail(self) -> None:
            raise Poisoned

    # A record of the panic would hold it.
    quiet = logging.Logger("quiet", logging.CRITICAL + 1)  # noqa: LOG001 - nobody else's
    pool = Pool(1, worker=Holder, panic_recovery=RESTART, logger=quiet)
    pool.call(Holder.fail).exception(PATIENCE)
    pool.submit(pow, 2, 3).result(PATIENCE)
    pool.drain()
    assert FINALIZERS.flush(PATIENCE)  # what had the panic
    gc.collect()
    assert [state() for state in states] == [None, None]


# -- its own ref ---------------------------------------------------------------------------


def test_a_worker_that_stops_itself_is_replaced() -> None:
    diary, worker = with_diary()
    with Pool(1, worker=worker) as pool:
        pool.proxy().leave  # noqa: B018
        pool.call(Diary.leave).result(PATIENCE)
        eventually(lambda: diary == ["start", "stop", "start"])
        assert pool.ask(1).result(PATIENCE) == 1
        assert pool.metrics().restarts == 1


def test_a_worker_that_stops_itself_often_counts_against_the_policy() -> None:
    diary, worker = with_diary()
    pool = Pool(1, worker=worker, panic_recovery=PanicRecovery(max_restarts=1))
    pool.call(Diary.leave).result(PATIENCE)
    eventually(lambda: diary == ["start", "stop", "start"])
    pool.call(Diary.leave).result(PATIENCE)
    assert why_broken(pool)
    pool.drain()
    assert diary == ["start", "stop"] * 2


def test_a_worker_that_stops_in_its_start_has_failed_to_start() -> None:
    tries: list[str] = []

    class Unwilling(Worker):
        def on_start(self) -> None:
            tries.append("start")
            self.stop()

        def on_stop(self) -> None:
            tries.append("stop")

    pool = Pool(1, worker=Unwilling, panic_recovery=PanicRecovery(backoff=QUICK))
    assert why_broken(pool)
    pool.drain()
    assert tries == ["start", "stop"] * 3


def test_messages_to_oneself_come_between_tasks_in_their_order() -> None:
    class Notes(Worker):
        def __init__(self) -> None:
            super().__init__()
            self.notes: list[Any] = []

        def begin(self, gate: Gate) -> None:
            gate()
            for number in range(3):
                self.actor_ref.tell(number)
            self.notes.append("begun")

        def on_receive(self, message: Any) -> Any:
            self.notes.append(message)
            return message

        def ask_later(self) -> pykka.Future[Any]:
            return self.actor_ref.ask("asked", block=False)

        def noted(self) -> list[Any]:
            return list(self.notes)

    with Pool(1, worker=Notes) as pool:
        gate = Gate()
        begun = pool.call(Notes.begin, gate)
        gate.await_entered()
        gate.open()
        begun.result(PATIENCE)
        eventually(lambda: pool.call(Notes.noted).result(PATIENCE) == ["begun", 0, 1, 2])
        assert pool.call(Notes.ask_later).result(PATIENCE).get(timeout=PATIENCE) == "asked"


def test_who_writes_to_itself_for_ever_still_works_and_still_ends() -> None:
    class Restless(Worker):
        rounds = 0

        def on_start(self) -> None:
            self.actor_ref.tell("again")

        def on_receive(self, message: Any) -> Any:
            self.rounds += 1
            self.actor_ref.tell(message)

        def count(self) -> int:
            return self.rounds

    with Pool(1, worker=Restless, drain_timeout=PATIENCE) as pool:
        first = pool.call(Restless.count).result(PATIENCE)
        eventually(lambda: pool.call(Restless.count).result(PATIENCE) > first)
        futures = [pool.submit(pow, 2, 3) for _ in range(20)]
        assert [future.result(PATIENCE) for future in futures] == [8] * 20
        told = pool.broadcast("from outside")
        assert [future.result(PATIENCE) for future in told] == [None]
    assert pool.close().elapsed < PATIENCE / 2


def test_a_message_to_oneself_that_fails_is_logged_or_answered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Writer(Diary):
        def write(self, error: BaseException) -> pykka.Future[Any]:
            self.actor_ref.tell(lambda _: self.fail(error))
            return self.actor_ref.ask(lambda _: self.fail(error), block=False)

    diary: list[Any] = []
    with Pool(1, name="p", worker=functools.partial(Writer, diary)) as pool:
        answer = pool.call(Writer.write, ValueError("bad news")).result(PATIENCE)
        with pytest.raises(ValueError, match="bad news"):
            answer.get(timeout=PATIENCE)
        assert pool.metrics().restarts == 0
    assert "worker p-0 failed on message" in caplog.text


def test_after_the_end_its_ref_is_dead() -> None:
    with Pool(1, worker=functools.partial(Diary, [])) as pool:
        ref: Any = pool.ask(lambda me: me.actor_ref).result(PATIENCE)
        assert ref.is_alive()
        assert ref.ask("hello", timeout=PATIENCE) == "hello"
        assert not ref.ask(lambda me: me.actor_stopped.is_set(), timeout=PATIENCE)
    assert not ref.is_alive()
    with pytest.raises(pykka.ActorDeadError):
        ref.tell("too late")
    ref.actor_stopped.clear()  # as one sees it who looked a moment ago
    ref.tell("too late")
    with pytest.raises(pykka.ActorDeadError):
        ref.ask("too late", timeout=PATIENCE)
    assert pykka.ActorRegistry.get_all() == []


# -- broadcast -----------------------------------------------------------------------------


def test_a_broadcast_reaches_each_worker_once_between_its_tasks() -> None:
    reached: list[Any] = []

    def note(me: Diary) -> str:
        reached.append(me)
        return me.actor_urn

    with Pool(4, worker=functools.partial(Diary, [])) as pool:
        with busy(pool) as gate:
            answers = pool.broadcast(note)
            assert len(answers) == 4
            assert not any(answer.done() for answer in answers)
            gate.open()
            urns = {answer.result(PATIENCE) for answer in answers}
        assert len(urns) == len(reached) == len(set(reached)) == 4
        assert pool.metrics().submitted == 4  # the busy ones


def test_a_broadcast_goes_before_what_is_queued() -> None:
    with Pool(1, worker=functools.partial(Diary, [])) as pool:
        order: list[str] = []
        with busy(pool):
            queued = pool.submit(order.append, "task")
            (answer,) = pool.broadcast(lambda me: order.append("broadcast"))
        queued.result(PATIENCE)
        answer.result(PATIENCE)
        assert order == ["broadcast", "task"]


def test_a_broadcast_waits_for_a_worker_that_is_starting() -> None:
    gate = Gate()

    class Slow(Diary):
        def on_start(self) -> None:
            gate()
            super().on_start()

    diary: list[Any] = []
    with Pool(2, worker=functools.partial(Slow, diary)) as pool:
        gate.await_entered(2)
        answers = pool.broadcast(lambda me: list(me.diary))
        gate.open()
        assert all("start" in answer.result(PATIENCE) for answer in answers)


def test_a_broadcast_to_a_worker_that_does_not_start_says_so() -> None:
    gate = Gate()

    class Hopeless(Worker):
        def on_start(self) -> None:
            gate()
            raise OSError

    pool = Pool(1, worker=Hopeless, panic_recovery=PanicRecovery(backoff=Backoff(retries=0)))
    gate.await_entered()
    (answer,) = pool.broadcast("hello")
    gate.open()
    with pytest.raises(pykka.ActorDeadError):
        answer.result(PATIENCE)
    pool.drain()


def test_a_broadcast_that_is_cancelled_is_not_delivered() -> None:
    reached: list[Any] = []
    with Pool(2, worker=functools.partial(Diary, [])) as pool:
        with busy(pool) as gate:
            one, other = pool.broadcast(reached.append)
            assert one.cancel()
            gate.open()
            other.result(PATIENCE)
        assert not other.cancel()
        pool.ask(1).result(PATIENCE)
    assert len(reached) == 1


def test_a_broadcast_runs_with_the_senders_variables_and_in_the_pools_context() -> None:
    with Pool(1, worker=functools.partial(Diary, [])) as pool:
        TENANT.set("somebody")
        with Context(timeout=PATIENCE):
            (answer,) = pool.broadcast(lambda me: (TENANT.get(), current_context()))
        TENANT.set("nobody")
        tenant, context = answer.result(PATIENCE)
        assert tenant == "somebody"
        assert context is core_of(pool).spec.context
        assert pool.ask(lambda me: TENANT.get()).result(PATIENCE) == "nobody"


def test_workers_answer_a_broadcast_at_the_same_time() -> None:
    meeting = threading.Barrier(3)
    with Pool(3, worker=functools.partial(Diary, [])) as pool:
        answers = pool.broadcast(lambda me: meeting.wait(PATIENCE))
        assert sorted(answer.result(PATIENCE) for answer in answers) == [0, 1, 2]


def test_a_broadcast_may_be_answered_by_a_coroutine() -> None:
    class Async(Worker):
        async def on_receive(self, message: Any) -> Any:
            await asyncio.sleep(0)
            return message

    with Pool(2, worker=Async) as pool:
        assert [answer.result(PATIENCE) for answer in pool.broadcast("hi")] == ["hi", "hi"]


def test_a_coroutine_that_answers_ends_with_the_pool_and_panics_nobody() -> None:
    begun = threading.Event()

    class Async(Worker):
        async def on_receive(self, message: Any) -> Any:
            if message == "cancel":
                raise asyncio.CancelledError
            begun.set()
            await asyncio.sleep(PATIENCE)

    pool = Pool(1, worker=Async)
    (cancelled,) = pool.broadcast("cancel")
    assert isinstance(cancelled.exception(PATIENCE), Cancelled)
    (asleep,) = pool.broadcast("sleep")
    assert begun.wait(PATIENCE)
    report = pool.close()
    assert isinstance(asleep.exception(PATIENCE), Cancelled)
    assert report.elapsed < PATIENCE / 2
    assert pool.metrics().restarts == 0


def test_a_broadcast_is_a_message_to_the_supervisor() -> None:
    with Pool(2, worker=functools.partial(Diary, [])) as pool:
        answers = pool.actor_ref.ask(Broadcast("hi"))
        assert [answer.result(PATIENCE) for answer in answers] == ["hi", "hi"]


def test_what_a_broadcast_raises_is_its_answer_and_no_failed_task() -> None:
    with Pool(2, worker=functools.partial(Diary, [])) as pool:
        for answer in pool.broadcast(lambda me: me.fail(ZeroDivisionError())):
            with pytest.raises(ZeroDivisionError):
                answer.result(PATIENCE)
        assert (pool.metrics().failed, pool.metrics().restarts) == (0, 0)


def test_a_broadcast_can_take_workers_down() -> None:
    diary, worker = with_diary()
    told: list[Any] = []
    policy = PanicRecovery(decide={Poisoned: Directive.RESTART}, handler=told.append)
    with Pool(2, worker=worker, panic_recovery=policy) as pool:
        for answer in pool.broadcast(lambda me: me.fail(Poisoned())):
            with pytest.raises(TaskPanicked, match=r"Diary\.on_receive"):
                answer.result(PATIENCE)
        assert [answer.result(PATIENCE) for answer in pool.broadcast("hi")] == ["hi", "hi"]
        assert pool.metrics().restarts == len(told) == 2
        assert pool.metrics().panicked == 0  # it is no task
    assert sum(isinstance(one, Poisoned) for one in diary) == 2
    assert (diary.count("start"), diary.count("stop")) == (4, 2)


def test_a_task_that_waits_for_its_own_worker_is_told() -> None:
    with Pool(2, worker=functools.partial(Diary, [])) as pool:
        answers: list[Any] = []

        def ask_all() -> None:
            answers.extend(pool.broadcast("hello"))
            for answer in answers:
                answer.result()

        future = pool.options(name="ask_all").submit(ask_all)
        with pytest.raises(DeadlockError, match=r"'ask_all'.*waits for the answer of worker"):
            future.result(PATIENCE)
        assert [answer.result(PATIENCE) for answer in answers] == ["hello"] * 2


def test_tasks_that_wait_for_each_others_workers_are_told() -> None:
    meeting = threading.Barrier(2)
    with Pool(2, worker=functools.partial(Diary, [])) as pool:

        def ask_the_other() -> Any:
            mine = current_worker()
            meeting.wait(PATIENCE)
            [other] = [one for one in pool.broadcast("hello") if not one.is_of(mine)]  # type: ignore[attr-defined]
            meeting.wait(PATIENCE)
            return other.result()

        futures = [pool.submit(ask_the_other) for _ in range(2)]
        outcomes = [future.exception(PATIENCE) for future in futures]
        told = [one for one in outcomes if one is not None]
        assert [type(one) for one in told] == [DeadlockError]
        assert pool.ask("still here").result(PATIENCE) == "still here"


def test_a_task_may_wait_for_another_worker() -> None:
    with Pool(2, worker=functools.partial(Diary, [])) as pool:

        def ask_the_other() -> Any:
            mine = current_worker()
            [other] = [one for one in pool.broadcast("hello") if not one.is_of(mine)]  # type: ignore[attr-defined]
            return other.result()

        assert pool.submit(ask_the_other).result(PATIENCE) == "hello"


def test_a_broadcast_comes_too_late_for_a_pool_that_ends() -> None:
    pool = Pool(1, worker=functools.partial(Diary, []))
    with busy(pool):
        answers = pool.broadcast("in time")
        draining = run_in_thread(pool.drain)
        eventually(lambda: pool.is_draining)
        with pytest.raises(PoolClosed):
            pool.broadcast("too late")
    draining.result(PATIENCE)
    assert [answer.result(PATIENCE) for answer in answers] == ["in time"]
    with pytest.raises(PoolClosed):
        pool.broadcast("too late")


def test_close_cancels_a_broadcast_that_has_not_begun(caplog: pytest.LogCaptureFixture) -> None:
    reached: list[Any] = []
    pool = Pool(1, worker=functools.partial(Diary, []))
    with busy(pool):
        (answer,) = pool.broadcast(reached.append)
        closing = run_in_thread(pool.close)
        eventually(lambda: core_of(pool).spec.context.cancelled)
    closing.result(PATIENCE)
    assert isinstance(answer.exception(), Cancelled)
    del answer
    gc.collect()
    assert not reached
    assert "never read" not in caplog.text


def test_the_end_waits_for_no_answer_that_does_not_come(clock: VirtualClock) -> None:
    gate = Gate()
    pool = Pool(1, context=Context(clock=clock), worker=functools.partial(Diary, []))
    (stuck,) = pool.broadcast(lambda me: gate())
    gate.await_entered()
    (waiting,) = pool.broadcast("never heard")
    closing = run_in_thread(pool.close, 5)
    clock.wait_for_timers()
    clock.advance(5)
    closing.result(PATIENCE)
    assert isinstance(stuck.exception(PATIENCE), TaskAbandoned)
    assert "gate" in str(stuck.exception())
    assert isinstance(waiting.exception(PATIENCE), pykka.ActorDeadError)
    gate.open()  # what it answers now is ignored, and its thread ends
    await_threads(pool)


class Storm:
    """Broadcasts, and all that may happen to a pool meanwhile."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.answers: list[Any] = []
        self.reached: list[tuple[int, Any]] = []

    def broadcast(self, first: int) -> None:
        for number in range(first, first + 30):
            try:
                self.answers += self.pool.broadcast(functools.partial(self._note, number))
            except (PoolClosed, BrokenPool):
                return

    def _note(self, number: int, me: Diary) -> None:
        self.reached.append((number, me))

    def disturb(self, chance: random.Random) -> None:
        deeds = [
            lambda: self.pool.resize(chance.randint(1, 5)),
            lambda: self.answers.append(self.pool.call(Diary.leave)),
            lambda: self.answers.append(self.pool.call(Diary.fail, Poisoned())),
            lambda: self.answers.append(self.pool.ask("hello")),
        ]
        for _ in range(30):
            try:
                chance.choice(deeds)()
            except (PoolClosed, BrokenPool):
                return


@pytest.mark.parametrize("seed", range(5))
def test_whatever_happens_meanwhile_every_answer_comes(seed: int, threads: Any) -> None:
    diary, worker = with_diary()
    pool = Pool(3, 50, worker=worker, panic_recovery=RESTART)
    storm = Storm(pool)
    work = [threads.submit(storm.broadcast, first) for first in (0, 100)]
    work += [threads.submit(storm.disturb, random.Random(2 * seed + which)) for which in range(2)]
    if seed % 2:
        pool.close()
    for one in work:
        one.result(PATIENCE)
    pool.drain()
    expected = (str, type(None), TaskPanicked, pykka.ActorDeadError)
    for answer in storm.answers:
        if not answer.cancelled():
            outcome = answer.exception(PATIENCE)
            assert isinstance(outcome, (*expected, Cancelled))
    assert len(set(storm.reached)) == len(storm.reached)
    ended = diary.count("stop") + sum(isinstance(one, Poisoned) for one in diary)
    assert diary.count("start") == ended
    assert pykka.ActorRegistry.get_all() == []
