"""Where progress is shown: bars of tqdm and rich, text on a terminal and in a pipe."""

from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
import types
from typing import Any

import pytest
import rich.console
import rich.progress
import tqdm
import tqdm.auto
from hypothesis import given
from hypothesis import strategies as st

from ion_actors import Context, Pool
from ion_actors.testing import VirtualClock
from ion_actors.workerpool.progress.text import in_words
from tests.workerpool.helpers import PATIENCE


def double(x: int) -> int:
    return 2 * x


# -- tqdm -------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_thread_of_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tqdm.tqdm, "monitor_interval", 0)


def test_a_bar_of_tqdm() -> None:
    out = io.StringIO()
    with Pool(2) as pool, tqdm.tqdm(file=out, desc="doubling") as bar:
        list(pool.map_unordered(double, range(50), progress=bar))
        assert (bar.n, bar.total) == (50, 50)
        assert not bar.disable, "it is the user's to close"
    assert "doubling: 100%" in out.getvalue()


def test_tqdm_around_a_map() -> None:
    out = io.StringIO()
    with Pool(2) as pool:
        assert list(tqdm.tqdm(pool.map(double, range(4)), total=4, file=out)) == [0, 2, 4, 6]
    assert "4/4" in out.getvalue()


# -- rich -------------------------------------------------------------------------------------


def rich_bars(**options: Any) -> tuple[rich.progress.Progress, io.StringIO]:
    out = io.StringIO()
    console = rich.console.Console(file=out, force_terminal=True, width=80)
    return rich.progress.Progress(console=console, auto_refresh=False, **options), out


def test_a_progress_of_rich_gets_a_task() -> None:
    bars, out = rich_bars()
    with Pool(2) as pool, bars:
        list(pool.map(double, range(7), progress=bars))
        list(pool.map(double, iter(range(3)), progress=bars))
        assert bars.live.is_started
    first, second = bars.tasks
    assert (first.description, first.completed, first.total) == ("double", 7, 7)
    assert (second.completed, second.total, second.finished) == (3, 3, True)
    assert "100%" in out.getvalue()


def test_a_progress_that_was_not_started_is_started_and_stopped() -> None:
    bars, out = rich_bars()
    with Pool(1) as pool:
        results = pool.map(double, range(7), progress=bars)
        next(results)
        assert bars.live.is_started
        results.close()
    assert not bars.live.is_started
    assert out.getvalue().count("\x1b[?25l") == out.getvalue().count("\x1b[?25h") == 1


def test_a_task_of_a_progress_is_advanced() -> None:
    bars, _ = rich_bars()
    task = bars.add_task("mine", total=None)
    with Pool(2) as pool, bars:
        list(pool.map(double, range(7), chunksize=3, progress=(bars, task)))
        assert (bars.tasks[0].completed, bars.tasks[0].total) == (7, 7)
        list(pool.map(double, range(2), progress=(bars, task)))
        assert (bars.tasks[0].completed, bars.tasks[0].total) == (9, 7)
        with pytest.raises(ValueError, match="task id"):
            pool.map(double, [1], progress=(bars, 99))


# -- True: in a pipe --------------------------------------------------------------------------


def test_in_a_pipe_there_is_a_line_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with Pool(1) as pool:
        list(pool.map(double, range(20), progress=True))
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("double: 20 of 20 (100%) in ")
    assert "\r" not in err


def test_in_a_pipe_there_is_a_line_every_ten_seconds(
    clock: VirtualClock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Pool(1, context=Context(clock=clock)) as pool:
        for _ in pool.map(double, range(10), buffersize=1, progress=True):
            clock.advance(4)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "double: 4 of 10 (40%) in 12 s, 0.333/s, 18 s left",
        "double: 7 of 10 (70%) in 24 s, 0.292/s, 10 s left",
        "double: 10 of 10 (100%) in 36 s, 0.278/s, 0.0 s left",
        "double: 10 of 10 (100%) in 40 s, 0.25/s",
    ]


@pytest.mark.parametrize("stream", [None, io.StringIO(), "closed"])
def test_any_stream_will_do(stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if stream == "closed":
        stream = io.StringIO()
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr("logging.raiseExceptions", False)
    with Pool(1) as pool:
        assert list(pool.map(double, [1], progress=True)) == [2]


def test_in_a_notebook_there_is_the_bar_for_notebooks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    with Pool(1) as pool:
        list(pool.map(double, range(4), progress=True))
    assert "4/4 [" in capsys.readouterr().err


# -- True: on a terminal ----------------------------------------------------------------------

_PROGRAM = """
import sys
from ion_actors import Pool
{before}
def resize(x):
    return x
with Pool(1) as pool:
    for x in pool.map(resize, range(20), progress=True):
        {each}
print("done", flush=True)
"""


def on_terminal(before: str = "", each: str = "pass") -> str:
    """Run the program on a terminal; what it shows there."""
    here, there = pty.openpty()
    code = _PROGRAM.format(before=before, each=each)
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=there, stdout=there, stderr=there,
            env={**os.environ, "COLUMNS": "80", "LINES": "24"},
        )  # fmt: skip
        os.close(there)
        shown = b""
        while piece := _read(here):
            shown += piece
        assert process.wait(PATIENCE) in (0, -signal.SIGINT, 130), shown
    finally:
        os.close(here)
    return shown.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux: the other end is closed
        return b""


_NO_TQDM = "sys.modules['tqdm.auto'] = None"
_NO_SIZE = "import os; os.get_terminal_size = None"


def test_on_a_terminal_there_is_a_bar_with_rate_and_time_left() -> None:
    shown = on_terminal()
    assert "resize: 100%|" in shown
    assert "| 20/20 [00:00<00:00" in shown
    assert shown.endswith("\r\ndone\r\n")


def test_without_tqdm_there_is_a_line_that_changes() -> None:
    shown = on_terminal(_NO_TQDM)
    lines = shown.removesuffix("\r\ndone\r\n").split("\r")
    assert lines[1].startswith("resize: 0 of 20 (0%) in 0.0 s")
    assert lines[-1].startswith("resize: 20 of 20 (100%) in ")
    assert lines[-1].rstrip().endswith("/s")


@pytest.mark.parametrize("before", ["", _NO_TQDM])
def test_ctrl_c_leaves_the_terminal_clean(before: str) -> None:
    shown = on_terminal(before, each="x == 5 and signal.raise_signal(signal.SIGINT)".replace(
        "signal.raise", "__import__('signal').raise").replace("signal.SIGINT", "2"))  # fmt: skip
    bar, _, after = shown.partition("Traceback (most recent call last)")
    assert bar.endswith("\n"), "the traceback begins on a line of its own"
    assert "KeyboardInterrupt" in after
    assert "\x1b[?25l" not in shown  # no cursor is hidden


# -- the text ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((0, 10, 0.0), "f: 0 of 10 (0%) in 0.0 s"),
        ((0, None, 0.0), "f: 0 in 0.0 s"),
        ((0, 0, 1.0), "f: 0 of 0 in 1.0 s"),
        ((5, 10, 2.0), "f: 5 of 10 (50%) in 2.0 s, 2.5/s, 2.0 s left"),
        ((5, None, 2.0), "f: 5 in 2.0 s, 2.5/s"),
        ((30, 60, 60.0), "f: 30 of 60 (50%) in 1:00, 0.5/s, 1:00 left"),
        ((1, 2, 7201.0), "f: 1 of 2 (50%) in 2:00:01, 0.000139/s, 2:00:01 left"),
        ((12, 10, 1.0), "f: 12 of 10 (120%) in 1.0 s, 12/s, 0.0 s left"),
    ],
)
def test_the_numbers_in_words(numbers: tuple[int, int | None, float], text: str) -> None:
    assert in_words("f", *numbers) == text


@given(
    done=st.integers(0, 10**9),
    total=st.none() | st.integers(0, 10**9),
    elapsed=st.floats(0, 1e7),
    over=st.booleans(),
)
def test_any_numbers_make_one_line(
    done: int, total: int | None, elapsed: float, over: bool
) -> None:
    text = in_words("f", done, total, elapsed, over=over)
    assert text.isprintable()
    assert len(text) < 120
    assert not (over and "left" in text)
