"""Tasks that are sent ahead to Ray actors: crashes, cancellations, long tasks among small ones."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ion_actors import (
    Backoff,
    Cancelled,
    DeadlineExceeded,
    PanicRecovery,
    Pool,
    RayBackend,
    TaskPanicked,
    report_progress,
)
from ion_actors.backends.ray import remains
from tests.backends.process import errands
from tests.workerpool.helpers import PATIENCE, eventually

pytest.importorskip("ray", reason="Ray is not installed: it is the extra 'ray'")

pytestmark = pytest.mark.cluster

HASTY = RayBackend(num_cpus=0, grace=0.1, kill_after=0.3)
TIRELESS = PanicRecovery(max_restarts=None, backoff=Backoff(initial=0.0, retries=1000))


@contextlib.contextmanager
def warm(size: int = 1, backend: RayBackend = HASTY) -> Iterator[Pool]:
    """A pool whose workers send ahead as much as they may."""
    with Pool(size, 2000, backend=backend, panic_recovery=TIRELESS) as pool:
        warm_up(pool)
        yield pool
        numbers = pool.metrics()
        assert (numbers.queued, numbers.running) == (0, 0)


def warm_up(pool: Pool) -> None:
    for one in [pool.submit(pow, 2, 3) for _ in range(300 * pool.metrics().size)]:
        assert one.result(PATIENCE) == 8


@contextlib.contextmanager
def held(pool: Pool, folder: Path) -> Iterator[None]:
    """While the only worker is kept busy, so that all that is submitted here is queued."""
    mark, go = folder / "held", folder / "go"
    future = pool.submit(errands.await_go, mark, go)
    eventually(mark.exists)
    yield
    go.touch()
    assert future.result(PATIENCE) == "went"


def live(folder: Path, number: int, lot: str) -> int:
    """A task that can be counted."""
    with (folder / str(number)).open("a") as file:
        file.write("x")
    if lot == "fail":
        raise KeyError(number)
    if lot == "leave":
        os._exit(1)
    while lot == "spin":
        pass
    return number


def times_begun(folder: Path, number: int) -> int:
    file = folder / str(number)
    return len(file.read_text()) if file.exists() else 0


@pytest.mark.parametrize("journal", ["here", "there"])
def test_of_many_small_tasks_only_the_guilty_panic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: str
) -> None:
    paths: list[str] = []
    reader = _elsewhere if journal == "there" else remains.JournalReader

    def noted(path: str, secret: int) -> Any:
        paths.append(path)
        return reader(path, secret)

    monkeypatch.setattr(remains, "JournalReader", noted)
    monkeypatch.setattr(remains, "_FAR_READ", 120.0)  # on a busy machine, too
    chance = random.Random(3)
    lots = ["well"] * 280 + ["fail"] * 10 + ["leave"] * 4
    chance.shuffle(lots)
    with warm(2) as pool:
        calls = [pool.submit(live, tmp_path, n, lot) for n, lot in enumerate(lots)]
        for number, (lot, call) in enumerate(zip(lots, calls, strict=True)):
            error = call.exception(PATIENCE)
            expected = {"well": type(None), "fail": KeyError, "leave": TaskPanicked}[lot]
            assert type(error) is expected, (number, lot, error)
            assert times_begun(tmp_path, number) == 1
        assert pool.metrics().panicked == 4
    assert len(paths) == 6
    eventually(lambda: not any(Path(one).exists() for one in paths))


def _elsewhere(path: str, secret: int) -> Any:
    raise FileNotFoundError(path)


def test_without_a_journal_nothing_is_run_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remains.Remains, "_read_far_journal", _gone)
    monkeypatch.setattr(remains, "JournalReader", _elsewhere)
    with warm() as pool:
        with held(pool, tmp_path):
            lots = ["well"] * 5 + ["leave"] + ["well"] * 200
            calls = [pool.submit(live, tmp_path, n, lot) for n, lot in enumerate(lots)]
        errors = [call.exception(PATIENCE) for call in calls]
    assert all(type(one) in (TaskPanicked, type(None)) for one in errors)
    assert type(errors[5]) is TaskPanicked
    assert errors[-1] is None
    assert all(times_begun(tmp_path, number) <= 1 for number in range(len(lots)))


def _gone(self: object, context: object, **_: object) -> Any:
    raise TimeoutError


def test_a_long_task_holds_nobody_up(tmp_path: Path) -> None:
    mark, go = tmp_path / "mark", tmp_path / "go.long"
    with warm(2) as pool:
        before = [pool.submit(pow, 2, n % 7) for n in range(50)]
        long = pool.submit(errands.await_go, mark, go)
        after = [pool.submit(pow, 2, n % 7) for n in range(300)]
        for one in (*before, *after):
            one.result(PATIENCE)
        assert not long.done()
        go.touch()
        assert long.result(PATIENCE) == "went"


def test_the_answer_of_a_small_task_does_not_wait_for_a_long_one(tmp_path: Path) -> None:
    go = tmp_path / "go.long"
    with warm() as pool:
        with held(pool, tmp_path):
            small = pool.submit(pow, 2, 5)
            long = pool.submit(errands.await_go, tmp_path / "mark", go)
            last = pool.submit(pow, 2, 6)
        assert small.result(PATIENCE) == 32
        assert not long.done()
        assert last.cancel() or not last.done()
        go.touch()
        assert long.result(PATIENCE) == "went"


def test_what_is_cancelled_ahead_never_begins(tmp_path: Path) -> None:
    with warm() as pool:
        with held(pool, tmp_path):
            first = pool.submit(_slow, tmp_path, 0)
            rest = [pool.submit(live, tmp_path, n, "well") for n in range(1, 40)]
        eventually(lambda: times_begun(tmp_path, 0))
        for one in rest[::2]:
            one.cancel()
        assert first.result(PATIENCE) == 0
        for number, one in enumerate(rest, start=1):
            if number % 2 == 0:
                assert one.result(PATIENCE) == number
            else:
                with contextlib.suppress(Cancelled):
                    one.result(PATIENCE)
                assert one.cancelled() == (times_begun(tmp_path, number) == 0)


def _slow(folder: Path, number: int) -> int:
    live(folder, number, "well")
    time.sleep(0.02)
    return number


def test_a_busy_loop_among_small_tasks_is_ended_alone(tmp_path: Path) -> None:
    with warm() as pool:
        with held(pool, tmp_path):
            before = [pool.submit(live, tmp_path, n, "well") for n in range(20)]
            loop = pool.options(timeout=0.3).submit(live, tmp_path, 20, "spin")
            after = [pool.submit(live, tmp_path, n, "well") for n in range(21, 60)]
        with pytest.raises(DeadlineExceeded):
            loop.result(PATIENCE)
        assert [one.result(PATIENCE) for one in before] == list(range(20))
        assert [one.result(PATIENCE) for one in after] == list(range(21, 60))
        assert all(times_begun(tmp_path, n) == 1 for n in range(60) if n != 20)
        assert times_begun(tmp_path, 20) <= 1  # its time may be over before it begins
        assert pool.metrics().panicked == 0


def test_what_is_killed_among_small_tasks_is_killed_alone(tmp_path: Path) -> None:
    with warm() as pool:
        with held(pool, tmp_path):
            nap = pool.submit(errands.nap, tmp_path / "mark")
            after = [pool.submit(live, tmp_path, n, "well") for n in range(40)]
        eventually((tmp_path / "mark").exists)
        nap.cancel()
        with pytest.raises(Cancelled):
            nap.result(PATIENCE)
        assert [one.result(PATIENCE) for one in after] == list(range(40))
        assert all(times_begun(tmp_path, n) == 1 for n in range(40))


def test_a_share_of_tasks_is_kept() -> None:
    backend = RayBackend(num_cpus=0, max_tasks_per_child=7)
    with Pool(1, 100, backend=backend) as pool:
        pids = [one.result(PATIENCE) for one in [pool.submit(os.getpid) for _ in range(21)]]
        assert [pids.count(one) for one in dict.fromkeys(pids)] == [7, 7, 7]


def test_progress_belongs_to_its_task(tmp_path: Path) -> None:
    with warm() as pool:
        with held(pool, tmp_path):
            futures = [pool.submit(_tell, number) for number in range(50)]
        for number, one in enumerate(futures):
            assert one.result(PATIENCE) == number
            assert one.progress is not None
            assert one.progress.message == str(number)


def _tell(number: int) -> int:
    report_progress(0.5, str(number))
    return number


def test_progress_of_a_task_that_began_before_its_turn(tmp_path: Path) -> None:
    with warm() as pool:
        futures: list[Any] = []
        with held(pool, tmp_path):
            for _ in range(20):
                pool.submit(pow, 2, 5)
                futures.append(pool.submit(errands.linger, 0.0))
        for one in futures:
            one.add_progress_callback(lambda _, one=one: one.cancel())
            if one.progress is not None:
                one.cancel()
        for one in futures:
            assert one.result(PATIENCE) is None


@pytest.mark.parametrize("end", ["close", "drain"])
def test_the_end_with_tasks_ahead(tmp_path: Path, end: str) -> None:
    pool = Pool(1, 2000, backend=HASTY)
    warm_up(pool)
    futures = [pool.submit(live, tmp_path, n, "well") for n in range(500)]
    futures[100].result(PATIENCE)
    began = time.monotonic()
    with contextlib.suppress(Exception):
        getattr(pool, end)(PATIENCE)
    assert time.monotonic() - began < PATIENCE / 2
    assert all(one.done() for one in futures)
    for number, one in enumerate(futures):
        begun = times_begun(tmp_path, number)
        assert begun <= 1
        assert one.cancelled() or begun == 1 or one.exception(0) is not None
        assert begun == 1 or end == "close"


def test_a_callback_that_waits_for_another_task(tmp_path: Path) -> None:
    with warm() as pool:
        found: list[int] = []
        done = threading.Event()

        def follow(_: object) -> None:
            found.append(pool.submit(pow, 3, 3).result(PATIENCE))
            done.set()

        with held(pool, tmp_path):
            first = pool.submit(pow, 2, 2)
            first.add_done_callback(follow)
            rest = [pool.submit(pow, 2, n % 7) for n in range(100)]
        assert done.wait(PATIENCE)
        assert found == [27]
        assert [one.result(PATIENCE) for one in rest] == [2 ** (n % 7) for n in range(100)]


def test_large_results_and_references_among_small_tasks() -> None:
    import ray

    with warm() as pool:
        two = ray.put(2)
        calls: list[Any] = []
        for n in range(60):
            if n % 10 == 3:
                calls.append((functools.partial(bytes, 300_000), bytes(300_000)))
            elif n % 10 == 7:
                calls.append((functools.partial(pow, 3), 9))
            else:
                calls.append((functools.partial(pow, 2, n % 5), 2 ** (n % 5)))
        futures = [
            pool.submit(call, two) if expected == 9 else pool.submit(call)
            for call, expected in calls
        ]
        for one, (_, expected) in zip(futures, calls, strict=True):
            assert one.result(PATIENCE) == expected


def test_arrays_are_written_to_by_one_reader_each() -> None:
    numpy: Any = pytest.importorskip("numpy")
    ours = numpy.zeros(500_000)
    with Pool(2, 100, backend=HASTY) as pool:
        for value in range(12):  # 4 MB each, kept: from some point on they are copies
            found = [pool.submit(_fill, ours, value, n) for n in range(2)]
            arrays = [one.result(PATIENCE) for one in found]
            assert [(one == value + n).all() for n, one in enumerate(arrays)] == [True, True]
            arrays[0] += 100
            assert (arrays[1] == value + 1).all()
            _kept.append(arrays)
        assert (ours == 0).all()
        assert all((one[0] == 100 + n).all() for n, one in enumerate(_kept))
    _kept.clear()


_kept: list[Any] = []


def _fill(array: Any, value: int, more: int) -> Any:
    assert (array == 0).all()  # nobody else has written to it
    array += value + more
    return array
