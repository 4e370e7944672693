"""Where a thread is, with the GIL and without it."""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ion_actors
from ion_actors import Pool
from ion_actors.backends import stacks
from ion_actors.backends.stacks import stack_of
from tests.workerpool.helpers import eventually

needs_the_gil = pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(),
    reason="without the GIL no frame is touched, so what a coroutine awaits is not seen",
)


def from_outside(ident: int) -> str:
    return stacks.formatted(stacks.TaskStack(stacks.calls_while_all_stand_still(ident), []))


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


@needs_the_gil
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
    assert stacks.calls_in(dump, 0x7F02) == [("out.py", 3, "outer"), ("in.py", 2, "inner")]


# -- what users see ----------------------------------------------------------------------------

OWN = str(Path(ion_actors.__file__).parent / "workerpool" / "worker.py")
LOOP = asyncio.run.__code__.co_filename
THREAD = threading.Thread.run.__code__.co_filename


def named(*files: str) -> list[stacks.Call]:
    return [(file, line, f"at_{line}") for line, file in enumerate(files)]


def lines(calls: list[stacks.Call]) -> list[int]:
    return [line for _, line, _ in calls]


@pytest.mark.parametrize(
    ("files", "seen"),
    [
        ((THREAD, THREAD, OWN, OWN, "a.py", "b.py"), [4, 5]),  # a task
        ((THREAD, OWN, "a.py", OWN, OWN), [2]),  # it waits in this library
        ((THREAD, OWN, THREAD, THREAD), [2, 3]),  # the task is a method of a lock
        ((THREAD, OWN, "a.py", OWN, "b.py"), [2, 4]),  # a wrapper; or a task on top of another
        ((THREAD, OWN, LOOP, LOOP, OWN, "a.py", LOOP), [5, 6]),  # a coroutine that runs
        ((THREAD, OWN, LOOP, "a.py"), [3]),  # the task is asyncio.run
        (("main.py", OWN, "a.py"), [2]),  # a submitter that runs its task itself
        (("a.py", "b.py"), [0, 1]),  # no thread of this library
        ((THREAD, OWN, "/x/pykka/_actor.py", "a.py"), [3]),  # a method of an actor
    ],
)
def test_the_frames_of_the_library_are_left_out(files: tuple[str, ...], seen: list[int]) -> None:
    found = stacks.shown(named(*files), [])
    assert (lines(found.calls), found.beside, found.hidden) == (seen, [], False)


def test_a_task_without_a_frame_of_its_own_says_so() -> None:
    found = stacks.shown(named(THREAD, OWN, OWN), [])
    assert found == stacks.TaskStack([], [], hidden=True)
    assert stacks.formatted(found).startswith("(in no Python code")
    assert stacks.formatted(stacks.TaskStack([], [])) == ""


def test_a_coroutine_that_waits_stands_for_the_loop_in_which_it_waits() -> None:
    awaited = [("co.py", 7, "outer"), (OWN, 8, "wait"), ("co.py", 9, "inner")]
    found = stacks.shown(named(THREAD, OWN, LOOP, LOOP), awaited)
    assert (lines(found.calls), found.beside) == ([7, 9], [])
    found = stacks.shown(named(THREAD, OWN, LOOP, "busy.py"), awaited)
    assert (lines(found.calls), lines(found.beside)) == ([7, 9], [3])
    assert "Meanwhile its event loop runs:\n  File" in stacks.formatted(found)


@given(st.lists(st.sampled_from([OWN, LOOP, THREAD, "a.py", "b.py"]), max_size=12))
def test_whatever_the_stack_is_users_see_their_own_and_nothing_of_the_librarys(
    files: list[str],
) -> None:
    calls = named(*files)
    found = stacks.shown(calls, [])
    assert found.calls == [call for call in calls if call in found.calls], "in order"
    assert OWN not in {file for file, _, _ in found.calls}
    begin = files.index(OWN) if OWN in files else -1
    theirs = [call for call in calls[begin + 1 :] if call[0] in {"a.py", "b.py"}]
    assert [call for call in found.calls if call[0] in {"a.py", "b.py"}] == theirs
    assert found.hidden is (bool(calls) and not found.calls)


async def awaits(what: Callable[[], Awaitable[object]]) -> None:
    await what()


class Awaited:
    """An object that is awaited by way of a coroutine."""

    def __await__(self):
        return rest().__await__()


async def rest():
    await asyncio.sleep(600)  # here it is


async def by_task():
    await asyncio.create_task(rest())


async def by_object():
    await Awaited()


async def generate():
    yield 1
    await rest()
    yield 2


async def by_generator():
    async for _ in generate():
        pass


async def by_asend():
    generator = generate()
    await generator.asend(None)
    await generator.asend(None)


@needs_the_gil
@pytest.mark.parametrize("fn", [rest, by_task, by_object, by_generator, by_asend])
def test_the_stack_of_a_coroutine_is_what_it_awaits(fn) -> None:
    with Pool(1) as pool:
        task = pool.submit(awaits, fn)
        eventually(lambda: "here it is" in pool.dump().workers[0].stack)
        stack = pool.dump().workers[0].stack
        task.cancel()
    names = [line.split(" in ")[-1] for line in in_this_file(stack)]
    assert names[:2] == ["awaits", fn.__name__]
    assert names[-1] == "rest"
    assert "select" not in stack
    assert "worker.py" not in stack
