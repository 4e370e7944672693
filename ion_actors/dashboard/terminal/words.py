"""Ages, numbers and places as people read them."""

from __future__ import annotations

import re
from typing import Any

from ion_actors.naming import printable

__all__ = ["age", "clean", "count", "lines", "place"]

_FOLDERS = re.compile(r".*[/\\]")
_STANDARD = re.compile(r"[/\\]lib[/\\]python3[\w.]*[/\\](?!(site|dist)-packages)")
_FRAME = re.compile(r'\s*File "(.*)", line (\d+), in (.*)')


def age(seconds: Any) -> str:
    """As "0.2 s", "42 s", "3 min 5 s", "2 h 10 min", "3 d 4 h"; empty for None."""
    if not isinstance(seconds, int | float):
        return ""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    whole = int(seconds)
    for unit, size, below, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part} {below}"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def count(number: Any) -> str:
    """As "12,345"; empty for what is no number."""
    return f"{number:,}" if isinstance(number, int) else ""


def clean(text: Any) -> str:
    """A text of another process in one line: it cannot move the cursor, nor hide what is next."""
    return printable(str(text))


def lines(stack: str) -> list[str]:
    """A stack, line by line."""
    return [printable(line.expandtabs()) for line in str(stack).splitlines()]


def place(stack: str) -> str:
    """Where a stack is: the innermost call of the user's, and what that waits in."""
    calls = [one.groups() for line in lines(stack) if (one := _FRAME.fullmatch(line))]
    if not calls:
        return next(iter(lines(stack)), "").strip()
    own = [call for call in calls if _STANDARD.search(call[0]) is None]
    file, line, function = (own or calls)[-1]
    found = f"{_FOLDERS.sub('', file)}:{line} {function}"
    return found if not own or own[-1] is calls[-1] else f"{found} > {calls[-1][2]}"
