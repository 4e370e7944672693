"""What a task says of how far it is, its future shows."""

from __future__ import annotations

import logging
import pickle
import threading

import pytest

from ion_actors import Future, Pool, Progress, report_progress


def test_a_future_shows_the_last_report_and_keeps_it():
    half, go_on = threading.Event(), threading.Event()

    def task():
        report_progress(0.25)
        report_progress(0.5, "half")
        half.set()
        assert go_on.wait(30)
        report_progress(1)
        return "done"

    with Pool(1) as pool:
        future = pool.submit(task)
        assert half.wait(30)
        assert future.progress == Progress(0.5, "half")
        go_on.set()
        assert future.result() == "done"
    assert future.progress == Progress(1.0)
    assert isinstance(future.progress.fraction, float)


def test_who_reports_nothing_has_no_progress():
    with Pool(1) as pool:
        future = pool.submit(pow, 2, 2)
        future.result()
    assert future.progress is None
    assert Future().progress is None


def test_a_task_that_failed_shows_how_far_it_came():
    def task():
        report_progress(0.75, "nearly")
        raise ValueError

    with Pool(1) as pool:
        future = pool.submit(task)
        assert isinstance(future.exception(), ValueError)
    assert future.progress == Progress(0.75, "nearly")


def test_a_coroutine_reports_like_any_task():
    async def task():
        report_progress(0.1)

    with Pool(1) as pool:
        future = pool.submit(task)
        future.result()
    assert future.progress == Progress(0.1)


def test_a_task_that_runs_in_the_middle_of_another_reports_for_itself():
    def inner():
        report_progress(0.1, "inner")

    def outer(pool):
        report_progress(0.2, "outer before")
        child = pool.submit(inner)
        child.result()
        assert child.progress == Progress(0.1, "inner")
        report_progress(0.3, "outer after")

    with Pool(1) as pool:
        future = pool.submit(outer, pool)
        future.result()
    assert future.progress == Progress(0.3, "outer after")


def test_outside_a_task_it_does_nothing():
    report_progress(0.5)

    def task():
        other = threading.Thread(target=report_progress, args=(0.5,))
        other.start()
        other.join()

    with Pool(1) as pool:
        future = pool.submit(task)
        future.result()
    assert future.progress is None


def test_a_done_callback_is_not_the_task():
    with Pool(1) as pool:
        gate = threading.Event()
        future = pool.submit(gate.wait, 10)
        future.add_done_callback(lambda _: report_progress(0.5))
        gate.set()
        future.result()
    assert future.progress is None


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((-0.1,), ValueError),
        ((1.1,), ValueError),
        ((float("nan"),), ValueError),
        (("half",), TypeError),
        ((True,), TypeError),
        ((0.5, None), TypeError),
        ((0.5, b"half"), TypeError),
    ],
)
def test_what_makes_no_sense_is_refused_also_outside_a_task(arguments, error):
    with pytest.raises(error, match=r"fraction|message"):
        report_progress(*arguments)


def test_callbacks_are_called_at_each_report_in_the_order_they_came():
    begin = threading.Event()
    seen = []

    def task():
        assert begin.wait(30)
        report_progress(0.1)
        report_progress(0.2)

    with Pool(1) as pool:
        future = pool.submit(task)
        future.add_progress_callback(lambda one: seen.append(("a", one, one.progress.fraction)))
        future.add_progress_callback(lambda one: seen.append(("b", one, one.progress.fraction)))
        begin.set()
        future.result()
    assert seen == [(who, future, n) for n in (0.1, 0.2) for who in "ab"]


def test_a_callback_that_fails_harms_neither_the_task_nor_the_others(caplog):
    begin = threading.Event()
    seen = []

    def task():
        assert begin.wait(30)
        report_progress(0.1)
        return "done"

    def fail(_):
        raise SystemExit

    with Pool(1) as pool:
        future = pool.submit(task)
        future.add_progress_callback(fail)
        future.add_progress_callback(seen.append)
        begin.set()
        assert future.result() == "done"
        assert pool.metrics().panicked == 0
    assert seen == [future]
    assert [one.levelno for one in caplog.records] == [logging.ERROR]


def test_of_a_task_that_was_given_up_nobody_wants_to_know():
    running, go_on, reported = threading.Event(), threading.Event(), threading.Event()

    def task():
        running.set()
        assert go_on.wait(30)
        report_progress(0.5)
        reported.set()

    pool = Pool(1)
    future = pool.submit(task)
    assert running.wait(30)
    pool.close(0)
    assert future.done()
    go_on.set()
    assert reported.wait(30)
    assert future.progress is None


def test_progress_is_a_plain_fact():
    assert pickle.loads(pickle.dumps(Progress(0.5, "x"))) == Progress(0.5, "x")
    with pytest.raises(AttributeError):
        Progress(0.5).fraction = 1
