"""A folder that pictures are dropped into, and when one of them is complete.

A picture is complete when its size and its time of change are the same at two looks in a row. A
program that writes more slowly than that should write to a name that begins with a dot, which is
not looked at, and rename when it is done.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from photolab.samples import KINDS

__all__ = ["Arrival", "Inbox"]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A picture as it was found: two of the same file differ when it was written to in between."""

    path: Path
    size: int
    changed: int

    @classmethod
    def of(cls, path: Path) -> Arrival | None:
        """The picture as it is now; None if it is gone."""
        try:
            facts = path.stat()
        except FileNotFoundError:
            return None
        return cls(path, facts.st_size, facts.st_mtime_ns)

    def file_under(self, name: str) -> bool:
        """Move it to a folder of this name beside it, unless it has changed; whether it did."""
        if Arrival.of(self.path) != self:
            return False
        target = self.path.parent / name
        target.mkdir(exist_ok=True)
        self.path.replace(_free(target / self.path.name))
        return True


class Inbox:
    """The folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._before: frozenset[Arrival] = frozenset()

    def pictures(self) -> list[Path]:
        """All that look like pictures by their names, complete or not."""
        entries = (p for p in self._folder.iterdir() if not p.name.startswith("."))
        return sorted(p for p in entries if p.suffix.lower() in KINDS and p.is_file())

    def look(self) -> list[Arrival]:
        """The pictures that have not changed since the look before."""
        now = [found for path in self.pictures() if (found := Arrival.of(path)) is not None]
        complete = [one for one in now if one in self._before]
        self._before = frozenset(now)
        return complete


def _free(path: Path) -> Path:
    """This path, or one like it that is not taken."""
    numbered = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))
    return next(one for one in itertools.chain([path], numbered) if not one.exists())
