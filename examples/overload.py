"""A login service under ten times the load that it can bear, with each overload policy in turn.

::

    python examples/overload.py
    python examples/overload.py --load 3 --seconds 5
    python examples/overload.py --only drop_oldest,codel

Each visitor's password is checked with PBKDF2, which takes real time on purpose. Visitors come
whether or not there is room, and one in ten of them is on the staff. Nobody waits for more than
``--patience`` seconds: who is answered later than that has gone. What to look for:

- *block* slows the door down, so hardly anybody comes in: right for files, wrong for people.
- *reject* and *drop_newest* keep whoever waits already: with such a queue, nearly everybody is
  answered too late.
- *drop_oldest* drops whoever has waited longest, so that the others are answered in time.
- *caller_runs* makes the door check passwords, and visitors wait outside.
- *codel* sheds those who waited too long, as soon as all do.
- *ttl* drops those who have gone.
- *staff* waits least in any of them: ``priority=1``. Who tries twice is checked once at a time:
  ``key=`` the name.

Exit code: 0, 2 for wrong arguments, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import itertools
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from extras import require

require("rich", extra="examples", about=__doc__)

from rich.console import Console
from rich.table import Table

from ion_actors import CoDel, Overflow, Pool, QueueFull
from support import between

WORKERS = 2
QUEUE_SIZE = 50
USERS = 50
STAFF_EVERY = 10  # one in so many visitors
WANTED = 0.02  # seconds that one check should take


# --- the work -----------------------------------------------------------------------------------


class Book:
    """The users and the digests of their passwords."""

    def __init__(self) -> None:
        self._rounds = self._calibrated()
        self._digests = {f"user{n}": self._digest(f"user{n}", f"secret{n}") for n in range(USERS)}

    def _digest(self, name: str, password: str) -> bytes:
        return hashlib.pbkdf2_hmac("sha256", password.encode(), name.encode(), self._rounds)

    def _calibrated(self) -> int:
        """So many rounds that a check takes the wanted time here."""
        self._rounds = 5_000
        began = time.perf_counter()
        self._digest("anybody", "anything")
        return max(1, int(self._rounds * WANTED / (time.perf_counter() - began)))

    def knows(self, name: str, password: str) -> bool:
        """Whether that is the user's password."""
        return hmac.compare_digest(self._digests[name], self._digest(name, password))


@dataclass
class Tally:
    """What became of the visitors of one run; times in seconds."""

    came: int = 0
    refused: int = 0
    waits: dict[str, list[float]] = field(default_factory=lambda: {"guest": [], "staff": []})

    @property
    def longest(self) -> dict[str, float]:
        """The longest time from coming to being answered, of each kind of visitor."""
        return {kind: max(waits, default=0.0) for kind, waits in self.waits.items()}

    def answered(self, patience: float) -> tuple[int, int]:
        """How many were answered in time, and how many too late."""
        every = [wait for waits in self.waits.values() for wait in waits]
        late = sum(wait > patience for wait in every)
        return len(every) - late, late


class Service:
    """A door that lets visitors into a pool."""

    def __init__(self, book: Book, pool: Pool, ttl: float | None) -> None:
        self._book = book
        self.tally = Tally()
        self._guests = pool.options(ttl=ttl)
        self._staff = pool.options(ttl=ttl, priority=1)

    def welcome(self, number: int, came_at: float) -> None:
        """A visitor comes, and says a name and a password."""
        kind = "guest" if number % STAFF_EVERY else "staff"
        desk = self._guests if kind == "guest" else self._staff
        user = number % USERS
        self.tally.came += 1
        try:
            desk.options(key=user).submit(self._check, kind, user, came_at)
        except QueueFull:
            self.tally.refused += 1

    def _check(self, kind: str, user: int, came_at: float) -> bool:
        known = self._book.knows(f"user{user}", f"secret{user}")
        self.tally.waits[kind].append(time.perf_counter() - came_at)
        return known


# --- the run ------------------------------------------------------------------------------------


def policies(patience: float) -> dict[str, tuple[Overflow | CoDel, float | None]]:
    """The policy of each run, and how long a task may wait in the queue."""
    every: dict[str, tuple[Overflow | CoDel, float | None]] = {
        one.value: (one, None) for one in Overflow
    }
    every["codel"] = (CoDel(target=patience / 4, interval=patience), None)
    every["ttl"] = (Overflow.REJECT, patience * 0.9)
    return every


def run(book: Book, name: str, options: argparse.Namespace) -> tuple[Tally, Counter[str]]:
    """Have visitors come for a while; returns what became of them, and who was dropped why."""
    policy, ttl = policies(options.patience)[name]
    with Pool(WORKERS, QUEUE_SIZE, name=name, overflow=policy) as pool:
        service = Service(book, pool, ttl)
        pause = WANTED / WORKERS / options.load
        began = time.perf_counter()
        for number in itertools.count():
            due = began + number * pause
            now = time.perf_counter()
            if max(now, due) > began + options.seconds:
                break
            if due > now:
                time.sleep(due - now)
            service.welcome(number, due)
        pool.close()  # who is left goes home
    dropped = {reason.value: count for reason, count in pool.metrics().dropped.items()}
    return service.tally, Counter(dropped)


# --- what the person sees -----------------------------------------------------------------------


def row(name: str, tally: Tally, dropped: Counter[str], patience: float) -> list[str]:
    """One run for people."""
    in_time, late = tally.answered(patience)
    reasons = "\n".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
    longest: dict[str, Any] = tally.longest
    return [
        name,
        str(tally.came),
        str(in_time),
        str(late),
        str(tally.refused),
        reasons or "none",
        *(f"{longest[kind]:.2f} s" for kind in ("guest", "staff")),
    ]


LEGEND = (
    "closed: still queued when the pool was closed at the end\n"
    "guest, staff: the longest time until an answer"
)


def empty_table() -> Table:
    """For the report, a row for each policy."""
    heads = ("policy", "came", "in time", "too late", "refused", "dropped", "guest", "staff")
    table = Table(*heads, caption=LEGEND)
    table.columns[0].no_wrap = True
    for column in (*table.columns[1:5], *table.columns[6:]):
        column.justify = "right"
    return table


def command_line() -> argparse.ArgumentParser:
    """The options and their defaults."""
    parser = argparse.ArgumentParser(description="A service under more load than it can bear.")
    parser.add_argument(
        "--load", type=between(1, 100), default=10, help="times the capacity (%(default)s)"
    )
    parser.add_argument("--seconds", type=positive, default=2.0, help="of each run (%(default)s)")
    parser.add_argument(
        "--patience", type=positive, default=0.25, help="seconds until a visitor goes (%(default)s)"
    )
    names = list(policies(1.0))
    parser.add_argument(
        "--only",
        type=lambda text: chosen(text, names),
        default=names,
        metavar="POLICY,…",
        help=f"of {', '.join(names)}",
    )
    return parser


def positive(text: str) -> float:
    """An argument type: a number of seconds."""
    if not 0 < (value := float(text)) < 3600:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0 and less than 3600")
    return value


def chosen(text: str, names: Sequence[str]) -> list[str]:
    """An argument type: some of these names."""
    wanted = text.split(",")
    for name in wanted:
        if name not in names:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(names)}")
    return wanted


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    options = command_line().parse_args(arguments)
    console = Console()
    table = empty_table()
    try:
        book = Book()
        for name in options.only:
            console.print(f"{name}: {options.load} times what it can bear", style="dim")
            tally, dropped = run(book, name, options)
            table.add_row(*row(name, tally, dropped, options.patience))
    except KeyboardInterrupt:
        console.print("[yellow]Interrupted[/]")
        return 130
    finally:
        console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
