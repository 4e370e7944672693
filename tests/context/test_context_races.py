"""Contexts used by several threads at the same moment."""

from __future__ import annotations

import threading

import pytest

from ion_actors import Cancelled, Context
from ion_actors.testing import VirtualClock
from tests.inside import callbacks_on, lock_of

ROUNDS = 300
PATIENCE = 30.0


def together(threads, *calls):
    """Make the calls in threads of their own, from one starting shot; returns what they return."""
    barrier = threading.Barrier(len(calls))

    def start(call):
        barrier.wait(PATIENCE)
        return call()

    running = [threads.submit(start, call) for call in calls]
    return [one.result(PATIENCE) for one in running]


def test_a_callback_added_while_its_context_is_cancelled_runs_once(threads):
    for _ in range(ROUNDS):
        parent = Context()
        context, told = Context(parent), []
        together(
            threads, parent.cancel, *[lambda: context.add_callback(lambda: told.append(1))] * 3
        )
        assert told == [1, 1, 1]


def test_a_callback_removed_while_its_context_is_cancelled_runs_at_most_once(threads):
    for _ in range(ROUNDS):
        parent = Context()
        context, told = Context(parent), []
        registration = context.add_callback(lambda: told.append(1))
        together(threads, context.cancel, parent.cancel, registration.remove)
        assert len(told) <= 1
        assert not callbacks_on(parent)
        assert context.cancelled


def test_of_many_who_cancel_exactly_one_is_told_that_it_did(threads):
    for _ in range(ROUNDS):
        context, told = Context(), []
        context.add_callback(lambda: told.append(1))
        answers = together(threads, *[lambda n=n: context.cancel(str(n)) for n in range(4)])
        assert answers.count(True) == 1
        assert context.reason == str(answers.index(True))
        assert told == [1]


def test_adding_and_removing_at_once_loses_no_link_to_the_parent(threads):
    for _ in range(ROUNDS):
        parent = Context()
        context, told = Context(parent), []
        first = context.add_callback(lambda: told.append("first"))
        together(
            threads,
            first.remove,
            lambda: context.add_callback(lambda: told.append("second")),
            lambda: context.add_callback(lambda: told.append("third")).remove(),
        )
        parent.cancel()
        assert told == ["second"]


def test_when_all_callbacks_are_removed_at_once_no_link_stays(threads):
    for _ in range(ROUNDS):
        parent = Context(timeout=60, clock=VirtualClock())
        context = Context(parent)

        def come_and_go():
            context.add_callback(print).remove()

        together(threads, *[come_and_go] * 4)
        assert not callbacks_on(context)
        assert not callbacks_on(parent)
        assert parent.clock.timers == 0


def test_a_deadline_and_a_cancellation_end_a_context_once(threads):
    for _ in range(ROUNDS):
        clock = VirtualClock()
        context, told = Context(timeout=1, clock=clock), []
        context.add_callback(lambda: told.append(context.reason))
        together(threads, lambda: clock.advance(1), context.cancel, lambda: context.cancelled)
        assert told == [context.reason]


def test_whoever_sees_the_end_sees_the_reason(threads):
    for _ in range(ROUNDS // 5):
        context = Context()

        def look():
            while not context.cancelled:
                pass
            return context.reason

        answers = together(threads, lambda: context.cancel("the reason"), look, look)
        assert answers[1:] == ["the reason", "the reason"]


def test_everybody_who_waits_wakes_up(threads):
    for _ in range(ROUNDS // 10):
        root = Context()
        contexts = [Context(root) for _ in range(8)]
        answers = together(threads, root.cancel, *[one.wait for one in contexts])
        assert answers == [True] * 9


def test_a_child_made_while_its_parent_is_cancelled_ends_as_well(threads):
    for _ in range(ROUNDS):
        parent = Context()

        def child():
            told = []
            Context(parent).add_callback(lambda: told.append(1))
            return told

        told = together(threads, parent.cancel, child, child)[1:]
        assert told == [[1], [1]]


def test_a_sleeper_and_the_one_who_cancels_never_miss_each_other(threads):
    for _ in range(ROUNDS):
        context = Context()

        def sleep():
            with pytest.raises(Cancelled):
                context.sleep(3600)

        together(threads, context.cancel, sleep)


def test_passing_through_while_children_come_and_the_root_ends_loses_nobody(threads):
    for _ in range(ROUNDS):
        root = Context()
        middle, told = Context(root), []

        def child():
            below = Context(middle)
            below.add_callback(lambda: told.append(1))

        together(threads, child, middle.pass_through, child, root.cancel)
        assert told == [1, 1]


def test_passing_through_while_children_come_and_go_leaves_nothing(threads):
    for _ in range(ROUNDS):
        root = Context()
        middle = Context(root)
        kept = Context(middle)
        registration = kept.add_callback(print)

        def come_and_go():
            Context(middle).add_callback(print).remove()

        together(threads, come_and_go, middle.pass_through, come_and_go)
        assert not callbacks_on(middle)
        assert len(callbacks_on(root)) == 1
        registration.remove()
        assert not callbacks_on(root)


def test_a_finalizer_or_a_signal_handler_may_end_a_context_that_its_thread_is_at():
    # Either can run anywhere, and do anything. With a plain lock, the thread waited for itself.
    context, told = Context(), []
    context.add_callback(lambda: told.append(1))
    with lock_of(context):
        context.cancel("by a finalizer")
    assert told == [1]


def test_a_listener_that_goes_while_its_link_is_on_the_way_leaves_no_link():
    class Parent(Context):
        def _keep(self, registration):
            child.add_callback(lambda: None).remove()
            for one in callbacks_on(child):
                one.remove()
            return super()._keep(registration)

    parent = Parent()
    child = Context(parent)
    child.add_callback(print)
    assert not callbacks_on(child)
    assert not callbacks_on(parent)
