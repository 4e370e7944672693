"""Eight submitters, four endings, and a close in the middle: afterwards the books must balance."""

from __future__ import annotations

import concurrent.futures
import random
import threading
from collections import Counter

import pytest

from ion_actors import IonError, PanicRecovery, Pool, PoolClosed, TaskPanicked
from ion_actors.futures import Future
from tests import rounds

SUBMITTERS = 8
TASKS = rounds(3_000, thorough=20_000)  # of each


class Misfortune(Exception):
    """An ordinary failure."""


class Stray(BaseException):
    """Not an ordinary one."""


def work(kind: int) -> int:
    if kind == 1:
        raise Misfortune
    if kind == 2:
        raise Stray
    return kind


class Submitting(threading.Thread):
    """Submits a random mix, cancels some of it, and keeps every future."""

    def __init__(self, pool: Pool, seed: int, on_half: threading.Barrier | None) -> None:
        super().__init__()
        self.pool = pool
        self.random = random.Random(seed)
        self.futures: list[Future[int]] = []
        self.refused = 0
        self.on_half = on_half

    def run(self) -> None:
        for number in range(TASKS):
            if number == TASKS // 2 and self.on_half is not None:
                self.on_half.wait()
            # One in 500 takes its worker down.
            kind = 2 if self.random.random() < 0.002 else self.random.choice((0, 0, 1))
            try:
                future = self.pool.submit(work, kind)
            except PoolClosed:
                self.refused += 1
                continue
            self.futures.append(future)
            if self.random.random() < 0.1:
                future.cancel()


def outcome(future: Future[int]) -> str:
    assert future.done()
    if future.cancelled():
        return "cancelled"
    error = future.exception()
    if error is None:
        return "completed"
    if isinstance(error, TaskPanicked):
        assert isinstance(error.__cause__, Stray)
        return "panicked"
    return "cancelled" if isinstance(error, IonError) else "failed"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("close_in_the_middle", [False, True])
def test_every_task_ends_once_and_the_counts_add_up(close_in_the_middle: bool) -> None:
    endings: Counter[Future[int]] = Counter()
    lock = threading.Lock()

    def note(future: Future[int]) -> None:
        with lock:
            endings[future] += 1

    half = threading.Barrier(SUBMITTERS + 1) if close_in_the_middle else None
    pool = Pool(4, 64, name="chaos", panic_recovery=PanicRecovery(max_restarts=None))
    submitters = [Submitting(pool, seed, half) for seed in range(SUBMITTERS)]
    for submitter in submitters:
        submitter.start()
    if half is not None:
        half.wait()
        pool.close()
    for submitter in submitters:
        submitter.join()
    pool.drain()

    futures = [future for submitter in submitters for future in submitter.futures]
    for future in futures:
        future.add_done_callback(note)
    assert set(endings.values()) == {1}
    assert len(endings) == len(futures)
    assert not concurrent.futures.wait(futures, timeout=0).not_done

    seen = Counter(outcome(future) for future in futures)
    numbers = pool.metrics()
    assert numbers.queued == numbers.running == 0
    # A task that was cancelled while it ran may have ended in another way: its outcome decides.
    for name in ("completed", "failed", "panicked", "cancelled"):
        assert getattr(numbers, name) == seen[name], (name, numbers, seen)
    assert numbers.submitted == len(futures)
    assert numbers.rejected == sum(submitter.refused for submitter in submitters)
    if not close_in_the_middle:
        # The last panics may come when nothing is left to do for a successor.
        assert 0 < numbers.restarts <= numbers.panicked
        assert len(futures) == SUBMITTERS * TASKS


def test_the_identity_holds_in_every_snapshot_under_load() -> None:
    stop = threading.Event()
    wrong: list[object] = []
    highest = 0

    def watch(pool: Pool) -> None:
        nonlocal highest
        while not stop.is_set():
            now = pool.metrics()
            ended = now.completed + now.failed + now.panicked + now.cancelled
            balanced = now.submitted == now.queued + now.running + ended
            # A task whose panic is being handled still counts, beside its worker's successor.
            bounded = 0 <= now.queued <= 64 and 0 <= now.running <= 8
            if not (balanced and bounded and now.submitted >= highest):
                wrong.append(now)
            highest = max(highest, now.submitted)

    with Pool(4, 64) as pool:
        watcher = threading.Thread(target=watch, args=(pool,))
        watcher.start()
        submitters = [Submitting(pool, seed, None) for seed in range(2)]
        for submitter in submitters:
            submitter.start()
        for submitter in submitters:
            submitter.join()
        stop.set()
        watcher.join()
        for submitter in submitters:
            for future in submitter.futures:
                concurrent.futures.wait([future], timeout=60)
                outcome(future)
    assert not wrong
