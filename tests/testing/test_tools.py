"""The other tools for tests: the order of steps, the recorders, the search for leaks."""

from __future__ import annotations

import multiprocessing
import threading

import pykka
import pytest

import ion_actors.testing
from ion_actors import Context
from ion_actors.observe import Metrics, Span, Tracer
from ion_actors.testing import (
    RecordingMetrics,
    RecordingTracer,
    SequenceBroken,
    Sequencer,
    assert_no_leaks,
)


def test_what_is_public_is_sorted():
    assert ion_actors.testing.__all__ == sorted(ion_actors.testing.__all__)
    assert ion_actors.__all__ == sorted(ion_actors.__all__)


# -- Sequencer ---------------------------------------------------------------------------


def test_steps_run_in_order_whichever_thread_they_are_in(threads):
    seq, log = Sequencer(), []

    def work(*steps):
        for step in steps:
            with seq(step):
                log.append(step)

    work_of_three = [threads.submit(work, *range(start, 12, 3)) for start in (2, 1, 0)]
    for one in work_of_three:
        one.result(30)
    assert log == list(range(12))


def test_a_step_waits_until_the_one_before_has_ended(threads):
    seq, log = Sequencer(), []
    inside, leave = threading.Event(), threading.Event()

    def first():
        with seq(0):
            inside.set()
            leave.wait(30)
            log.append("first is done")

    running = threads.submit(first)
    assert inside.wait(30)
    leave.set()
    with seq(1):
        log.append("second")
    running.result(30)
    assert log == ["first is done", "second"]


def test_a_step_that_never_comes_is_named():
    seq = Sequencer(patience=0.01)
    with pytest.raises(SequenceBroken, match="step 1 cannot run: step 0 never came"), seq(1):
        pass


def test_a_step_that_does_not_end_is_named(threads):
    seq = Sequencer(patience=0.01)
    with seq(0):
        blocked = threads.submit(seq(1).__enter__)
        with pytest.raises(SequenceBroken, match="step 0 has begun and not ended"):
            blocked.result(30)


def test_a_step_that_raises_breaks_those_that_wait_at_once(threads):
    seq = Sequencer(patience=60)
    waiting = threads.submit(seq(1).__enter__)
    with pytest.raises(ZeroDivisionError), seq(0):
        1 / 0  # noqa: B018
    with pytest.raises(SequenceBroken, match="an earlier one failed") as caught:
        waiting.result(30)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_step_is_used_once():
    seq = Sequencer()
    with seq(0):
        pass
    with pytest.raises(RuntimeError, match="step 0 was used before"), seq(0):
        pass


@pytest.mark.parametrize("step", [-1, "a", 1.0, True])
def test_a_step_is_a_whole_number(step):
    with pytest.raises((TypeError, ValueError), match="step"), Sequencer()(step):
        pass


# -- recorders ---------------------------------------------------------------------------


def test_recording_metrics_are_metrics_and_add_up_by_label():
    metrics = RecordingMetrics()
    assert isinstance(metrics, Metrics)
    metrics.inc("tasks", pool="a", status="ok")
    metrics.add("tasks", 2.5, pool="a", status="bad")
    metrics.inc("tasks", pool="b", status="ok")
    assert metrics.count("tasks") == 4.5
    assert metrics.count("tasks", pool="a") == 3.5
    assert metrics.count("tasks", pool="a", status="ok") == 1
    assert metrics.count("tasks", pool="c") == metrics.count("others") == 0


def test_recording_metrics_know_the_last_of_a_gauge_and_all_of_a_histogram():
    metrics = RecordingMetrics()
    for value in (3, 1, 2):
        metrics.gauge("queue", value, pool="a")
        metrics.histogram("seconds", value, pool="a")
    assert metrics.last("queue", pool="a") == 2
    assert metrics.last("queue", pool="b") is None
    assert metrics.observed("seconds") == [3, 1, 2]
    assert metrics.names() == {"queue", "seconds"}


def test_recording_metrics_lose_nothing_of_many_threads(threads):
    metrics, barrier = RecordingMetrics(), threading.Barrier(8)

    def work():
        barrier.wait(30)
        for _ in range(1000):
            metrics.inc("tasks")

    for one in [threads.submit(work) for _ in range(8)]:
        one.result(30)
    assert metrics.count("tasks") == 8000


def test_a_recording_tracer_is_a_tracer_and_finds_its_spans():
    tracer = RecordingTracer()
    assert isinstance(tracer, Tracer)
    first = tracer.start("task", task="a", worker="w")
    second = tracer.start("other", task="b")
    assert isinstance(first, Span)
    assert tracer.spans() == [first, second]
    assert tracer.spans("task") == tracer.spans(worker="w") == [first]
    assert tracer.count("task", task="b") == 0
    assert first.thread == threading.current_thread().name


def test_a_recorded_span_tells_how_it_was_finished():
    tracer, error = RecordingTracer(), ValueError()
    fine, failed, open_ = (tracer.start("task") for _ in range(3))
    fine.finish()
    failed.finish(error)
    assert (fine.finishes, fine.error) == (1, None)
    assert failed.error is error
    assert tracer.unfinished() == [open_]
    assert "finishes=0" in repr(open_)


# -- leaks -------------------------------------------------------------------------------


def test_a_thread_that_stays_is_a_leak_and_is_named():
    leave = threading.Event()
    thread = threading.Thread(target=leave.wait, args=(10,), name="the-leak")
    with pytest.raises(AssertionError, match=r"left behind: .*the-leak"), assert_no_leaks(0.01):
        thread.start()
    leave.set()
    thread.join()


def test_a_thread_that_is_about_to_end_gets_its_time():
    with assert_no_leaks():
        threading.Thread(target=threading.Event().wait, args=(0.05,)).start()


def test_an_actor_that_stays_is_a_leak():
    with pytest.raises(AssertionError, match=r"left behind: .*Forgotten"), assert_no_leaks(0.01):
        ref = Forgotten.start()
    ref.stop()


class Forgotten(pykka.ThreadingActor):
    pass


def test_an_actor_that_is_about_to_end_gets_its_time():
    with assert_no_leaks():
        Forgotten.start().stop(block=False)


def test_a_child_process_that_stays_is_a_leak():
    spawn = multiprocessing.get_context("spawn")
    leave = spawn.Event()
    child = spawn.Process(target=leave.wait, args=(30,), name="the-child")
    with pytest.raises(AssertionError, match=r"left behind: .*the-child"), assert_no_leaks(0.01):
        child.start()
    leave.set()
    child.join(30)
    assert child.exitcode == 0


def test_a_callback_with_a_far_deadline_is_a_leak():
    context = Context(timeout=3600)
    with pytest.raises(AssertionError, match="1 timers of the system clock"), assert_no_leaks(0.01):
        context.add_callback(print)
    context.cancel()


def test_an_error_in_the_block_is_not_hidden_by_a_leak():
    leave = threading.Event()
    thread = threading.Thread(target=leave.wait, args=(10,))
    with pytest.raises(ZeroDivisionError), assert_no_leaks(0.01):
        thread.start()
        1 / 0  # noqa: B018
    leave.set()
    thread.join()


def test_what_was_there_before_is_no_leak():
    leave = threading.Event()
    thread = threading.Thread(target=leave.wait, args=(10,))
    thread.start()
    with assert_no_leaks(0.01):
        pass
    leave.set()
    thread.join()
