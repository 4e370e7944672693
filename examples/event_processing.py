"""Events processed on a pool, with every step traced by OpenTelemetry and shown as trees.

::

    pip install '.[examples]'
    python examples/event_processing.py                       # the standard library's files
    python examples/event_processing.py ~/project             # another tree of Python files
    python examples/event_processing.py --events log.jsonl    # a log, one JSON object a line

An event is "this file was changed", in the order in which the files of a folder were, as an indexer
hears of them; or it is a line of a log. The file is read, parsed and its syntax tree is counted;
the line is decoded and its keys are counted.

What to look for:

- *Traces*: the main thread's span ``receive`` has the task's span below it, although that runs in
  another thread and mostly later. The pool's tracer hook sees to that, and says how long the event
  was in the queue. The steps are below the task, because its span is the current one there.
- *A task wrapper* gives each task a span ``handle`` with the CPU time that it took. Where a step
  took much longer than its CPU time, it was waiting for others.
- *Backpressure*: a ``receive`` that takes long has waited for room in the queue.
- *Errors* are in their spans, and in red. A file that is no Python, or a line that is no JSON
  object, fails its own task only.

Exit code: 0, or 1 if an event failed, 2 for wrong arguments, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import ast
import functools
import json
import statistics
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extras import require

require("opentelemetry", "rich", extra="examples", about=__doc__)

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table
from rich.tree import Tree

from ion_actors import Pool, current_context
from ion_actors.observe.opentelemetry import OtelTracer
from support import PoolColumn, between, folder, metrics_sum

RESOURCE = Resource.create({"service.name": "event-processing"})
provider = TracerProvider(resource=RESOURCE)
tracer = provider.get_tracer(__name__)

# --- events, and what is done with each ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Event:
    """Something that has happened: ``kind`` says what, and so who handles it."""

    kind: str
    name: str
    body: str


def changed_files(tree: Path, limit: int) -> list[Event]:
    """The Python files of a tree as events, in the order in which they were changed."""
    found = [
        (path.stat().st_mtime_ns, str(path))
        for path in tree.rglob("*.py")
        # The standard library's tests have files that are meant to be broken.
        if not {"site-packages", "test", "tests"} & set(path.relative_to(tree).parts)
        and path.is_file()  # and not a link to what is not there
    ]
    latest = sorted(found)[-limit:]
    return [Event("file-changed", str(Path(path).relative_to(tree)), path) for _, path in latest]


def log_lines(log: Path, limit: int) -> list[Event]:
    """The lines of a file as events."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[:limit]
    return [Event("log-line", f"line {n}", line) for n, line in enumerate(lines, 1) if line.strip()]


def index_file(event: Event) -> Counter[str]:
    """Count the nodes of a Python file's syntax tree."""
    with tracer.start_as_current_span("read"):
        text = Path(event.body).read_bytes()
    current_context().check()  # Ctrl-C ends a task here
    with tracer.start_as_current_span("parse") as span:
        module = ast.parse(text, event.body)
        span.set_attribute("bytes", len(text))
    current_context().check()
    with tracer.start_as_current_span("count"):
        return Counter(type(node).__name__ for node in ast.walk(module))


def index_line(event: Event) -> Counter[str]:
    """Count the keys of a JSON object, and of all those in it."""
    with tracer.start_as_current_span("decode"):
        value = json.loads(event.body)
        if not isinstance(value, dict):
            raise TypeError(f"not an object: {event.body[:40]}")
    with tracer.start_as_current_span("count"):
        return Counter(keys_of(value))


def keys_of(value: object) -> Iterator[str]:
    """All keys of a JSON value, however deep."""
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    for one in value if isinstance(value, list) else ():
        yield from keys_of(one)


HANDLERS: dict[str, Callable[[Event], Counter[str]]] = {
    "file-changed": index_file,
    "log-line": index_line,
}


# --- the run ------------------------------------------------------------------------------------


def handled(task: Callable[[], Any]) -> Callable[[], Any]:
    """The pool's task wrapper: a span around what the task does, with its CPU time."""

    @functools.wraps(task)
    def wrapped() -> Any:
        with tracer.start_as_current_span("handle") as span:
            began = time.thread_time()
            try:
                return task()
            finally:
                span.set_attribute("cpu_ms", (time.thread_time() - began) * 1e3)

    return wrapped


def process(events: Sequence[Event], pool: Pool, console: Console) -> list[Future[Counter[str]]]:
    """Submit every event and wait for all of them. Ctrl-C gives what has ended by then."""
    futures: list[Future[Counter[str]]] = []
    columns = (BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), PoolColumn(pool))
    with Progress(*columns, console=console) as bar, pool:
        console.print(f"{len(events)} events for {pool.size} workers", highlight=False)
        row = bar.add_task("events", total=len(events))
        for event in events:
            with tracer.start_as_current_span("receive") as span:
                span.set_attributes({"event": event.name, "kind": event.kind})
                submitter = pool.options(name=event.name)
                future = submitter.submit(HANDLERS[event.kind], event)  # waits while it is full
            future.add_done_callback(lambda _: bar.advance(row))
            futures.append(future)
        wait(futures)
    return futures


def total(futures: Iterable[Future[Counter[str]]]) -> Counter[str]:
    """What was counted in all events together."""
    sums: Counter[str] = Counter()
    for future in futures:
        if future.done() and not future.cancelled() and future.exception() is None:
            sums += future.result()
    return sums


# --- what the person sees -----------------------------------------------------------------------


class Traces:
    """Finished spans, as a tree for each event."""

    def __init__(self, spans: Iterable[ReadableSpan]) -> None:
        self.spans = list(spans)
        self.below: dict[int | None, list[ReadableSpan]] = {}
        for span in sorted(self.spans, key=lambda one: one.start_time or 0):
            self.below.setdefault(span.parent.span_id if span.parent else None, []).append(span)

    def receipts(self) -> list[ReadableSpan]:
        """Those at the top whose task is over, the slowest first; before them those that failed."""
        tops = [top for top in self.below.get(None, []) if self._tasks(top)]
        return sorted(tops, key=lambda top: (not self.failed(top), -self._took(top)))

    def failed(self, top: ReadableSpan) -> bool:
        """Whether its task did."""
        return any(task.status.status_code is StatusCode.ERROR for task in self._tasks(top))

    def tree(self, top: ReadableSpan) -> Tree:
        """One trace, to be printed."""
        tree = Tree(f"[bold]{escape(str((top.attributes or {})['event']))}[/]", guide_style="dim")
        self._grow(tree, top)
        return tree

    def _grow(self, tree: Tree, span: ReadableSpan) -> None:
        branch = tree.add(label(span))
        for child in self.below.get(identity(span), []):
            self._grow(branch, child)

    def _tasks(self, top: ReadableSpan) -> list[ReadableSpan]:
        return self.below.get(identity(top), [])

    def _took(self, top: ReadableSpan) -> float:
        return sum(milliseconds(task) for task in self._tasks(top))

    def table(self) -> Table:
        """What the spans of each name took."""
        table = Table("span", title="all spans, in ms", title_justify="left")
        for heading in ("how many", "median", "longest", "all together"):
            table.add_column(heading, justify="right")
        by_name: dict[str, list[float]] = {}
        for span in self.spans:
            by_name.setdefault(span.name, []).append(milliseconds(span))
        for name, took in sorted(by_name.items(), key=lambda item: -sum(item[1])):
            numbers = (statistics.median(took), max(took), sum(took))
            table.add_row(name, str(len(took)), *(f"{number:.2f}" for number in numbers))
        return table


def identity(span: ReadableSpan) -> int | None:
    """What those below it call their parent."""
    context = span.get_span_context()
    return None if context is None else context.span_id


def milliseconds(span: ReadableSpan) -> float:
    """How long it took."""
    return ((span.end_time or 0) - (span.start_time or 0)) / 1e6


def label(span: ReadableSpan) -> str:
    """A span in one line."""
    facts = span.attributes or {}
    text = f"{escape(span.name)}  [cyan]{milliseconds(span):.2f} ms[/]"
    if (waited := facts.get("ion_actors.queue_seconds")) is not None:
        worker = facts.get("ion_actors.worker")
        text += f"  [dim]after {float(str(waited)) * 1e3:.2f} ms in the queue, on {worker}[/]"
    if (cpu := facts.get("cpu_ms")) is not None:
        text += f"  [dim]{float(str(cpu)):.2f} ms of CPU[/]"
    if span.status.status_code is StatusCode.ERROR:
        text += f"  [red]{escape(span.status.description or '')}[/]"
    return text


def report(
    spans: Iterable[ReadableSpan], sums: Counter[str], pool: Pool, options: argparse.Namespace,
    console: Console,
) -> None:  # fmt: skip
    """The traces worth a look, and the numbers."""
    traces = Traces(spans)
    for top in traces.receipts()[: options.traces]:
        console.print(traces.tree(top), highlight=False, soft_wrap=True)
    console.print(traces.table())
    most = ", ".join(f"{name} {count}" for name, count in sums.most_common(6))
    console.print(f"counted  {escape(most) or 'nothing'}", highlight=False, soft_wrap=True)
    console.print(metrics_sum(pool), highlight=False, soft_wrap=True)


# --- the command line ---------------------------------------------------------------------------


def command_line() -> argparse.ArgumentParser:
    """The options and their defaults."""
    parser = argparse.ArgumentParser(description="Events on a pool, as OpenTelemetry traces.")
    parser.add_argument(
        "tree", type=folder, nargs="?", metavar="DIR", default=Path(sysconfig.get_path("stdlib")),
        help="folder of Python files (default: the standard library)",
    )  # fmt: skip
    parser.add_argument("--events", type=folder, metavar="FILE", help="a log of JSON lines instead")
    parser.add_argument(
        "--limit", type=between(1, 10**6), default=300, help="events at most (%(default)s)"
    )
    parser.add_argument(
        "--traces", type=between(0, 1000), default=3, help="traces to show (%(default)s)"
    )
    parser.add_argument("--workers", type=between(1, 256), default=4, help="(%(default)s)")
    return parser


def find_events(options: argparse.Namespace) -> list[Event]:
    """What the options ask for.

    Raises:
        OSError: it cannot be read.
        ValueError: there is nothing.
    """
    if options.events is not None:
        found = log_lines(options.events, options.limit)
    elif options.tree.is_dir():
        found = changed_files(options.tree, options.limit)
    else:
        raise ValueError(f"no such folder: {options.tree}")
    if not found:
        raise ValueError(f"no events in {options.events or options.tree}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser, console = command_line(), Console()
    options = parser.parse_args(arguments)
    try:
        events = find_events(options)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:  # a large tree takes a while
        return 130
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    pool = Pool(options.workers, 50, name="events", tracer=OtelTracer(tracer), task_wrapper=handled)
    futures: list[Future[Counter[str]]] = []
    try:
        futures = process(events, pool, console)
    except KeyboardInterrupt:
        console.print("[yellow]Interrupted[/]; what was traced until then:")
        report(exporter.get_finished_spans(), Counter(), pool, options, console)
        return 130
    report(exporter.get_finished_spans(), total(futures), pool, options, console)
    return 1 if pool.metrics().failed else 0


if __name__ == "__main__":
    sys.exit(main())
