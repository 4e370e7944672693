"""Workers with state: calls, messages, and what becomes of the state."""

from __future__ import annotations

import asyncio
import functools
import pickle
import threading
from typing import Any

import pykka
import pykka.typing
import pytest

from ion_actors import (
    BrokenPool,
    Context,
    DeadlineExceeded,
    Directive,
    Overflow,
    PanicRecovery,
    Pool,
    TaskPanicked,
    Worker,
)
from ion_actors.actors.stateful import Method, Receive, Residence
from ion_actors.testing import VirtualClock
from tests.workerpool.helpers import PATIENCE, Gate, busy, eventually, is_logged, why_broken


class Poisoned(Exception):
    """The state of whoever raised this is not to be trusted."""


class Counter(Worker):
    """Counts for itself."""

    step = 1
    count: int

    def __init__(self, start: int = 0) -> None:
        super().__init__()
        self.count = start

    def add(self, amount: int = 1) -> int:
        self.count += amount
        return self.count

    async def add_later(self, amount: int) -> int:
        await asyncio.sleep(0)
        return self.add(amount)

    def fail(self, error: BaseException) -> None:
        raise error

    def where(self) -> int:
        return threading.get_ident()

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, BaseException):
            raise message
        return message, self.count

    @property
    def double(self) -> int:
        return 2 * self.count

    @classmethod
    def made_of(cls) -> str:
        return cls.__name__

    @staticmethod
    def square(number: int) -> int:
        return number * number


class Diary(Worker):
    """Writes down what happens to it."""

    def __init__(self, diary: list[Any]) -> None:
        super().__init__()
        self.diary = diary

    def on_start(self) -> None:
        self.diary.append("start")

    def on_stop(self) -> None:
        self.diary.append("stop")

    def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
        assert exception_type is type(exception_value)
        assert exception_value.__traceback__ is traceback
        self.diary.append(exception_value)

    def fail(self, error: BaseException) -> None:
        raise error

    def nothing(self) -> None:
        pass


# -- calls ---------------------------------------------------------------------------------


def test_a_worker_keeps_its_state_from_call_to_call() -> None:
    with Pool(1, worker=Counter) as pool:
        counter = pool.proxy()
        assert [counter.add(2).result(PATIENCE) for _ in range(3)] == [2, 4, 6]
        assert counter.add(amount=4).get(timeout=PATIENCE) == 10


def test_each_worker_has_its_own() -> None:
    with Pool(3, worker=Counter) as pool:
        meeting = threading.Barrier(3)
        add = pool.method(Counter.add)

        def meet() -> int:
            meeting.wait(PATIENCE)
            return add()

        rounds = [[pool.submit(meet) for _ in range(3)] for _ in range(2)]
        assert [[future.result(PATIENCE) for future in one] for one in rounds] == [[1] * 3, [2] * 3]


def test_arguments_of_the_class_come_by_partial() -> None:
    with Pool(1, worker=functools.partial(Counter, start=40)) as pool:
        assert pool.call(Counter.add, 2).result(PATIENCE) == 42


def test_calls_are_tasks_with_all_that_tasks_have(clock: VirtualClock) -> None:
    gate = Gate()
    with Pool(1, worker=Counter, context=Context(clock=clock)) as pool:
        assert list(pool.map(pool.method(Counter.add), [1, 2, 3])) == [1, 3, 6]
        slow = pool.options(timeout=1, name="slow").submit(gate)
        gate.await_entered()
        clock.advance(1)
        with pytest.raises(DeadlineExceeded, match="slow"):
            slow.result(PATIENCE)
        gate.open()
        assert pool.options(name="named").proxy().add(1).result(PATIENCE) == 7
        with pytest.raises(ZeroDivisionError):
            pool.proxy().fail(ZeroDivisionError()).result(PATIENCE)
        with busy(pool):
            waiting = pool.proxy().add(1)
            assert pool.metrics().queued == 1
            assert waiting.cancel()
        assert pool.call(Counter.add, 0).result(PATIENCE) == 7


def test_a_call_is_named_for_its_class_and_method() -> None:
    with Pool(1, name="p", worker=Counter) as pool:
        with pytest.raises(TaskPanicked, match=r"task 'Counter\.fail' panicked"):
            pool.proxy().fail(SystemExit()).result(PATIENCE)
        with pytest.raises(TaskPanicked, match=r"task 'Counter\.on_receive' panicked"):
            pool.ask(SystemExit()).result(PATIENCE)


def test_a_coroutine_method_runs_on_the_workers_loop() -> None:
    with Pool(1, worker=Counter) as pool:
        assert pool.proxy().add_later(3).result(PATIENCE) == 3
        assert pool.call(Counter.add_later, 3).result(PATIENCE) == 6

        async def main() -> int:
            first = await pool.asubmit(pool.method(Counter.add_later), 1)
            return await first

        assert asyncio.run(main()) == 7


def test_a_method_that_submits_to_its_own_pool_and_waits_is_helped() -> None:
    class Recursive(Worker):
        def fib(self, n: int) -> int:
            if n < 2:
                return n
            below = [pool.call(Recursive.fib, n - 1), pool.call(Recursive.fib, n - 2)]
            return sum(future.result(PATIENCE) for future in below)

    with Pool(1, 1, worker=Recursive) as pool:
        assert pool.call(Recursive.fib, 8).result(PATIENCE) == 21


def test_eight_threads_call_and_nothing_is_lost(threads: Any) -> None:
    with Pool(4, 16, worker=Counter) as pool:

        def call_often(amount: int) -> None:
            counter = pool.proxy()
            for future in [counter.add(amount) for _ in range(200)]:
                future.result(PATIENCE)

        for done in [threads.submit(call_often, 1 + number) for number in range(8)]:
            done.result(PATIENCE)
        answers = [future.result(PATIENCE) for future in pool.broadcast("how much?")]
        assert sum(count for _, count in answers) == 200 * sum(range(1, 9))


def test_type_checkers_can_be_told_what_a_proxy_is() -> None:
    class Typed(pykka.typing.ActorMemberMixin):
        add = pykka.typing.proxy_method(Counter.add)

    with Pool(1, worker=Counter) as pool:
        assert pool.proxy(Typed).add(5).get(timeout=PATIENCE) == 5  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="kind must be a class"):
            pool.proxy("Typed")  # type: ignore[call-overload]


def test_the_method_of_a_subclass_is_the_one_that_is_called() -> None:
    class Twice(Counter):
        def add(self, amount: int = 1) -> int:
            return super().add(2 * amount)

    with Pool(1, worker=Twice) as pool:
        assert pool.call(Counter.add, 1).result(PATIENCE) == 2
        assert pool.call(Twice.add, 1).result(PATIENCE) == 4


@pytest.mark.parametrize("method", [Diary.nothing, Counter.made_of, print, "add", None])
def test_a_method_that_the_class_does_not_have_is_refused_at_once(method: Any) -> None:
    with Pool(1, worker=Counter) as pool:
        with pytest.raises(TypeError, match="is not a method of Counter"):
            pool.call(method)
        assert pool.metrics().submitted == 0


# -- the proxy -----------------------------------------------------------------------------


def test_a_proxy_gives_attributes_as_futures() -> None:
    with Pool(1, worker=Counter) as pool:
        counter = pool.proxy()
        counter.add(4).result(PATIENCE)
        assert counter.count.result(PATIENCE) == 4
        assert counter.double.result(PATIENCE) == 8
        assert counter.step.result(PATIENCE) == 1
        assert counter.made_of().result(PATIENCE) == "Counter"
        assert counter.square(3).result(PATIENCE) == 9
        assert counter.on_receive("hello").result(PATIENCE) == ("hello", 4)


def test_a_call_can_be_deferred(caplog: pytest.LogCaptureFixture) -> None:
    with Pool(1, worker=Counter) as pool:
        counter = pool.proxy()
        assert counter.add.defer(5) is None
        assert counter.add().result(PATIENCE) == 6
        counter.fail.defer(Poisoned("nobody hears this"))
    eventually(lambda: is_logged("Poisoned: nobody hears this", caplog))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("subtract", "Counter has no 'subtract'.*must be declared in the class"),
        ("_private", "'_private' is private"),
        ("stop", "the pool starts and stops its workers"),
        ("actor_ref", "the pool starts and stops its workers"),
        ("on_start", "the pool starts and stops its workers"),
    ],
)
def test_what_a_proxy_has_not_is_named(name: str, message: str) -> None:
    with Pool(1, worker=Counter) as pool, pytest.raises(AttributeError, match=message):
        getattr(pool.proxy(), name)


def test_nothing_is_set_through_a_proxy() -> None:
    with (
        Pool(1, worker=Counter) as pool,
        pytest.raises(AttributeError, match="use broadcast"),
    ):
        pool.proxy().count = 3


def test_a_proxy_shows_what_it_has() -> None:
    with Pool(1, worker=Counter) as pool:
        counter = pool.proxy()
        assert {"add", "count", "double", "step"} <= set(dir(counter))
        assert repr(counter) == "<proxy of Counter>"
        assert repr(counter.add) == "<proxy of Counter.add>"
        assert counter.add is counter.add


def test_a_proxy_reaches_into_what_is_traversable() -> None:
    class Playback:
        volume = 3

        def play(self) -> str:
            return "la la"

    class Player(pykka.ThreadingActor):
        playback = pykka.traversable(Playback())

    with Pool(1, worker=Player) as pool:
        player = pool.proxy()
        assert player.playback.play().result(PATIENCE) == "la la"
        assert player.playback.volume.result(PATIENCE) == 3
        with pytest.raises(AttributeError, match=r"Player\.playback has no 'pause'"):
            player.playback.pause  # noqa: B018


# -- messages ------------------------------------------------------------------------------


def test_ask_and_tell_reach_on_receive(caplog: pytest.LogCaptureFixture) -> None:
    with Pool(1, worker=Counter) as pool:
        assert pool.ask("hello").result(PATIENCE) == ("hello", 0)
        assert pool.tell("hello") is None
        with pytest.raises(Poisoned):
            pool.ask(Poisoned()).result(PATIENCE)
        pool.tell(Poisoned("told"))
        assert pool.metrics().restarts == 0
    assert pool.metrics().submitted == 4
    eventually(lambda: is_logged("Poisoned: told", caplog))


def test_pykkas_own_messages_are_understood() -> None:
    with Pool(1, worker=Counter) as pool:
        call = pykka.messages.ProxyCall(("add",), (3,), {})
        assert pool.ask(call).result(PATIENCE) == 3
        assert pool.ask(pykka.messages.ProxyGetAttr(("count",))).result(PATIENCE) == 3


# -- an actor class of pykka's, unchanged ---------------------------------------------------


def test_an_actor_class_of_pykka_is_pooled_unchanged() -> None:
    class Plain(pykka.ThreadingActor):
        def __init__(self, greeting: str) -> None:
            super().__init__()
            self.greeting = greeting
            self._in_future = self.actor_ref.proxy()
            self.later: list[str] = []

        def greet(self, name: str) -> str:
            self._in_future.note(name)
            return f"{self.greeting} {name}"

        def note(self, name: str) -> None:
            self.later.append(name)

        def noted(self) -> list[str]:
            return self.later

        def on_receive(self, message: Any) -> Any:
            return self.actor_urn, self.actor_ref.is_alive()

    with Pool(1, worker=functools.partial(Plain, "hello")) as pool:
        plain = pool.proxy()
        assert plain.greet("you").result(PATIENCE) == "hello you"
        eventually(lambda: plain.noted().result(PATIENCE) == ["you"])
        urn, alive = pool.ask(None).result(PATIENCE)
        assert urn.startswith("urn:uuid:")
        assert alive
        threads = [one for one in threading.enumerate() if one.name.startswith(f"{pool.name}-")]
        assert len(threads) == 2  # the supervisor, and the worker
        assert pykka.ActorRegistry.get_by_class(Plain) == []
    assert pykka.ActorRegistry.get_all() == []
    with pytest.raises(AttributeError, match="declared"):
        plain.greeting  # noqa: B018
    plain_ref = Plain.start("hello")  # and it is what it was
    assert plain_ref.proxy().greet("me").get() == "hello me"
    plain_ref.stop()


def test_stop_all_of_pykka_ends_the_pool_and_all_that_live_in_it() -> None:
    diary: list[Any] = []
    pool = Pool(2, worker=functools.partial(Diary, diary))
    pool.call(Diary.nothing).result(PATIENCE)
    eventually(lambda: diary == ["start"] * 2)
    pykka.ActorRegistry.stop_all()
    pool.close()
    assert diary == ["start"] * 2 + ["stop"] * 2
    assert pykka.ActorRegistry.get_all() == []


# -- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize("worker", [int, "Counter", Counter.add, functools.partial(int), object()])
def test_a_worker_that_is_no_actor_class_is_refused(worker: Any) -> None:
    with pytest.raises(TypeError, match="worker must be a subclass"):
        Pool(1, worker=worker)


def test_callers_have_no_state_to_run_a_call_with() -> None:
    with pytest.raises(ValueError, match="caller_runs"):
        Pool(1, worker=Counter, overflow=Overflow.CALLER_RUNS)


@pytest.mark.parametrize(
    "verb",
    [
        lambda pool: pool.proxy(),
        lambda pool: pool.call(Counter.add),
        lambda pool: pool.method(Counter.add),
        lambda pool: pool.ask(1),
        lambda pool: pool.tell(1),
        lambda pool: pool.broadcast(1),
        lambda pool: pool.options(name="x").proxy(),
    ],
)
def test_a_pool_without_a_worker_class_says_so(verb: Any) -> None:
    with Pool(1, name="plain") as pool:
        with pytest.raises(TypeError, match=r"'plain' has no worker class.*worker="):
            verb(pool)
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8


def test_a_call_that_comes_to_another_pool_says_where_it_belongs() -> None:
    with Pool(1, worker=Counter) as pool, Pool(1) as other:
        method = pool.method(Counter.add)
        with pytest.raises(RuntimeError, match=r"Counter\.add can only run in a worker"):
            other.submit(method).result(PATIENCE)


def test_a_class_that_forgets_its_base_is_named(caplog: pytest.LogCaptureFixture) -> None:
    class Forgetful(pykka.ThreadingActor):
        def __init__(self) -> None:
            pass

    from ion_actors import Backoff

    policy = PanicRecovery(backoff=Backoff(retries=0))
    pool = Pool(1, worker=Forgetful, panic_recovery=policy)
    assert why_broken(pool)
    pool.drain()
    assert "does not call super().__init__()" in caplog.text


def test_what_is_sent_where_tasks_run_can_be_pickled() -> None:
    method, receive = pickle.loads(pickle.dumps((Method("Counter", "add"), Receive("Counter"))))
    assert (method.__qualname__, receive.__qualname__) == ("Counter.add", "Counter.on_receive")
    residence = pickle.loads(pickle.dumps(Residence.checked(functools.partial(Counter, start=3))))
    assert residence.actor_class is Counter


# -- what becomes of the state --------------------------------------------------------------


@pytest.mark.parametrize(
    ("directive", "panics", "left"),
    [
        (Directive.RESUME, False, [7]),
        (Directive.RESTART, True, [0]),
        (Directive.STOP, True, []),
    ],
)
def test_the_directive_decides_about_the_state(
    directive: Directive, panics: bool, left: list[int]
) -> None:
    policy = PanicRecovery(decide={Poisoned: directive})
    with Pool(1, worker=Counter, panic_recovery=policy) as pool:
        counter = pool.proxy()
        counter.add(7).result(PATIENCE)
        if not left:  # another one, which is to be left
            pool.resize(2)
        error = counter.fail(Poisoned()).exception(PATIENCE)
        assert isinstance(error, TaskPanicked) is panics
        if left:
            assert counter.count.result(PATIENCE) == left[0]
        else:
            assert pool.size == 1


def test_escalate_breaks_the_pool_with_the_cause() -> None:
    diary: list[Any] = []
    policy = PanicRecovery(decide={Poisoned: Directive.ESCALATE})
    pool = Pool(1, worker=functools.partial(Diary, diary), panic_recovery=policy)
    error = Poisoned()
    pool.proxy().fail(error).exception(PATIENCE)
    with pytest.raises(BrokenPool) as broken:
        pool.proxy().nothing()
    assert broken.value.__cause__ is error
    pool.drain()
    assert diary == ["start", error]
