"""What happened when, told as it happens and drawn at the end."""

from __future__ import annotations

import bisect
import itertools
import threading
import time

from rich.console import Console
from rich.markup import escape

__all__ = ["Timeline"]

WIDTH = 60  # columns
BARS = " ▁▂▃▄▅▆▇█"
LINES = {"up": "─", "down": "×", "closed": "─", "open": "×", "half open": "?"}  # noqa: RUF001


class Timeline:
    """Events, and the states of things. Safe from any thread."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._lock = threading.Lock()  # guards the two below
        self._delivered: list[float] = []
        self._states: dict[str, list[tuple[float, str]]] = {}

    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def say(self, who: str, what: str) -> None:
        """One line."""
        line = f"{self.now():7.2f} s  [bold]{who:<9}[/]{escape(what)}"
        self._console.print(line, highlight=False, soft_wrap=True)

    def change(self, who: str, state: str, what: str) -> None:
        """Something is in another state from now on."""
        with self._lock:
            self._states.setdefault(who, []).append((self.now(), state))
        self.say(who, what)

    def deliver(self) -> int:
        """One more was delivered; returns how many were."""
        with self._lock:
            bisect.insort(self._delivered, self.now())
            return len(self._delivered)

    def draw(self) -> list[str]:
        """A chart: how much was delivered when, and the states meanwhile."""
        with self._lock:
            step = max(self.now(), 0.001) / WIDTH
            moments = [step * column for column in range(WIDTH + 1)]
            sums = [bisect.bisect_right(self._delivered, moment) for moment in moments]
            counts = [later - sooner for sooner, later in itertools.pairwise(sums)]
            most = max(counts, default=0) or 1
            rows = {"delivered": "".join(BARS[-(-8 * count // most)] for count in counts)}
            for who, states in self._states.items():
                rows[who] = "".join(LINES[_state_at(states, one)] for one in moments[1:])
        lines = [f"{who:<11}{row}" for who, row in rows.items()]
        return [*lines, f"{'':<11}0 s{f'{step * WIDTH:.1f} s':>{WIDTH - 3}}"]


def _state_at(states: list[tuple[float, str]], moment: float) -> str:
    place = bisect.bisect_right(states, moment, key=lambda one: one[0])
    return states[max(0, place - 1)][1]
