"""The future as ``concurrent.futures`` and ``pykka`` know it, and where the two disagree."""

from __future__ import annotations

import _thread
import concurrent.futures
import copy
import logging
import pickle
import queue
import sys
import threading
import traceback

import pykka
import pytest

from ion_actors import Cancelled, Future, FutureAlreadySet
from ion_actors.futures import get_all
from tests.inside import lock_of


def done(value):
    future = Future()
    future.set_result(value)
    return future


def failed(error):
    future = Future()
    future.set_exception(error)
    return future


def raised_by(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


# -- one class, two faces ----------------------------------------------------------------


def test_it_is_both_futures():
    future = Future()
    assert isinstance(future, concurrent.futures.Future)
    assert isinstance(future, pykka.Future)


def test_it_has_every_public_name_of_both():
    for face in (concurrent.futures.Future, pykka.Future, pykka.ThreadingFuture):
        assert {name for name in dir(face) if not name.startswith("_")} <= set(dir(Future))


def test_it_has_no_attribute_that_tornado_would_call():
    assert not hasattr(Future(), "exc_info")


@pytest.mark.parametrize(
    "again",
    [copy.copy, copy.deepcopy, *[lambda f, p=p: pickle.dumps(f, p) for p in range(5 + 1)]],
)
def test_it_cannot_be_copied_or_pickled(again):
    with pytest.raises(TypeError, match="cannot pickle or copy a Future"):
        again(Future())


@pytest.mark.parametrize(
    ("prepare", "shown"),
    [
        (lambda future: None, "state=pending>"),
        (lambda future: future.set_running_or_notify_cancel(), "state=running>"),
        (lambda future: future.cancel(), "state=cancelled>"),
        (
            lambda future: (future.cancel(), future.set_running_or_notify_cancel()),
            "state=cancelled>",
        ),
        (lambda future: future.set_result(1), "state=finished returned int>"),
        (
            lambda future: (future.set_exception(OSError()), future.exception()),
            "state=finished raised OSError>",
        ),
    ],
)
def test_repr_is_the_usual_one(prepare, shown):
    future = Future()
    prepare(future)
    assert repr(future).startswith("<Future at 0x")
    assert repr(future).endswith(shown)


# -- waiting -----------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0, 0.01, -1])
def test_result_and_exception_raise_timeout_error_and_get_raises_pykkas(timeout):
    future = Future()
    for ask in (future.result, future.exception):
        error = raised_by(ask, timeout)
        assert type(error) is TimeoutError
    assert type(raised_by(future.get, timeout=timeout)) is pykka.Timeout


@pytest.mark.parametrize("error", [TimeoutError("own"), pykka.Timeout("own"), queue.Full("own")])
def test_a_tasks_own_error_passes_through_both_faces_unchanged(error):
    future = failed(error)
    assert raised_by(future.result, 0) is error
    assert raised_by(future.get, timeout=0) is error
    assert future.exception(0) is error


def test_every_way_to_ask_gives_the_value():
    future = done(42)
    assert future.result() == future.get() == future.result(0) == future.get(timeout=0) == 42
    assert future.exception() is None


def test_those_who_wait_get_the_value_when_it_comes(threads):
    future = Future()
    waiting = [threads.submit(ask) for ask in [future.result, future.get] * 8]
    future.set("x")
    assert [one.result(30) for one in waiting] == ["x"] * 16


def test_a_cancelled_future_raises_cancelled_from_every_face():
    future = Future()
    assert future.cancel()
    for ask in (future.result, future.get, future.exception):
        error = raised_by(ask)
        assert type(error) is Cancelled
        assert isinstance(error, concurrent.futures.CancelledError)


def test_a_raised_exception_shows_where_it_came_from_and_where_it_was_read():
    def deep():
        raise ValueError("deep")

    future = Future()
    try:
        deep()
    except ValueError as error:
        future.set_exception(error)
    names = [frame.name for frame in traceback.extract_tb(raised_by(future.get).__traceback__)]
    assert names.index("get") < names.index("deep")


# -- settling ----------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["set", "set_result", "set_exception"])
@pytest.mark.parametrize("second", ["set", "set_result", "set_exception"])
def test_a_second_outcome_fails_with_an_error_that_is_both(first, second):
    future = Future()
    getattr(future, first)(ValueError("first"))
    error = raised_by(getattr(future, second), ValueError("second"))
    assert type(error) is FutureAlreadySet
    assert isinstance(error, concurrent.futures.InvalidStateError)
    assert isinstance(error, queue.Full)
    assert "first" in repr(future._result or future.exception())


def test_a_cancelled_future_takes_no_outcome():
    future = Future()
    future.cancel()
    with pytest.raises(FutureAlreadySet):
        future.set_result(1)


def test_set_without_a_value_sets_none():
    future = Future()
    future.set()
    assert future.get() is None


def test_set_exception_takes_an_exception():
    error = ValueError()
    assert failed(error).exception() is error


def test_set_exception_takes_a_triple_with_its_traceback():
    try:
        raise ValueError("x")
    except ValueError:
        triple = sys.exc_info()
    future = failed(triple)
    assert future.exception() is triple[1]
    assert future.exception().__traceback__ is triple[2]


def test_set_exception_takes_a_triple_of_a_class_alone():
    assert type(failed((ValueError, None, None)).exception()) is ValueError


def test_set_exception_takes_nothing_for_the_one_being_handled():
    future = Future()
    try:
        raise ValueError("x")
    except ValueError as error:
        expected = error
        future.set_exception()
    assert future.exception() is expected


@pytest.mark.parametrize("wrong", [None, "x", 1, (None, None, None), int])
def test_set_exception_refuses_what_is_none(wrong):
    future = Future()
    with pytest.raises(TypeError, match="takes an exception"):
        future.set_exception(wrong)
    assert not future.done()


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_any_base_exception_can_be_an_outcome(error):
    assert raised_by(failed(error).result) is error


def test_an_exception_that_is_false_is_one_all_the_same():
    class Falsy(Exception):
        def __bool__(self):
            return False

    future = failed(Falsy())
    assert type(raised_by(future.result)) is type(raised_by(future.get)) is Falsy


# -- the executor's side -----------------------------------------------------------------


def test_a_started_future_cannot_be_cancelled():
    future = Future()
    assert future.set_running_or_notify_cancel() is True
    assert future.running()
    assert future.cancel() is False
    assert not future.cancelled()


def test_a_cancelled_future_is_announced_once():
    future = Future()
    future.cancel()
    assert future.cancel() is True
    assert future.set_running_or_notify_cancel() is False
    with pytest.raises(RuntimeError, match="unexpected state"):
        future.set_running_or_notify_cancel()
    assert future.cancel() is True


@pytest.mark.parametrize("settle", ["set_result", "set_exception", "cancel"])
def test_all_who_wait_are_woken_and_those_who_only_count_are_not_told_twice(threads, settle):
    future = Future()
    parked = [threads.submit(raised_by_result, future) for _ in range(4)]
    timed = threads.submit(raised_by_result, future, 20)
    counting = threads.submit(concurrent.futures.wait, [future], 20)
    while len(future._waiters) < 5:  # four who are parked, and the one who counts
        threads.submit(int).result()
    if settle == "cancel":
        assert future.cancel()
    else:
        getattr(future, settle)(ZeroDivisionError("x"))
    kind = {"set_exception": ZeroDivisionError, "cancel": Cancelled, "set_result": type(None)}
    assert {type(one.result(20)) for one in [*parked, timed]} == {kind[settle]}
    if settle == "cancel":
        assert not future.set_running_or_notify_cancel()
    assert counting.result(20).done == {future}


def raised_by_result(future, timeout=None):
    try:
        future.result(timeout)
    except Exception as error:
        return error
    return None


def test_a_signal_that_did_not_wake_the_main_thread_is_heard_all_the_same(threads):
    """One that came just before it blocked is only noted; interrupt_main() notes one."""
    future = Future()

    def interrupt():
        while not future._waiters:
            pass
        _thread.interrupt_main()

    interrupting = threads.submit(interrupt)
    with pytest.raises(KeyboardInterrupt):
        future.result()
    interrupting.result(20)
    assert not future._waiters


def test_who_is_interrupted_while_it_waits_leaves_nothing_behind(monkeypatch):
    def interrupted(lock):
        (parked,) = future._waiters
        assert parked.release == lock.release
        raise KeyboardInterrupt

    future = Future()
    monkeypatch.setattr("ion_actors.futures.future.acquire", interrupted)
    with pytest.raises(KeyboardInterrupt):
        future.result()
    assert not future._waiters
    future.set_result(1)


def test_wait_counts_a_cancelled_future_only_once_it_is_announced(threads):
    future = Future()
    future.cancel()
    assert concurrent.futures.wait([future], 0).not_done == {future}
    waiting = threads.submit(concurrent.futures.wait, [future], 5)
    future.set_running_or_notify_cancel()
    assert waiting.result(30).done == {future}


@pytest.mark.parametrize("when", concurrent.futures._base.FIRST_COMPLETED.split())
def test_wait_for_the_first(when, threads):
    ours, theirs = Future(), concurrent.futures.Future()
    waiting = threads.submit(concurrent.futures.wait, [ours, theirs], 5, when)
    ours.set(1)
    assert waiting.result(30).done == {ours}


def test_wait_for_the_first_exception(threads):
    fine, bad, open_ = Future(), Future(), Future()
    waiting = threads.submit(concurrent.futures.wait, [fine, bad, open_], 5, "FIRST_EXCEPTION")
    fine.set(1)
    bad.set_exception(ValueError())
    assert waiting.result(30).done >= {bad}
    assert isinstance(bad.exception(), ValueError)


def test_wait_and_as_completed_from_many_threads_at_once(threads):
    futures = [Future() for _ in range(50)]
    barrier = threading.Barrier(13)

    def wait():
        barrier.wait(30)
        return len(concurrent.futures.wait(futures, 10).done)

    def as_completed():
        barrier.wait(30)
        return len({id(one) for one in concurrent.futures.as_completed(futures, 10)})

    waiting = [threads.submit(call) for call in [wait, as_completed] * 6]
    barrier.wait(30)
    for number, future in enumerate(futures):
        if number % 3:
            future.set(number)
        else:
            future.cancel()
            future.set_running_or_notify_cancel()
    assert [one.result(30) for one in waiting] == [50] * 12
    assert all(not one._waiters for one in futures)


# -- callbacks ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settle",
    [
        lambda future: future.set_result(1),
        lambda future: (future.set_exception(ValueError()), future.exception()),
        lambda future: future.cancel(),
    ],
)
def test_a_callback_runs_once_with_the_future_however_it_ends(settle):
    future, told = Future(), []
    future.add_done_callback(told.append)
    settle(future)
    assert told == [future]
    future.add_done_callback(told.append)
    assert told == [future, future]


def test_callbacks_run_in_order_and_an_error_in_one_is_logged(caplog):
    future, told = Future(), []

    def fail(_):
        raise ValueError("in the callback")

    for callback in (lambda _: told.append(1), fail, lambda _: told.append(2)):
        future.add_done_callback(callback)
    with caplog.at_level(logging.ERROR, "ion_actors"):
        future.set(0)
    assert told == [1, 2]
    assert "exception calling callback" in caplog.text
    assert "in the callback" in caplog.text


def test_an_exit_in_a_callback_does_not_end_the_thread_that_settles(threads, caplog):
    # It is an executor's thread, or an actor's: pykka would stop every actor of the process.
    future, told = Future(), []

    def leave(_):
        raise SystemExit("not here")

    future.add_done_callback(leave)
    future.add_done_callback(lambda _: told.append(1))
    threads.submit(future.set, 0).result(30)
    assert told == [1]
    assert "not here" in caplog.text


def test_an_exit_in_a_callback_reaches_the_main_thread():
    future = Future()
    future.add_done_callback(lambda _: sys.exit(3))
    with pytest.raises(SystemExit):
        future.set(0)
    assert future.result() == 0


def test_a_callback_may_use_the_future_and_no_lock_is_held():
    future, told = Future(), []

    def callback(one):
        one.add_done_callback(lambda two: told.append(two.result()))
        told.append(one.cancel())

    future.add_done_callback(callback)
    future.set("x")
    assert told == ["x", False]


# -- races -------------------------------------------------------------------------------


def together(threads, *calls):
    barrier = threading.Barrier(len(calls))

    def start(call):
        barrier.wait(30)
        try:
            return call()
        except FutureAlreadySet as error:
            return error

    running = [threads.submit(start, call) for call in calls]
    return [one.result(30) for one in running]


def test_of_many_outcomes_exactly_one_is_taken(threads):
    for _ in range(200):
        future, told = Future(), []
        future.add_done_callback(told.append)
        answers = together(threads, future.cancel, *[lambda n=n: future.set(n) for n in range(3)])
        taken = [answer for answer in answers[1:] if answer is None]
        assert len(taken) + (answers[0] is True) == 1
        assert told == [future]
        assert future.cancelled() is answers[0]


def test_a_callback_added_while_the_future_is_settled_runs_once(threads):
    for _ in range(200):
        future, told = Future(), []
        together(threads, future.set, *[lambda: future.add_done_callback(told.append)] * 3)
        assert told == [future] * 3


def test_whoever_begins_to_wait_while_the_future_is_settled_is_woken(threads):
    for _ in range(200):
        future = Future()
        answers = together(threads, lambda: future.set(1), *[lambda: future.result(30)] * 3)
        assert answers == [None, 1, 1, 1]


def test_starting_and_cancelling_at_once_agree(threads):
    for _ in range(200):
        future = Future()
        started, cancelled = together(threads, future.set_running_or_notify_cancel, future.cancel)
        assert started is not cancelled


def test_a_signal_handler_may_settle_the_future_that_its_thread_is_at():
    # As with CPython's: the lock was not reentrant, so the thread waited for itself.
    future, told = Future(), []
    future.add_done_callback(told.append)
    with lock_of(future):
        future.cancel()
    assert told == [future]


def test_a_callback_is_not_lost_if_a_signal_handler_settles_the_future_just_then():
    class Interrupted(Future):
        @property
        def _done_callbacks(self):
            self.cancel()
            return super()._done_callbacks

    future, told = Interrupted(), []
    future.add_done_callback(told.append)
    assert told == [future]


def test_get_all_is_pykkas_and_takes_ours():
    assert get_all([done(1), done(2)]) == pykka.get_all([done(1), done(2)]) == [1, 2]
    with pytest.raises(pykka.Timeout):
        get_all([done(1), Future()], timeout=0)
