"""``map``, ``filter``, ``join``, ``reduce`` and get hooks."""

from __future__ import annotations

import asyncio
import concurrent.futures
import operator
import threading

import pykka
import pytest

from ion_actors import Cancelled, Future, FutureAlreadySet

DERIVE = {
    "map": lambda future, func: future.map(lambda items: [func(one) for one in items]),
    "filter": lambda future, func: future.filter(lambda one: func(one) or True),
    "join": lambda future, func: future.join(Future_of(0)).map(lambda pair: func(pair[0]) or pair),
    "reduce": lambda future, func: future.reduce(lambda one, two: func(two) or one),
}


def Future_of(value):
    future = Future()
    future.set(value)
    return future


every_kind = pytest.mark.parametrize("derive", DERIVE.values(), ids=DERIVE)


@every_kind
def test_a_derived_future_settles_unasked(derive):
    source = Future()
    derived = derive(source, lambda one: None)
    told = []
    derived.add_done_callback(told.append)
    assert not derived.done()
    source.set([1, 2])
    assert derived.done()
    assert told == [derived]
    assert concurrent.futures.wait([derived], 0).done == {derived}


@every_kind
def test_a_derived_future_calls_its_function_once_however_often_it_is_asked(derive):
    calls = []
    source = Future()
    derived = derive(source, calls.append)
    source.set([1, 2])
    before = len(calls)
    assert before in (1, 2)
    assert derived.get() == derived.result() == derived.get(timeout=0)
    assert len(calls) == before


@every_kind
def test_an_error_of_the_function_is_the_derived_futures(derive):
    source = Future()
    derived = derive(source, lambda one: 1 / 0)
    source.set([1, 2])
    assert type(derived.exception()) is ZeroDivisionError
    assert source.exception() is None


@every_kind
def test_an_error_of_the_source_passes_through(derive):
    error = ValueError()
    source = Future()
    derived = derive(source, lambda one: None)
    source.set_exception(error)
    assert derived.exception() is error


@every_kind
def test_a_cancelled_source_makes_a_derived_future_that_raises_cancelled(derive):
    source = Future()
    derived = derive(source, lambda one: None)
    source.cancel()
    with pytest.raises(Cancelled):
        derived.result(0)


@every_kind
def test_waiting_for_a_derived_future_ends_when_the_time_is_up(derive):
    derived = derive(Future(), lambda one: None)
    with pytest.raises(pykka.Timeout):
        derived.get(timeout=0)
    with pytest.raises(TimeoutError):
        derived.result(0)


def test_a_cancelled_derived_future_does_not_call_its_function():
    calls = []
    source = Future()
    derived = source.map(calls.append)
    derived.cancel()
    source.set(1)
    assert calls == []
    assert concurrent.futures.wait([derived], 0).done == {derived}  # it was announced
    assert not source.cancelled()


def test_values():
    items = Future_of([1, 2, 3, 4])
    assert items.map(len).get() == 4
    assert items.filter(lambda one: one % 2).get() == [1, 3]
    assert items.reduce(operator.add).get() == 10
    assert items.reduce(operator.add, 5).get() == 15
    assert items.join(Future_of("x")).get() == [[1, 2, 3, 4], "x"]
    assert items.map(len).map(str).get() == "4"


def test_join_takes_the_values_in_its_own_order_and_waits_for_all():
    one, two, three = Future(), Future(), Future()
    joined = one.join(two, three)
    three.set(3)
    one.set(1)
    assert not joined.done()
    two.set(2)
    assert joined.get() == [1, 2, 3]


def test_join_of_one_future_twice():
    one = Future()
    joined = one.join(one)
    one.set("x")
    assert joined.get() == ["x", "x"]


def test_join_settles_once_when_all_settle_at_once(threads):
    for _ in range(100):
        calls, sources, barrier = [], [Future() for _ in range(4)], threading.Barrier(4)
        joined = sources[0].join(*sources[1:]).map(calls.append)

        def settle(one):
            barrier.wait(30)
            one.set(1)

        for one in [threads.submit(settle, source) for source in sources]:
            one.result(30)
        assert joined.result(0) is None
        assert calls == [[1, 1, 1, 1]]


def test_join_takes_pykkas_own_futures_and_asks_them_in_its_turn():
    theirs = pykka.ThreadingFuture()
    joined = Future_of(1).join(theirs)
    with pytest.raises(pykka.Timeout):
        joined.get(timeout=0)
    theirs.set(2)
    assert joined.get() == [1, 2]


# -- get hooks ---------------------------------------------------------------------------


def hooked(hook):
    future = Future()
    future.set_get_hook(hook)
    return future


@pytest.mark.parametrize("ask", [lambda f: f.get(timeout=3), lambda f: f.result(3)])
def test_a_hook_is_asked_once_with_the_timeout(ask):
    asked = []
    future = hooked(asked.append)
    assert ask(future) is None
    assert ask(future) is None
    assert asked == [3]
    assert future.done()


def test_a_hooks_error_is_raised_and_not_kept():
    answers = [ValueError(), pykka.Timeout(), 7]

    def hook(timeout):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    future = hooked(hook)
    with pytest.raises(ValueError):  # noqa: PT011
        future.get()
    with pytest.raises(pykka.Timeout):
        future.get()
    assert future.get() == 7


def test_a_future_with_a_hook_takes_no_outcome_and_one_with_an_outcome_no_hook():
    future = hooked(lambda timeout: 1)
    with pytest.raises(FutureAlreadySet):
        future.set(2)
    with pytest.raises(FutureAlreadySet):
        future.set_exception(ValueError())
    with pytest.raises(FutureAlreadySet):
        Future_of(1).set_get_hook(lambda timeout: 2)
    assert future.get() == 1


def test_many_who_ask_at_once_ask_the_hook_once(threads):
    asked, barrier = [], threading.Barrier(8)
    future = hooked(lambda timeout: asked.append(1) or "x")

    def ask():
        barrier.wait(30)
        return future.get()

    assert [one.result(30) for one in [threads.submit(ask) for _ in range(8)]] == ["x"] * 8
    assert asked == [1]


def test_one_who_asks_while_the_hook_is_busy_gives_up_in_time(threads):
    inside, leave = threading.Event(), threading.Event()
    future = hooked(lambda timeout: (inside.set(), leave.wait(30)))
    first = threads.submit(future.get)
    assert inside.wait(30)
    with pytest.raises(pykka.Timeout):
        future.get(timeout=0.01)
    leave.set()
    first.result(30)


def test_settling_by_a_hook_runs_the_callbacks_and_derived_futures_ask():
    told, future = [], hooked(lambda timeout: 20)
    future.add_done_callback(told.append)
    mapped = future.map(lambda value: value + 1)
    assert mapped.get() == 21
    assert told == [future]


def test_a_cancelled_future_does_not_ask_its_hook():
    future = hooked(lambda timeout: 1 / 0)
    assert future.cancel()
    with pytest.raises(Cancelled):
        future.get()


def test_awaiting_a_hooked_future_asks_in_another_thread():
    asked = []

    async def main():
        return await hooked(lambda timeout: asked.append(threading.current_thread()) or 5)

    assert asyncio.run(main()) == 5
    assert asked != [threading.current_thread()]


@pytest.mark.parametrize("error", [ValueError("x"), pykka.Timeout("x")])
def test_awaiting_a_future_whose_hook_fails_ends(error):
    # With a pykka.Timeout it never did.
    def hook(timeout):
        raise error

    async def main():
        await asyncio.wait_for(hooked(hook), 10)

    with pytest.raises(type(error)):
        asyncio.run(main())
