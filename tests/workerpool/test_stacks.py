"""Where a thread is, with the GIL and without it."""

from __future__ import annotations

import gc
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ion_actors.workerpool import stacks
from ion_actors.workerpool.stacks import stack_of

from_outside = stacks._stack_while_all_stand_still


@contextmanager
def waiting(depth: int = 0) -> Iterator[threading.Thread]:
    """A thread that waits, so many calls deep."""
    entered, gate = threading.Event(), threading.Event()

    def descend(left):
        if left:
            return descend(left - 1)
        entered.set()
        return gate.wait(30)  # here it is

    thread = threading.Thread(target=descend, args=(depth,), name="waits")
    thread.start()
    assert entered.wait(30)
    try:
        yield thread
    finally:
        gate.set()
        thread.join(30)


def places(stack: str) -> list[str]:
    return [line for line in stack.splitlines() if line.startswith("  File ")]


def in_this_file(stack: str) -> list[str]:
    return [line for line in places(stack) if __file__ in line]


def test_it_is_told_as_in_a_traceback():
    with waiting(depth=3) as thread:
        stack = stack_of(thread)
        assert [line.split()[-1] for line in in_this_file(stack)] == ["descend"] * 4
        assert "_bootstrap" in places(stack)[0], "the outermost call comes first"
        assert "gate.wait(30)  # here it is" in stack


def test_both_ways_tell_the_same():
    with waiting(depth=3) as thread:
        assert thread.ident is not None
        seen = from_outside(thread.ident)
        assert in_this_file(seen) == in_this_file(stack_of(thread))
        assert "    return gate.wait(30)  # here it is\n" in seen


def test_without_the_gil_no_frame_of_a_thread_that_runs_is_touched(monkeypatch):
    monkeypatch.setattr(stacks, "_has_gil", lambda: False)
    monkeypatch.setattr(stacks, "_can_stop_all", True)
    monkeypatch.delattr(sys, "_current_frames")
    with waiting() as thread:
        assert "here it is" in stack_of(thread)
        monkeypatch.setattr(stacks, "_can_stop_all", False)
        assert stack_of(thread) == ""


def test_threads_that_run_can_be_looked_at():
    over, begun = threading.Event(), threading.Barrier(3)

    def work():
        begun.wait(30)
        while not over.is_set():
            sorted(range(10), key=lambda number: -number)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    begun.wait(30)
    try:
        for thread in threads * 10:
            assert "in work\n" in stack_of(thread)
    finally:
        over.set()
        for thread in threads:
            thread.join(30)


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("may_collect", [True, False])
def test_no_garbage_is_collected_while_frames_are_looked_at(monkeypatch, enabled, may_collect):
    look, seen = sys._current_frames, []
    monkeypatch.setattr(stacks, "_may_collect", may_collect)
    monkeypatch.setattr(sys, "_current_frames", lambda: seen.append(gc.isenabled()) or look())
    if not enabled:
        gc.disable()
    try:
        with waiting() as thread:
            assert "here it is" in stack_of(thread)
            assert gc.isenabled() is enabled, "as before"
    finally:
        gc.enable()
    assert seen == [enabled and not may_collect]


def test_a_look_while_all_is_collected_all_the_time_hangs_nobody():
    """Looked at as in CPython's issue 106883: threads begin and end, and a collection runs code."""
    over = threading.Event()
    watches: list[weakref.ref[Garbage]] = []

    def begin_and_end():
        while not over.is_set():
            one = threading.Thread(target=make_garbage)
            one.start()
            one.join()

    def make_garbage():
        kept = Garbage()
        kept.itself = kept
        watches.append(weakref.ref(kept, lambda _: sorted(range(500))))
        del watches[:-500]

    threads = [threading.Thread(target=begin_and_end) for _ in range(3)]
    before, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(5)
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for _ in range(1000):
            for thread in threading.enumerate():
                stack_of(thread)
    finally:
        gc.set_threshold(*before)
        sys.setswitchinterval(interval)
        over.set()
        for thread in threads:
            thread.join(30)


class Garbage:
    """May be watched, and refer to itself."""


def test_of_a_deep_stack_the_innermost_calls_are_seen():
    with waiting(depth=300) as thread:
        assert thread.ident is not None
        seen = from_outside(thread.ident)
        assert "here it is" in seen
        assert "Previous line repeated" in seen
        assert "_bootstrap" not in seen


@pytest.mark.parametrize("look", [stack_of, lambda t: from_outside(t.ident)])
def test_where_there_is_no_thread_there_is_no_stack(look):
    with waiting() as thread:
        pass
    assert look(thread) == ""
    assert stack_of(None) == ""
    assert stack_of(threading.Thread(target=print)) == ""


def test_without_room_for_a_file_there_is_no_stack(monkeypatch):
    def full():
        raise OSError("no space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with waiting() as thread:
        assert thread.ident is not None
        assert from_outside(thread.ident) == ""


def test_a_dump_as_later_versions_write_it_is_understood():
    dump = """\
Thread 0x00007f01 [other] (most recent call first):
  File "other.py", line 1 in other

Thread 0x00007f02 [mine] (most recent call first):
  File "in.py", line 2 in inner
  File "unknown.py", line ??? in lost
  File "out.py", line 3 in outer
  ...

Current thread 0x00007f03 [main] (most recent call first):
  File "main.py", line 4 in main
"""
    calls = list(stacks._calls(dump, 0x7F02))
    assert calls == [("in.py", 2, "inner", None), ("out.py", 3, "outer", None)]
