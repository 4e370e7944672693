"""The view that stays: a thread reads snapshots, the main thread draws them and obeys the keys."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.live import Live

from ion_actors.dashboard.reader import Unreadable
from ion_actors.dashboard.terminal.keyboard import keyboard
from ion_actors.dashboard.terminal.layout import Line, laid_out
from ion_actors.dashboard.terminal.report import SORTS, Snippet, View, report, summary
from ion_actors.dashboard.terminal.screen import page
from ion_actors.own_variables import daemon_thread

__all__ = ["watch"]

_GLANCE = 0.1  # seconds between two looks at what the thread has read

Read = Callable[[], dict[str, Any]]


class _Readings:
    """Reads a snapshot every so many seconds, in a thread: a process may not answer."""

    def __init__(self, read: Read, interval: float) -> None:
        self._read = read
        self._interval = interval
        self._over = threading.Event()
        self.paused = False
        self.now: dict[str, Any] | None = None
        self.before: dict[str, Any] | None = None
        self.error: Unreadable | None = None
        self._thread = daemon_thread(self._run, "ion_actors-top")

    def __enter__(self) -> _Readings:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _run(self) -> None:
        while True:
            if not self.paused:
                try:
                    found = self._read()
                    self.before, self.now, self.error = self.now, found, None
                except Unreadable as error:
                    self.error = error
            if self._over.wait(self._interval):
                return


class _State:
    """What the keys have changed."""

    def __init__(self) -> None:
        self.view = View()
        self.offset = 0
        self.last = 0  # the greatest offset
        self.over = False

    def press(self, key: str, readings: _Readings, page: int) -> None:
        """Obey a key."""
        steps = {"up": -1, "down": 1, "page up": -page, "page down": page}
        if key in steps:
            self.offset = max(0, min(self.last, self.offset + steps[key]))
        elif key in ("home", "end"):
            self.offset = 0 if key == "home" else self.last
        elif key == "q":
            self.over = True
        elif key == "p":
            readings.paused = not readings.paused
        elif key == "e":
            self.view = dataclasses.replace(self.view, stacks=not self.view.stacks)
        elif key == "s":
            names = list(SORTS)
            after = names[(names.index(self.view.sort) + 1) % len(names)]
            self.view = dataclasses.replace(self.view, sort=after)


def watch(read: Read, interval: float) -> None:
    """Show what is read, until ``q`` is pressed.

    Args:
        read: returns a snapshot.
        interval: seconds between two snapshots.

    Raises:
        Unreadable: the process is gone.
    """
    console, state = Console(), _State()
    with (
        _Readings(read, interval) as readings,
        keyboard() as keys,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        while not state.over:
            if readings.error is not None and readings.error.gone:
                raise _ended(readings)
            _draw(console, live, state, readings)
            if (
                key := keys.key(_GLANCE if readings.now is None else min(interval, 0.5))
            ) is not None:
                state.press(key, readings, console.height - 2)


def _ended(readings: _Readings) -> Unreadable:
    if readings.now is None:
        return readings.error or Unreadable("")
    return Unreadable(f"process {readings.now['pid']} has ended, or publishes itself no more")


def _draw(console: Console, live: Live, state: _State, readings: _Readings) -> None:
    now = readings.now
    lines: list[Line] = [[Snippet("reading ...", "dim")]]
    if now is not None:
        view = dataclasses.replace(state.view, before=readings.before)
        lines = laid_out(summary(now), report(now, view), console.width)
    shown, state.last = page(console, lines, _foot(state, readings), state.offset)
    live.update(shown, refresh=True)


def _foot(state: _State, readings: _Readings) -> Snippet:
    if readings.error is not None:
        since = (
            ""
            if readings.now is None
            else f" (seen {time.time() - readings.now['time']:.0f} s ago)"
        )
        return Snippet(f"{readings.error}{since}", "bad")
    keys = [
        "q quit", f"s sorted by {state.view.sort}",
        "e fold stacks" if state.view.stacks else "e stacks and all rows",
        "p go on" if readings.paused else "p pause", "arrows scroll",
    ]  # fmt: skip
    text = "  ".join(keys)
    return Snippet(f"PAUSED  {text}", "odd") if readings.paused else Snippet(text, "dim")
