"""Calls that are made later, by a thread that may block."""

from __future__ import annotations

import _thread
import os
import threading
from collections.abc import Iterator

import pytest

from ion_actors.delivery import CallbackThreads, CallQueue, is_kept_free

PATIENCE = 30.0
SHORT = 0.05  # seconds for what must time out


@pytest.fixture
def lost() -> list[int]:
    return []


@pytest.fixture
def delivery(lost: list[int]) -> Iterator[CallQueue]:
    found = CallQueue("ion_actors-log", lost.append, limit=10)
    yield found
    assert found.flush(PATIENCE)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    found = threading.Event()
    yield found
    found.set()


def test_calls_are_made_in_order_by_a_thread_of_its_own(delivery):
    made = []
    for number in range(10):
        delivery.post(lambda number=number: made.append((number, threading.current_thread().name)))
    assert delivery.flush(PATIENCE)
    assert made == [(number, "ion_actors-log") for number in range(10)]


def test_the_thread_ends_when_there_is_nothing_and_begins_again(delivery):
    threads = []
    for _ in range(2):
        delivery.post(lambda: threads.append(threading.current_thread()))
        assert delivery.flush(PATIENCE)
        threads[-1].join(PATIENCE)
        assert not threads[-1].is_alive()
    assert threads[0] is not threads[1]


def test_what_finds_no_room_is_counted_and_told_later(delivery, lost, gate):
    begun, made = threading.Event(), []
    delivery.post(lambda: (begun.set(), gate.wait()))
    assert begun.wait(PATIENCE)
    posted = [delivery.post(lambda: made.append(1)) for _ in range(12)]
    assert posted == [True] * 9 + [False] * 3
    assert lost == []
    gate.set()
    assert delivery.flush(PATIENCE)
    assert (len(made), lost) == (9, [3])


def test_a_call_that_raises_is_lost_and_the_next_one_is_made(delivery, lost):
    made = []
    delivery.post(lambda: 1 / 0)
    delivery.post(lambda: made.append(1))
    assert delivery.flush(PATIENCE)
    assert (made, lost) == ([1], [1])


def test_nobody_waits_for_long_and_not_a_second_time(delivery, gate):
    begun = threading.Event()
    delivery.post(lambda: (begun.set(), gate.wait()))
    assert begun.wait(PATIENCE)
    assert not delivery.flush(SHORT)
    waiting = delivery._entries
    before = len(waiting)
    assert not delivery.flush(SHORT)  # at once: the call takes that long already
    assert len(waiting) == before


def test_the_thread_does_not_wait_for_itself(delivery):
    found = []
    delivery.post(lambda: found.append((delivery.flush(PATIENCE), is_kept_free())))
    assert delivery.flush(PATIENCE)
    assert found == [(False, True)]
    assert not is_kept_free()


def test_where_no_thread_can_be_started_calls_wait_for_the_next_chance(delivery, monkeypatch):
    made = []

    def refuse(*_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", refuse)
        assert delivery.post(lambda: made.append(1))
        assert not delivery.flush(SHORT)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert delivery.post(lambda: made.append(2))
        assert not delivery.flush(SHORT)
    assert made == []
    assert delivery.flush(PATIENCE)
    assert made == [1, 2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_delivers_its_own_and_nothing_of_its_parents(delivery, gate):
    begun, made = threading.Event(), []
    delivery.post(lambda: (begun.set(), gate.wait()))
    assert begun.wait(PATIENCE)
    delivery.post(lambda: made.append("parent"))
    child = os.fork()
    if not child:
        delivery.post(lambda: made.append("child"))
        os._exit(0 if delivery.flush(PATIENCE) and made == ["child"] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_burst_from_many_threads_is_delivered_whole(lost):
    made, delivery = [], CallQueue("ion_actors-log", lost.append, limit=10_000)

    def post_many() -> None:
        for _ in range(500):
            delivery.post(lambda: made.append(1))

    threads = [threading.Thread(target=post_many) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert delivery.flush(PATIENCE)
    assert (len(made), lost) == (4000, [])


def test_a_call_whose_thread_dies_before_it_begins_is_made_by_the_next_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads, made = CallbackThreads(), []
    with monkeypatch.context() as patch:
        patch.setattr(threads, "_start", lambda: True)  # nothing more is heard of that one
        threads.post(lambda: made.append("first"))
    for name in "second", "third":
        threads.post(lambda name=name: made.append(name))
        assert threads.flush(PATIENCE)
    assert made == ["first", "second", "third"]
