"""The thread of an actor: whatever interrupts its start, it has begun or is forgotten."""

import threading

import pytest

from ion_actors import Pool
from ion_actors.actors import ActorThread
from tests.interrupts import KINDS, every_point, interrupt

PATIENCE = 30.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_start_that_is_interrupted_leaves_no_thread_that_never_begins(
    kind: type[BaseException],
) -> None:
    def make(point: int) -> str:
        ran, ended = threading.Event(), threading.Event()
        thread = ActorThread(ran.set, "actor", lambda _: ended.set())
        try:
            where, outcome = interrupt(point, thread.start, kind)
            del outcome  # its frames
        except KeyError:  # threading's own, of a thread that was quicker
            where = "struck off by its own start"
        if thread.began:
            assert ran.wait(PATIENCE), where
            thread.join(PATIENCE)
        assert thread not in threading.enumerate(), where
        return where

    assert len(every_point(make)) > 5


def test_a_thread_that_is_struck_off_while_it_begins_runs_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Quicker(dict[object, object]):
        """An interrupted start() removes the thread just before the thread itself does."""

        removals = 0

        def __delitem__(self, key: object) -> None:
            super().__delitem__(key)
            if isinstance(key, ActorThread):
                self.removals += 1
                if self.removals == 1:
                    raise KeyError(key)

    monkeypatch.setattr(threading, "_limbo", Quicker())
    ran, ended = threading.Event(), threading.Event()
    thread = ActorThread(ran.set, "actor", lambda _: ended.set())
    thread.start()
    assert ran.wait(PATIENCE)
    assert ended.wait(PATIENCE)
    thread.join(PATIENCE)
    assert thread not in threading.enumerate()


@pytest.fixture
def stillborn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of threads that are to end before they can say that they have begun."""
    names: list[str] = []
    begin = threading.Thread._bootstrap  # type: ignore[attr-defined]

    def fail(thread: threading.Thread) -> None:
        if thread.name in names:
            names.remove(thread.name)
            raise SystemExit  # as MemoryError, but nobody shows it
        begin(thread)

    monkeypatch.setattr(threading.Thread, "_bootstrap", fail)
    return names


def test_a_thread_that_dies_before_it_begins_keeps_nobody_waiting(stillborn: list[str]) -> None:
    stillborn.append("actor")
    ended = threading.Event()
    thread = ActorThread(lambda: None, "actor", lambda _: ended.set())
    thread.start()
    assert ended.wait(PATIENCE)
    assert thread.over
    assert not thread.is_alive()
    assert thread not in threading.enumerate()


def test_a_worker_whose_thread_dies_before_it_begins_is_replaced(stillborn: list[str]) -> None:
    stillborn.append("p-0")
    with Pool(1, name="p") as pool:
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8
    assert stillborn == []
