"""The progress of a map as text: on a terminal one line that changes, else a line now and then."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TextIO

from ion_actors.clock import Clock

__all__ = ["ProgressText", "in_words"]

_PAUSE = 0.1  # seconds, at least, between two changes of the line
_INTERVAL = 10.0  # seconds, at least, between two lines where there is no terminal


class ProgressText:
    """A display that writes text.

    Args:
        stream: where to.
        total: calls that there will be, if that is known.
        name: of what is called.
        clock: measures rate and time left.
        terminal: whether the stream is one, and can go back to the start of a line.
    """

    def __init__(
        self, stream: TextIO, total: int | None, name: str, clock: Clock, *, terminal: bool
    ) -> None:
        self._stream = stream
        self._total = total
        self._name = name
        self._clock = clock
        self._terminal = terminal
        self._done = 0
        self._width = 0  # of what is on the line

    def begin(self) -> None:
        """Time counts from now."""
        self._began = self._last = self._clock.monotonic()
        if self._terminal:
            self._draw()

    def show(self, ended: Sequence[int]) -> None:
        """Write, unless that was done a moment ago."""
        self._done += sum(ended)
        now = self._clock.monotonic()
        if now - self._last >= (_PAUSE if self._terminal else _INTERVAL):
            self._last = now
            self._draw()

    def end(self) -> None:
        """Write the last numbers."""
        self._draw(over=True)
        if self._terminal:
            self._stream.write("\n")
            self._stream.flush()

    def _draw(self, *, over: bool = False) -> None:
        elapsed = self._clock.monotonic() - self._began
        text = in_words(self._name, self._done, self._total, elapsed, over=over)
        if self._terminal:
            text = text[: shutil.get_terminal_size().columns - 1]
            before, self._width = self._width, len(text)
            self._stream.write(f"\r{text.ljust(before)}")
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()


def in_words(name: str, done: int, total: int | None, elapsed: float, *, over: bool = False) -> str:
    """One line: how much is done, since when, how fast, and how long it will still take.

    Args:
        name: of what is called.
        done: calls that have ended.
        total: calls that there will be, if that is known.
        elapsed: seconds since the first result was asked for.
        over: no more calls will end.
    """
    rate = done / elapsed if elapsed > 0 else 0.0
    share = f" ({done / total:.0%})" if total else ""
    parts = [f"{done}{'' if total is None else f' of {total}'}{share} in {_duration(elapsed)}"]
    if rate:
        parts.append(f"{rate:.3g}/s")
    if rate and total is not None and not over:
        parts.append(f"{_duration(max(0, total - done) / rate)} left")
    return f"{name}: {', '.join(parts)}"


def _duration(seconds: float) -> str:
    """``0.5 s``, ``59 s``, ``1:05``, ``2:00:01``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
