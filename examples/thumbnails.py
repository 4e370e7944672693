"""Thumbnails of a folder of photographs, made by a supervised pool.

::

    pip install '.[demo]'
    python examples/thumbnails.py                        # nine sample photographs
    python examples/thumbnails.py --images ~/Pictures    # your own
    make demo IMAGES=~/Pictures                          # the same, in a virtual environment

Every photograph is rendered in every style of ``photolab.styles``, one task each. What to look for:

- *Backpressure*: the queue holds eight tasks, so ``submit`` waits while the workers are busy, and
  the folder may be as long as it likes.
- *A failure*: the program plants a JPEG that was cut short. Its task raises, the future says so,
  and the worker goes on.
- *A panic*: the program plants a task that calls ``sys.exit()``. That takes its worker down; the
  supervisor tells the handler and starts a fresh worker, whose initializer runs again.
- *Cancellation*: Ctrl-C leaves the ``with`` block by an exception, which closes the pool. Running
  tasks notice between two steps, because each calls ``current_context().check()``.
- *Metrics*: every task submitted is accounted for in the table at the end.

Exit code: 0, or 1 if a photograph of the folder could not be rendered, 2 for wrong arguments, 130
after Ctrl-C.
"""

from __future__ import annotations

import argparse
import functools
import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, wait
from dataclasses import dataclass
from pathlib import Path

from extras import require

require("PIL", "rich", extra="demo", about=__doc__)

from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TimeElapsedColumn,
)

from ion_actors import Panic, PanicRecovery, Pool, TaskPanicked, current_context
from photolab.samples import CREDITS, Photo, PhotosNotFoundError, find_photos
from photolab.sheet import ContactSheet
from photolab.styles import STYLES, render
from support import PoolColumn, between, folder, metrics_sum, metrics_table

QUEUE_SIZE = 8
PLANTED = (
    "truncated/whole, a JPEG that was cut short: its task fails",
    "rogue-codec, a task that calls sys.exit(): it takes its worker down, which is replaced",
)
TASK_TIMEOUT = 60.0  # seconds that one rendition may take

Result = Future[Path]


# --- what is to be done -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Job:
    """One task. ``cell`` is its place on the contact sheet; the planted jobs have none."""

    name: str
    work: Callable[[], Path]
    cell: tuple[str, str] | None = None


def plan(photos: Sequence[Photo], out: Path, size: int) -> list[Job]:
    """A job for each photograph in each style, and in the middle the two that go wrong."""
    jobs = [rendition(photo, style, out, size) for photo in photos for style in STYLES]
    truncated = truncated_photo(out / "planted" / "truncated.jpg")
    broken = renderer(truncated, out / "planted" / "never.jpg", "whole", size)
    planted = [Job("truncated/whole", broken), Job("rogue-codec", rogue_codec)]
    middle = len(jobs) // 2
    return jobs[:middle] + planted + jobs[middle:]


def rendition(photo: Photo, style: str, out: Path, size: int) -> Job:
    """The job that writes ``photo`` in ``style``."""
    target = out / style / f"{photo.name}.jpg"
    work = renderer(photo.path, target, style, size)
    return Job(f"{photo.name}/{style}", work, cell=(photo.name, style))


def renderer(photo: Path, target: Path, style: str, size: int) -> Callable[[], Path]:
    """The call that a worker makes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    return functools.partial(render, photo, target, style=style, size=size, checkpoint=checkpoint)


def checkpoint() -> None:
    """End this task here if its context has ended: by Ctrl-C, or by its own time limit."""
    current_context().check()


def truncated_photo(target: Path) -> Path:
    """A JPEG that ends in the middle, as a download that broke off leaves it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.radial_gradient("L").resize((1024, 1024)).save(target)
    whole = target.read_bytes()
    target.write_bytes(whole[: len(whole) // 2])
    return target


def rogue_codec() -> Path:
    """Stand in for a library that was once a command line tool and still exits on bad input."""
    sys.exit("rogue codec: unknown marker 0x42")


# --- what the person sees -----------------------------------------------------------------------


class Narrator:
    """Says what happens. Its methods are called from the pool's threads; rich's console locks."""

    def __init__(self, console: Console, workers: int) -> None:
        self._console = console
        self._workers = workers
        self._starts = 0
        self._lock = threading.Lock()  # guards _starts

    def on_start(self) -> None:
        """The pool's initializer: runs in every worker, and again in each that replaces one."""
        with self._lock:
            self._starts += 1
            start = self._starts
        if start > self._workers:
            thread = threading.current_thread().name
            self._say("green", "restarted", f"{thread} took its place (worker start no. {start})")

    def on_panic(self, panic: Panic) -> None:
        """The pool's panic handler."""
        error = f"{type(panic.error).__name__}: {panic.error}"
        self._say("red", "panicked", f"{panic.task} took down {panic.worker} ({error})")

    def on_end(self, name: str, error: BaseException | None) -> None:
        """Called for every task that ended by itself; of a panic, the handler has told already."""
        if error is not None and not isinstance(error, TaskPanicked):
            self._say("yellow", "failed", f"{name} ({type(error).__name__}: {error})")

    def _say(self, style: str, what: str, text: str) -> None:
        line = f"[{style}]{what:<10}[/] {escape(text)}"
        self._console.print(line, highlight=False, soft_wrap=True)


def outcome(future: Result) -> BaseException | None:
    """How an ended future went wrong, if it did."""
    return CancelledError() if future.cancelled() else future.exception()


def progress_bar(console: Console, pool: Pool) -> Progress:
    """A bar that shows how far the run is, and the pool's figures beside it."""
    columns = (BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), PoolColumn(pool))
    return Progress(*columns, console=console)


# --- the run ------------------------------------------------------------------------------------


def run(jobs: Sequence[Job], pool: Pool, narrator: Narrator, bar: Progress) -> list[Result]:
    """Submit every job and wait for all of them."""
    row = bar.add_task("thumbnails", total=len(jobs))

    def settled(name: str, future: Result) -> None:
        error = outcome(future)
        if not isinstance(error, CancelledError):
            narrator.on_end(name, error)
            bar.advance(row)

    futures: list[Result] = []
    for job in jobs:
        submitter = pool.options(name=job.name, timeout=TASK_TIMEOUT)
        future = submitter.submit(job.work)  # waits here while the queue is full
        future.add_done_callback(functools.partial(settled, job.name))
        futures.append(future)
    # Leaving the pool's block would wait as well. Waiting inside it means that Ctrl-C is still an
    # exception within the block, which closes the pool instead of draining it.
    wait(futures)
    return futures


def make_thumbnails(
    jobs: Sequence[Job], workers: int, console: Console
) -> tuple[list[Result], Pool]:
    """The futures of all jobs, ended, and the pool, drained."""
    narrator = Narrator(console, workers)
    pool = Pool(
        workers,
        QUEUE_SIZE,
        name="thumbnails",
        panic_recovery=PanicRecovery(handler=narrator.on_panic),
        initializer=narrator.on_start,
    )
    try:
        with progress_bar(console, pool) as bar, pool:
            futures = run(jobs, pool, narrator, bar)
    except KeyboardInterrupt:
        done = pool.metrics().completed
        console.print(f"[yellow]Interrupted[/] after {done} of {len(jobs)} tasks; pool closed.")
        raise
    return futures, pool


def contact_sheet(
    jobs: Sequence[Job], futures: Sequence[Result], size: int, subtitle: str
) -> ContactSheet:
    """The sheet with every thumbnail that was made."""
    cells = [job.cell for job in jobs if job.cell]
    made = {
        job.cell: future.result()
        for job, future in zip(jobs, futures, strict=True)
        if job.cell and outcome(future) is None
    }
    rows = list(dict.fromkeys(photo for photo, _ in cells))
    title = f"ion_actors · {len(rows)} photographs in {len(STYLES)} styles"
    return ContactSheet(title, subtitle, rows, list(STYLES), made, size)


def show(photos: Sequence[Photo], options: argparse.Namespace, console: Console) -> int:
    """Make the thumbnails, then the table and the sheet; returns the exit code."""
    logging.getLogger("ion_actors.pool").setLevel(logging.ERROR)  # the narrator tells of panics
    lines = ["Planted to go wrong, to show what a pool makes of it:", *PLANTED]
    console.print("\n  ".join(lines), style="dim", highlight=False)
    jobs = plan(photos, options.out, options.size)
    begun = time.perf_counter()
    futures, pool = make_thumbnails(jobs, options.workers, console)
    took = time.perf_counter() - begun
    numbers = pool.metrics()
    subtitle = (
        f"{numbers.completed} thumbnails by {numbers.size} workers in {took:.1f} s · "
        f"{numbers.failed} failed · {numbers.panicked} panicked · {numbers.restarts} restarted"
    )
    sheet = contact_sheet(jobs, futures, options.size, subtitle)
    path = sheet.save(options.out / "contact-sheet.png")
    console.print(metrics_table(pool))
    console.print(metrics_sum(pool), highlight=False, soft_wrap=True)
    console.print(f"thumbnails     {escape(str(options.out))}", highlight=False, soft_wrap=True)
    console.print(f"contact sheet  {escape(str(path))}", highlight=False, soft_wrap=True)
    return 0 if len(sheet.thumbnails) == len(photos) * len(STYLES) else 1


# --- the command line ---------------------------------------------------------------------------


def command_line() -> argparse.ArgumentParser:
    """The options and their defaults."""
    parser = argparse.ArgumentParser(description="Thumbnails on a supervised pool of workers.")
    parser.add_argument(
        "--images", type=folder, metavar="DIR", help="folder of photographs (default: nine samples)"
    )
    parser.add_argument(
        "--out", type=folder, metavar="DIR", default=Path("build/thumbnails"), help="(%(default)s)"
    )
    parser.add_argument(
        "--size", type=between(32, 512), default=160, help="side in pixels (%(default)s)"
    )
    parser.add_argument("--workers", type=between(1, 256), default=4, help="(%(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = command_line()
    options = parser.parse_args(arguments)
    console = Console()
    try:
        photos = find_photos(options.images)
        options.out.mkdir(parents=True, exist_ok=True)
    except (PhotosNotFoundError, OSError) as error:
        parser.error(str(error))
    if options.images is None:
        lines = ["Sample photographs from scikit-image:", *(CREDITS[p.path.name] for p in photos)]
        console.print("\n  ".join(lines), style="dim", highlight=False)
    try:
        return show(photos, options, console)
    except KeyboardInterrupt:
        console.print(f"The thumbnails made so far are in {escape(str(options.out))}.")
        return 130


if __name__ == "__main__":
    sys.exit(main())
