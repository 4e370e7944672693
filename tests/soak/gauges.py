"""What the process holds: read after each round, and written as a table."""

from __future__ import annotations

import csv
import resource
import threading
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from ion_actors.backends.process.parent.launch import running_children
from tests.soak.books import growth

__all__ = ["Sample", "grown", "read", "write"]

MIB = 1 << 20

#: By how much the last quarter of a soak may be above its second one: absolute, and as a share.
TOLERANCE: dict[str, tuple[float, float]] = {
    "resident": (16.0, 0.15),
    "descriptors": (6, 0.0),
    "threads": (6, 0.0),
    "children": (2, 0.0),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment."""

    seconds: float  #: since the beginning
    tasks: int  #: that have ended since then
    resident: float  #: MiB of memory
    descriptors: int
    threads: int
    children: int


def read(seconds: float, tasks: int) -> Sample:
    """The values of now. Those that only Linux has are 0 elsewhere."""
    linux = Path("/proc/self/statm")
    pages = int(linux.read_text().split()[1]) if linux.exists() else 0
    return Sample(
        round(seconds, 1),
        tasks,
        round(pages * resource.getpagesize() / MIB, 1),
        len(list(Path("/proc/self/fd").iterdir())) if linux.exists() else 0,
        threading.active_count(),
        len(running_children()),
    )


def write(path: Path, samples: Sequence[Sample]) -> None:
    """As a table of comma-separated values."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow([one.name for one in fields(Sample)])
        table.writerows(map(astuple, samples))


def grown(samples: Sequence[Sample]) -> list[str]:
    """What has not stayed flat."""
    found = []
    for name, (absolute, share) in TOLERANCE.items():
        values = [float(getattr(one, name)) for one in samples]
        more = growth(values)
        if more > absolute + share * max(values, default=0.0):
            found.append(f"{name} grew by {more:g}, to {values[-1]:g}")
    return found
