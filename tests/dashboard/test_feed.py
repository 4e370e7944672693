"""Samples for all viewers together: when they are taken, and what they cost."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ion_actors import logs
from ion_actors.dashboard.feed import Feed

Until = Callable[[Callable[[], object]], None]

POOL = dict.fromkeys(
    ("queued", "delayed", "running", "completed", "failed", "panicked", "cancelled"), 0
)


class Program:
    """A process to look at, which counts the looks."""

    def __init__(self) -> None:
        self.looks = 0
        self.glances = 0
        self.error: Exception | None = None

    def look(self) -> dict[str, Any]:
        self.looks += 1
        if self.error is not None:
            raise self.error
        return {"time": 1.0, "pools": [{"id": "@1", "name": "a", **POOL}]}

    def glance(self) -> dict[str, Any]:
        self.glances += 1
        return {"pools": [{"id": "@1", **POOL}]}

    def feed(self, *, always: bool = False, interval: float = 1000.0) -> Feed:
        return Feed(self.look, self.glance, always=always, interval=interval)


def threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name == "ion_actors-dashboard"]


def test_nothing_happens_while_nobody_looks() -> None:
    program = Program()
    program.feed()
    assert threads() == []
    assert (program.looks, program.glances) == (0, 0)


def test_viewers_share_what_is_taken(until: Until) -> None:
    program = Program()
    feed = program.feed()
    with feed.viewer():
        until(lambda: feed.frame.data)
        with feed.viewer(), feed.viewer(), feed.viewer():
            assert feed.frame.number == 1
        assert len(threads()) == 1
    until(lambda: not threads())
    assert program.looks == 1
    found = json.loads(feed.frame.data)
    assert found["snapshot"]["pools"][0]["name"] == "a"
    assert found["points"]["pools"] == {"@1": [0, 0, None, None, None, None]}


def test_a_new_viewer_does_not_wait_for_the_next_sample(until: Until) -> None:
    program = Program()
    feed = program.feed(always=True)
    until(lambda: program.glances == 1)
    with feed.viewer():
        until(lambda: feed.frame.data)
    feed.close()
    assert program.looks == 1


def test_what_was_seen_long_ago_is_not_shown_as_new(until: Until) -> None:
    program = Program()
    feed = program.feed()
    with feed.viewer():
        until(lambda: feed.frame.data)
    until(lambda: not threads())
    program.error = RuntimeError("not now")
    with feed.viewer():
        until(lambda: program.looks == 2)
        assert feed.frame.data == b""
    feed.close()


def test_history_is_kept_while_nobody_looks(until: Until) -> None:
    program = Program()
    feed = program.feed(always=True, interval=0.001)
    until(lambda: program.glances > 5)
    feed.close()
    assert len(feed.history()["times"]) >= 5
    assert program.looks == 0
    assert feed.frame.data == b""


def test_a_look_that_fails_is_logged_once(until: Until, caplog: pytest.LogCaptureFixture) -> None:
    program = Program()
    program.error = RuntimeError("no such thing")
    feed = program.feed(interval=0.001)
    with feed.viewer():
        until(lambda: program.looks > 5)
        program.error = None
        until(lambda: feed.frame.data)
    feed.close()
    assert logs.flush()
    assert caplog.text.count("the dashboard could not look: no such thing") == 1


def test_a_closed_feed_takes_none() -> None:
    program = Program()
    feed = program.feed()
    feed.close()
    with feed.viewer():
        assert threads() == []
    assert program.looks == 0


def test_a_costly_look_is_taken_less_often(until: Until) -> None:
    """The thread takes at most a hundredth of a CPU."""
    program = Program()
    done = threading.Event()

    def costly() -> dict[str, Any]:
        sum(range(1_000_000))
        return program.look()

    feed = Feed(costly, program.glance, interval=0.001)
    with feed.viewer():
        until(lambda: feed.frame.data)
        assert not done.wait(0.2)
    feed.close()
    assert program.looks <= 2  # else there would have been as many as there is time for


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_begins_anew(until: Until) -> None:
    program = Program()
    feed = program.feed(always=True, interval=0.001)
    with feed.viewer():
        until(lambda: feed.frame.number > 3)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                with feed.viewer():  # a thread of its own
                    until(lambda: feed.frame.number > 0)
                feed.close()
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
    feed.close()
