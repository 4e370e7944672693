"""A folder watched for photographs, each made into thumbnails by a supervised pool.

::

    pip install '.[examples]'
    python examples/watch_folder.py ~/inbox     # until Ctrl-C or SIGTERM
    python examples/watch_folder.py --feed      # drops nine sample photographs in, and ends

A photograph that was made is moved to ``done`` in that folder, one that cannot be read to
``failed``. What to look for:

- *Nothing half-written*: a file is taken when it did not change between two looks at the folder.
- *Backpressure*: when the pool's queue is full, ``try_submit`` says so, and the photographs stay
  where they are until the next look. The folder is the queue.
- *Waiting that listens*: between two looks the program waits on a context. SIGTERM ends that
  context, so it does not have to wait for the next look.
- *Drain*: on SIGTERM, nothing more is taken, and what was taken is finished. Then comes the report.
- *Ctrl-C* closes the pool instead. What was being made stays in the folder, for the next time.

Exit code: 0 (also after SIGTERM), or 1 if the drain took longer than ``--patience``, 2 for wrong
arguments, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from extras import require

require("PIL", "rich", extra="demo", about=__doc__)

from rich.console import Console
from rich.markup import escape

from ion_actors import Cancelled, Context, DrainTimeout, Future, Pool, QueueFull, current_context
from photolab.inbox import Arrival, Inbox
from photolab.samples import Photo, PhotosNotFoundError, find_photos
from photolab.styles import STYLES, render
from support import between, folder, metrics_sum, metrics_table

INBOX = Path("build/inbox")
LOOK_EVERY = 0.25  # seconds
COLOURS = {"made": "green", "failed": "yellow", "changed": "dim", "left": "dim"}


# --- the work -----------------------------------------------------------------------------------


def make(arrival: Arrival, out: Path, size: int) -> str:
    """A task: the thumbnails of one photograph; returns what became of it."""
    photo, checkpoint = arrival.path, current_context().check
    try:
        for style in STYLES:
            target = out / style / f"{photo.name}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            render(photo, target, style=style, size=size, checkpoint=checkpoint)
    except (OSError, SyntaxError) as error:
        # If it has changed, it was not complete after all; it will be looked at again.
        if arrival.file_under("failed"):
            return f"failed {photo.name} ({error})"
    else:
        if arrival.file_under("done"):
            return f"made {photo.name} in {len(STYLES)} styles"
    return f"changed {photo.name} while it was made; once more"


class Watcher:
    """Takes photographs from a folder to a pool. To be used by one thread."""

    def __init__(self, inbox: Inbox, pool: Pool, out: Path, size: int, console: Console) -> None:
        self.outcomes: collections.Counter[str] = collections.Counter()
        self._inbox = inbox
        self._pool = pool
        self._out = out
        self._size = size
        self._console = console
        self._under_way: dict[Path, Future[str]] = {}

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._under_way and not self._inbox.pictures()

    def look(self) -> None:
        """Tell what was done since the last look, and take what is new."""
        self.tell()
        for arrival in self._inbox.look():
            if arrival.path in self._under_way:
                continue
            task = self._pool.options(name=arrival.path.name)
            try:
                future = task.try_submit(make, arrival, self._out, self._size)
            except QueueFull:
                return  # the rest can wait where it is
            self._under_way[arrival.path] = future

    def tell(self) -> None:
        """Say what has become of those that are done."""
        for path in [path for path, future in self._under_way.items() if future.done()]:
            future = self._under_way.pop(path)
            try:
                said = future.result()
            except Cancelled:
                said = f"left {path.name} for the next time"
            what, _, text = said.partition(" ")
            self.outcomes[what] += 1
            line = f"[{COLOURS[what]}]{what:<8}[/] {escape(text)}"
            self._console.print(line, highlight=False, soft_wrap=True)


# --- the run ------------------------------------------------------------------------------------


@contextlib.contextmanager
def ended_by_sigterm(context: Context) -> Iterator[None]:
    """In this block, SIGTERM ends the context and nothing else."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        context.cancel("SIGTERM")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def feed(photos: Sequence[Photo], inbox: Path, context: Context) -> None:
    """Drop these photographs into the folder, as a slow network does: in pieces."""
    for photo in photos:
        whole = photo.path.read_bytes()
        middle = len(whole) // 2
        with (inbox / photo.path.name).open("wb") as file:
            file.write(whole[:middle])
            file.flush()
            context.wait(timeout=LOOK_EVERY / 2)
            file.write(whole[middle:])


@contextlib.contextmanager
def fed(photos: Sequence[Photo], inbox: Path, context: Context) -> Iterator[threading.Thread]:
    """While this block runs, the photographs arrive in the folder."""
    feeder = threading.Thread(target=feed, args=(photos, inbox, context), name="feeder")
    feeder.start()
    try:
        yield feeder
    finally:
        context.cancel("the feed is over")
        feeder.join()


def watch(options: argparse.Namespace, console: Console) -> int:
    """Watch until told to stop, then finish; returns the exit code."""
    # Its end is the end of watching. The tasks do not run under it: they are to be finished.
    watching = Context()
    pool = Pool(options.workers, options.queue, name="photos", drain_timeout=options.patience)
    watcher = Watcher(Inbox(options.folder), pool, options.out, options.size, console)
    code = 0
    try:
        with (
            ended_by_sigterm(watching),
            pool,
            fed(options.photos, options.folder, watching) as feeder,
        ):
            while not watching.wait(timeout=LOOK_EVERY):
                watcher.look()
                if options.feed and not feeder.is_alive() and watcher.idle:
                    break
            busy = pool.metrics()
            console.print(f"stopping {busy.running} running, {busy.queued} queued: to be finished")
    except DrainTimeout as error:
        names = ", ".join(sorted(task.name for task in error.report.unfinished))
        console.print(f"[red]unfinished[/] {escape(names)}", highlight=False, soft_wrap=True)
        code = 1
    except KeyboardInterrupt:
        code = 130
    watcher.tell()
    report(watcher, pool, options, console)
    return code


def report(watcher: Watcher, pool: Pool, options: argparse.Namespace, console: Console) -> None:
    """What was done."""
    console.print(metrics_table(pool))
    done = ", ".join(f"{count} {what}" for what, count in sorted(watcher.outcomes.items()))
    lines = [
        metrics_sum(pool),
        f"pictures    {done or 'none'}",
        f"thumbnails  {options.out}",
        f"waiting     {len(Inbox(options.folder).pictures())} in {options.folder}",
    ]
    for line in lines:
        console.print(escape(line), highlight=False, soft_wrap=True)


# --- the command line ---------------------------------------------------------------------------


def command_line() -> argparse.ArgumentParser:
    """The options and their defaults."""
    parser = argparse.ArgumentParser(description="Thumbnails of what is dropped into a folder.")
    parser.add_argument(
        "folder", type=folder, nargs="?",
        help=f"has to exist; without one, {INBOX} is made",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=folder, metavar="DIR", default=Path("build/watched"), help="(%(default)s)"
    )
    parser.add_argument("--feed", action="store_true", help="drop sample photographs in, then end")
    parser.add_argument(
        "--size", type=between(32, 512), default=160, help="side in pixels (%(default)s)"
    )
    parser.add_argument("--workers", type=between(1, 256), default=4, help="(%(default)s)")
    parser.add_argument(
        "--queue", type=between(0, 10_000), default=8, help="photographs (%(default)s)"
    )
    parser.add_argument(
        "--patience", type=between(1, 3600), default=60, metavar="SECONDS",
        help="for what is to be finished after SIGTERM (%(default)s)",
    )  # fmt: skip
    return parser


def existing(path: Path) -> Path:
    """This folder: a wrong path is an error, and not a new folder that nobody writes to."""
    if not path.is_dir():
        raise NotADirectoryError(f"{path} is no folder")
    return path


def made(path: Path) -> Path:
    """This folder, made if it is not there."""
    path.mkdir(parents=True, exist_ok=True)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = command_line()
    options = parser.parse_args(arguments)
    console = Console()
    try:
        options.photos = find_photos(None) if options.feed else []
        options.folder = existing(options.folder) if options.folder else made(INBOX)
        options.out.mkdir(parents=True, exist_ok=True)
    except (PhotosNotFoundError, OSError) as error:
        parser.error(str(error))
    say = f"Watching {options.folder}; Ctrl-C or SIGTERM ends it."
    console.print(escape(say), highlight=False, soft_wrap=True)
    return watch(options, console)


if __name__ == "__main__":
    sys.exit(main())
