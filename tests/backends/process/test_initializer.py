"""Initializers of children and their arguments."""

from __future__ import annotations

import functools
import gc
import multiprocessing
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ion_actors import BrokenPool, Pool, TaskNotPicklable, TaskPanicked, Worker
from ion_actors.backends.process import ProcessBackend
from ion_actors.backends.process.parent.launch import running_children
from ion_actors.backends.process.transport import initializer
from ion_actors.backends.process.transport.initializer import Initializer, initializer_of
from ion_actors.backends.protocol import Hopeless
from ion_actors.context import Context, background
from tests.backends.process import errands
from tests.workerpool.helpers import eventually

PATIENCE = 30.0
LARGE = 1 << 20


@pytest.fixture(autouse=True)
def no_child_lives() -> Iterator[None]:
    yield
    assert running_children() == []


def shared_things(method: str) -> tuple[Any, ...]:
    """A lock, a value, an array, a queue, an event, and the ends of a pipe."""
    there: Any = multiprocessing.get_context(method)
    reader, writer = there.Pipe(duplex=False)
    return (
        there.RLock(), there.Value("i", 41), there.Array("i", 3), there.Queue(), there.Event(),
        writer, reader,
    )  # fmt: skip


@pytest.fixture(params=["forkserver", "spawn"])
def shared(request: pytest.FixtureRequest) -> Iterator[tuple[Any, ...]]:
    things = shared_things(request.param)
    yield things
    things[3].close()
    things[3].join_thread()
    things[5].close()
    things[6].close()


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_what_is_shared_through_initargs(shared: tuple[Any, ...], method: str) -> None:
    _, value, array, queue, event, _, reader = shared
    backend = ProcessBackend(start_method=method, max_tasks_per_child=2)
    with Pool(1, backend=backend, initializer=errands.keep, initargs=shared[:6]) as pool:
        for count in range(42, 45):  # the last one in another child
            assert pool.submit(errands.use_kept).result(PATIENCE) == count
            assert queue.get(timeout=PATIENCE) == reader.recv() == "hello"
        assert event.is_set()
        with pytest.raises(TaskPanicked):
            pool.submit(errands.leave, 3).result(PATIENCE)
        assert pool.submit(errands.use_kept).result(PATIENCE) == 45  # in another worker
    assert (value.value, array[0]) == (45, 4)
    shared[0].acquire(timeout=PATIENCE)


def test_as_arguments_they_are_an_error_that_names_initargs(shared: tuple[Any, ...]) -> None:
    with Pool(1, backend="process") as pool:
        for one in shared[:5]:
            with pytest.raises(TaskNotPicklable, match="put it into initargs"):
                pool.submit(errands.echo, one).result(PATIENCE)
        with pytest.raises(TaskNotPicklable, match=r"the result.*put it into initargs"):
            pool.submit(multiprocessing.get_context("spawn").Lock).result(PATIENCE)


def test_a_lock_that_only_forks_could_share_is_one_error() -> None:
    lock = multiprocessing.get_context("fork").Lock()
    pool = Pool(1, backend="process", initializer=errands.keep, initargs=(lock,))
    with pytest.raises(BrokenPool, match="created in a fork context"):
        pool.submit(pow, 2, 2).result(PATIENCE)
    pool.close()


def test_they_are_packed_once_for_all_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands.Costly, "packed", 0)
    initargs = (errands.Costly(10), errands.Costly(LARGE))
    with Pool(3, backend="process", initializer=errands.keep, initargs=initargs) as pool:
        for _ in range(3):
            assert pool.submit(errands.kept_sizes).result(PATIENCE)[1] == 10 + LARGE
            with pytest.raises(TaskPanicked):
                pool.submit(errands.leave, 3).result(PATIENCE)
        assert pool.submit(errands.kept_sizes).result(PATIENCE)[1] == 10 + LARGE
    assert errands.Costly.packed == 2


class Keeper(Worker):
    def __init__(self, costly: errands.Costly) -> None:
        super().__init__()
        self.costly = costly

    def size(self) -> int:
        return len(self.costly.data)


def test_so_is_what_a_worker_class_is_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands.Costly, "packed", 0)
    keeper = functools.partial(Keeper, errands.Costly(LARGE))
    with Pool(2, backend="process", worker=keeper) as pool:
        assert {pool.proxy().size().result(PATIENCE) for _ in range(4)} == {LARGE}
        with pytest.raises(TaskPanicked):
            pool.submit(errands.leave, 3).result(PATIENCE)
        assert pool.proxy().size().result(PATIENCE) == LARGE
    assert errands.Costly.packed == 1


def memory_files() -> list[str]:
    gc.collect()
    found = [str(one.readlink()) for one in Path("/proc/self/fd").iterdir() if one.exists()]
    return [one for one in found if "memfd:ion_actors" in one]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="it looks at its descriptors")
def test_large_ones_are_in_one_file_as_long_as_the_pool_lives() -> None:
    def count() -> int:
        with Pool(1, backend="process", initializer=errands.keep, initargs=initargs) as pool:
            pool.submit(pow, 2, 2).result(PATIENCE)
            return len(memory_files())

    initargs: tuple[Any, ...] = (errands.Costly(10),)
    before, small = len(memory_files()), count()
    initargs = (errands.Costly(LARGE), errands.Costly(LARGE))
    assert count() == small + 1
    eventually(lambda: len(memory_files()) == before)


def test_each_child_has_its_arrays_for_itself() -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.zeros(LARGE, numpy.uint8)
    backend = ProcessBackend(max_tasks_per_child=1)
    with Pool(1, backend=backend, initializer=errands.keep, initargs=(array,)) as pool:
        assert pool.submit(errands.spoil_kept, 5).result(PATIENCE) == 0
        array[:] = 7  # the later ones get what the first one got
        assert pool.submit(errands.spoil_kept, 5).result(PATIENCE) == 0


@pytest.mark.parametrize("place", ["none", "full"])
def test_without_room_for_a_file_they_go_through_the_pipe(
    monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if place == "none":
        monkeypatch.setattr(initializer, "new_file", lambda: None)
    else:
        monkeypatch.setattr(initializer, "write_all", full)
    initargs = (errands.Costly(LARGE),)
    with Pool(1, backend="process", initializer=errands.keep, initargs=initargs) as pool:
        assert pool.submit(errands.kept_sizes).result(PATIENCE)[1] == LARGE


def test_what_cannot_be_packed_is_tried_again_by_the_next() -> None:
    one = Initializer(errands.keep, (errands.Unpackable(),))
    for _ in range(2):
        with pytest.raises(Hopeless, match=r"argument 1 of task 'initializer'.*not me"):
            one.pack()


def test_one_initializer_for_each_context_and_what_it_is_of() -> None:
    context, other, initargs = Context(background()), Context(background()), (1,)
    one = initializer_of(context, errands.keep, initargs)
    assert initializer_of(context, errands.keep, initargs) is one
    assert initializer_of(other, errands.keep, initargs) is not one
    assert initializer_of(context, errands.echo, initargs) is not one
    context.cancel()
    assert initializer_of(context, errands.echo, initargs) is not one
    other.cancel()


def test_nothing_is_said_to_have_leaked(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent("""
        import multiprocessing
        from multiprocessing import shared_memory
        from ion_actors import Pool

        def init(*things):
            global kept
            kept = things

        def use(name):
            with kept[0], kept[1].get_lock():
                kept[1].value += 1
            memory = shared_memory.SharedMemory(name)
            memory.buf[0] += 1
            memory.close()

        def main():
            there = multiprocessing.get_context("forkserver")
            things = there.Lock(), there.Value("i", 0), there.Semaphore(2)
            memory = shared_memory.SharedMemory(create=True, size=100)
            memory.buf[0] = 0
            with Pool(2, backend="process", initializer=init, initargs=things) as pool:
                for _ in range(4):
                    pool.submit(use, memory.name).result(30)
            print(things[1].value, memory.buf[0])
            memory.close()
            memory.unlink()

        if __name__ == "__main__":
            main()
        """)
    )
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("4 4\n", "", 0)
