"""What a program itself calls off is no news: one line of the log has the numbers."""

from __future__ import annotations

import gc
import logging
import threading
import time
from concurrent.futures import wait
from pathlib import Path

import pytest

from ion_actors import Pool, TaskAbandoned
from tests.workerpool.helpers import eventually


def _news(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


def test_a_close_at_once_tells_the_log_how_many(caplog: pytest.LogCaptureFixture) -> None:
    gate, begun = threading.Event(), threading.Barrier(3)
    pool = Pool(2, name="off")

    def deaf() -> None:
        begun.wait()
        gate.wait()
        raise ValueError("too late")

    running = [pool.submit(deaf) for _ in range(2)]
    begun.wait()
    queued = [pool.submit(int) for _ in range(5)]
    report = pool.close(timeout=0)
    gate.set()
    assert _news(caplog) == [
        "pool 'off' was called off: 5 tasks had not begun and 2 tasks had not ended"
    ]
    assert len(report.unfinished) == 7
    assert all(isinstance(one.exception(), TaskAbandoned) for one in running)
    assert all(one.cancelled() for one in queued)


def test_a_close_that_waited_in_vain_still_shows_the_stacks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate, begun = threading.Event(), threading.Event()
    pool = Pool(1)
    pool.submit(lambda: (begun.set(), gate.wait()))
    begun.wait()
    pool.close(timeout=0.05)
    gate.set()
    [line] = _news(caplog)
    assert "is abandoned on worker" in line
    assert "gate.wait()" in line


def test_a_close_at_once_of_an_idle_pool_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    pool = Pool(1)
    pool.submit(int).result()
    pool.close(timeout=0)
    assert _news(caplog) == []


def test_processes_are_ended_without_a_word(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    pool = Pool(1, backend="process", name="off")
    running = pool.submit(_begin, tmp_path / "begun")
    eventually((tmp_path / "begun").exists)
    pool.close(timeout=0)
    assert isinstance(running.exception(), TaskAbandoned)
    assert _news(caplog) == ["pool 'off' was called off: 1 task had not ended"]


def _begin(path: Path) -> None:
    path.touch()
    time.sleep(300)


def test_ctrl_c_leaves_a_block_quietly(caplog: pytest.LogCaptureFixture) -> None:
    gate, begun = threading.Event(), threading.Event()

    def fails_when_called_off() -> None:
        begun.set()
        gate.wait()
        raise ConnectionError("the end")

    with pytest.raises(KeyboardInterrupt), Pool(1, name="off") as pool:
        failed = pool.submit(_fail)
        wait([failed])
        pool.submit(fails_when_called_off)
        begun.wait()
        dropped = pool.submit(int)
        dropped.add_done_callback(lambda _: gate.set())
        raise KeyboardInterrupt
    assert dropped.cancelled()
    del failed, dropped
    gc.collect()
    assert _news(caplog) == ["pool 'off' was called off: 1 task had not begun"]


def test_an_exception_leaves_a_block_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ZeroDivisionError), Pool(1) as pool:
        failed = pool.submit(_fail)
        wait([failed])
        raise ZeroDivisionError
    del failed
    gc.collect()
    assert [one for one in _news(caplog) if "was never read" in one]


def _fail() -> None:
    raise ValueError("before")
