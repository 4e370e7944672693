"""How large a directory tree is, with one task for each folder, each waiting for those below it.

::

    python examples/disk_usage.py                   # the folder of Python's standard library
    python examples/disk_usage.py ~/Pictures        # your own
    python examples/disk_usage.py --workers 8 --queue 100

What to look for:

- *A task waits for tasks of its own pool.* By default there is one worker, and one place in the
  queue. A ``ThreadPoolExecutor`` of any size can run out of workers here; this pool's workers
  run what they wait for themselves.
- *Nothing is read twice, nothing is lost*: the table at the end says how many tasks there were, and
  how deep they were nested.
- *Ctrl-C* leaves the ``with`` block by an exception, which closes the pool.

Exit code: 0, or 1 if a folder could not be read, 2 for wrong arguments, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
import sysconfig
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ion_actors import Pool, current_context


@dataclass
class Folder:
    """A folder, with what is in it and below it."""

    path: Path
    size: int = 0  # bytes, with all below
    files: int = 0
    unreadable: int = 0
    below: list[Folder] = field(default_factory=list)

    def add(self, other: Folder) -> None:
        """Count what is below."""
        self.size += other.size
        self.files += other.files
        self.unreadable += other.unreadable
        self.below.append(other)


class Walk:
    """One walk down a tree."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._lock = threading.Lock()  # guards the three numbers
        self._nested = 0
        self.deepest = 0
        self.folders = 0

    def measure(self, path: Path) -> Folder:
        """The task: look at one folder, hand out those below it, and wait for them."""
        current_context().check()
        self._enter()
        try:
            folder, names = look_at(path)
            tasks = [self._pool.submit(self.measure, path / name) for name in names]
            for task in tasks:
                folder.add(task.result())  # here a worker would wait for itself
            return folder
        finally:
            self._leave()

    def _enter(self) -> None:
        with self._lock:
            self.folders += 1
            self._nested += 1
            self.deepest = max(self.deepest, self._nested)

    def _leave(self) -> None:
        with self._lock:
            self._nested -= 1


def look_at(path: Path) -> tuple[Folder, list[str]]:
    """What is right in a folder, and the names of those in it. Links are not followed."""
    folder, names = Folder(path), []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    names.append(entry.name)
                elif entry.is_file(follow_symlinks=False):
                    folder.files += 1
                    folder.size += entry.stat(follow_symlinks=False).st_size
    except OSError as error:
        print(f"cannot read {path}: {error.strerror}", file=sys.stderr)
        folder.unreadable += 1
    return folder, sorted(names)


def show(folder: Folder, depth: int, indent: str = "") -> None:
    """Print the largest folders of each level."""
    print(f"{folder.size / 1e6:9.2f} MB {folder.files:7} files  {indent}{folder.path.name}/")
    if depth:
        for one in sorted(folder.below, key=lambda one: one.size, reverse=True)[:4]:
            show(one, depth - 1, indent + "  ")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Add up a directory tree, one task per folder.")
    standard_library = Path(sysconfig.get_path("stdlib"))
    parser.add_argument("folder", type=Path, nargs="?", default=standard_library)
    parser.add_argument("--workers", type=int, default=1, help="default: 1")
    parser.add_argument("--queue", type=int, default=1, help="places in the queue; default: 1")
    parser.add_argument("--depth", type=int, default=2, help="levels to print; default: 2")
    options = parser.parse_args(arguments)
    if not options.folder.is_dir():
        parser.error(f"there is no folder {str(options.folder)!r}")
    if options.workers < 1 or options.queue < 0:
        parser.error("it takes at least 1 worker, and a queue of 0 or more places")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program."""
    options = parse(arguments)
    try:
        with Pool(options.workers, options.queue, name="walkers") as pool:
            walk = Walk(pool)
            total = pool.submit(walk.measure, options.folder.resolve()).result()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    show(total, options.depth)
    numbers = pool.metrics()
    print(
        f"\n{walk.folders} folders = {numbers.completed} tasks, at most {walk.deepest} of them at"
        f" a time, on {numbers.size} worker(s) and {numbers.queue_size} place(s) in the queue"
    )
    return 1 if total.unreadable else 0


if __name__ == "__main__":
    sys.exit(main())
