"""The thread of an actor: whatever interrupts its start, it has begun or is forgotten."""

import threading

import pytest

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
