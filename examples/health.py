"""The checksums of a folder, by a pool that is looked after while it works.

::

    python examples/health.py                            # the folder of Python's standard library
    python examples/health.py ~/Pictures --sums SHA256SUMS
    python examples/health.py --rounds 1000000           # then: kill PID, from another terminal

Among the files there is one thing that never answers: a pipe that nobody writes into. What to look
for:

- *The pool grows and shrinks under load*, from 1 worker to ``--most``, by how full its queue is. No
  task is lost by it.
- *The pipe is found*: after ``--stuck-after`` seconds it is reported, with the place where its
  thread waits, and its worker is replaced, so that the others go on at full strength.
- *The dump* that is printed then shows what each worker is at.
- *SIGTERM* drains: what was accepted is finished, the rest is turned away, and what does not end in
  ``--patience`` seconds, the pipe, is named and left behind.

Exit code: 0, or 1 if a file could not be read, 2 for wrong arguments, 130 after Ctrl-C, 143 after
SIGTERM.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import signal
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NoReturn

from ion_actors import DrainTimeout, Future, Pool, PoolClosed, StuckTask, current_context

CHUNK = 1 << 16  # bytes between two looks at whether anybody still wants the checksum
QUEUE = 32  # places in the queue
PAUSE = 0.1  # seconds at least between two changes of the pool's size


# --- the work -----------------------------------------------------------------------------------


def checksum(path: Path) -> str:
    """The task: the SHA-256 of a file."""
    with path.open("rb") as file:
        return digest(file)


def digest(file: IO[bytes]) -> str:
    """The SHA-256 of what can be read from here."""
    found = hashlib.sha256()
    while chunk := file.read(CHUNK):
        current_context().check()
        found.update(chunk)
    return found.hexdigest()


class Silence:
    """A pipe that nobody writes into: whoever reads it waits until it is closed."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def checksum(self) -> str:
        """The task that is stuck."""
        with open(self._read, "rb") as file:  # noqa: PTH123  # it has no path
            return digest(file)

    def end(self) -> None:
        """Close it: who reads it finds nothing, and goes on."""
        os.close(self._write)


def files_of(folder: Path) -> Iterator[Path]:
    """Every file below a folder, in order. Links are not followed."""
    for path, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            file = Path(path, name)
            if file.is_file() and not file.is_symlink():
                yield file


# --- the care -----------------------------------------------------------------------------------


def better_size(size: int, queued: int, most: int) -> int:
    """How many workers there should be, if so many tasks wait."""
    if queued > QUEUE * 3 // 4:
        return min(2 * size, most)
    if queued == 0:
        return max(size - 1, 1)
    return size


class Care:
    """Fits the pool's size to its load, and tells of what is stuck."""

    def __init__(self, most: int, stuck_after: float, patience: float) -> None:
        self._most = most
        self._changed = time.monotonic()
        self.found = threading.Event()  # a task that is stuck
        self.pool = Pool(
            1, QUEUE, name="sums", drain_timeout=patience,
            stuck_after=stuck_after, on_stuck=self.on_stuck, replace_stuck=1,
        )  # fmt: skip

    def fit(self) -> None:
        """Grow or shrink, if it is time to. The pool's log tells of it."""
        if time.monotonic() < self._changed + PAUSE:
            return
        wanted = better_size(self.pool.size, self.pool.metrics().queued, self._most)
        if wanted != self.pool.size:
            self.pool.resize(wanted)
            self._changed = time.monotonic()

    def on_stuck(self, task: StuckTask) -> None:
        """A task has been running for too long. Called in a thread of its own."""
        replaced = "which is replaced" if task.replaced else "which is not replaced"
        sys.stdout.write(  # in one piece: others print, too
            f"STUCK for {task.age:.2f} s: {task.task!r} on {task.worker}, {replaced}; it is at\n"
            f"{task.stack.rstrip().splitlines()[-1]}\n{self.pool.dump()}\n"
        )
        self.found.set()


# --- the program --------------------------------------------------------------------------------


class Sums:
    """The checksums of a folder."""

    def __init__(self, care: Care) -> None:
        self._care = care
        self.lines: list[str] = []
        self.failed = 0

    def go_through(self, folder: Path) -> None:
        """Hand out every file, and gather the checksums."""
        waiting: list[tuple[Path, Future[str]]] = []
        for path in files_of(folder):
            waiting.append((path, self._care.pool.submit(checksum, path)))
            self._care.fit()
        for path, future in waiting:
            try:
                self.lines.append(f"{future.result()}  {path}")
            except OSError as error:
                print(f"cannot read {path}: {error.strerror}", file=sys.stderr)
                self.failed += 1
            self._care.fit()


def run(options: argparse.Namespace) -> Sums:
    """Go through the folder, so many times, while one task is stuck."""
    care, silence = Care(options.most, options.stuck_after, options.patience), Silence()
    sums = Sums(care)
    with care.pool as pool, pool.drain_on_signal(signal.SIGTERM, options.patience):
        stuck = pool.options(name="the pipe").submit(silence.checksum)
        for _ in range(options.rounds):
            sums.lines.clear()
            sums.go_through(options.folder)
        care.found.wait()
        silence.end()
        print(f"the pipe has ended after all: {stuck.result()[:16]}...")
    print(f"{len(sums.lines)} files; {pool.metrics()}")
    return sums


def terminated(*_: object) -> NoReturn:
    """Had SIGTERM before the pool, so it is called when the pool has drained."""
    sys.exit(143)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    options = parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)
    signal.signal(signal.SIGTERM, terminated)
    try:
        sums = run(options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (PoolClosed, DrainTimeout) as error:
        print(f"stopped: {error}")
        threading.Event().wait(PAUSE * 100)  # the pool has drained: now comes the signal
        return 143
    if options.sums is not None:
        options.sums.write_text("".join(f"{line}\n" for line in sums.lines), encoding="utf-8")
    return 1 if sums.failed else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="The checksums of a folder, by a healthy pool.")
    standard_library = Path(sysconfig.get_path("stdlib"))
    parser.add_argument("folder", type=Path, nargs="?", default=standard_library)
    parser.add_argument("--most", type=int, default=8, help="workers; default: 8")
    parser.add_argument("--rounds", type=int, default=1, help="how often; default: 1")
    parser.add_argument("--sums", type=Path, help="write them here, as sha256sum does")
    parser.add_argument("--stuck-after", type=float, default=0.5, help="seconds; default: 0.5")
    parser.add_argument("--patience", type=float, default=1.0, help="seconds to drain; default: 1")
    options = parser.parse_args(arguments)
    if not options.folder.is_dir():
        parser.error(f"there is no folder {str(options.folder)!r}")
    if options.most < 1 or options.rounds < 1:
        parser.error("it takes at least 1 worker and 1 round")
    if options.stuck_after <= 0 or options.patience < 0:
        parser.error("--stuck-after takes more than 0 seconds, --patience at least 0")
    return options


if __name__ == "__main__":
    sys.exit(main())
