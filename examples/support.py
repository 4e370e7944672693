"""What the example programs share: how a pool's numbers are shown, and types of arguments."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

from rich.progress import ProgressColumn, Task
from rich.table import Table
from rich.text import Text

from ion_actors import Pool

__all__ = ["PoolColumn", "between", "folder", "metrics_sum", "metrics_table"]

MEANING = {
    "size": "workers",
    "queue_size": "tasks that may wait before submit() does",
    "queued": "waiting now",
    "running": "running now",
    "submitted": "accepted",
    "completed": "returned a result",
    "failed": "raised an ordinary exception",
    "panicked": "took their worker down",
    "cancelled": "ended before they were done",
    "rejected": "turned away at the door",
    "restarts": "workers replaced",
    "dropped": "given up by the pool, by reason",
}


class PoolColumn(ProgressColumn):
    """The pool's own figures, read each time the progress bar is drawn."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self._pool = pool

    def render(self, task: Task) -> Text:
        """What the pool is doing right now."""
        now = self._pool.metrics()
        return Text(
            f"{now.running} running · {now.queued} queued · {now.restarts} restarted", "dim"
        )


def metrics_table(*pools: Pool) -> Table:
    """The metrics of these pools, each with its meaning."""
    table = Table("metric", title="pool.metrics()", title_justify="left")
    for pool in pools:
        table.add_column(pool.name if len(pools) > 1 else "value", justify="right")
    table.add_column("meaning", style="dim")
    numbers = [dataclasses.asdict(pool.metrics()) for pool in pools]
    for name in numbers[0]:
        table.add_row(name, *(_shown(one[name]) for one in numbers), MEANING.get(name, ""))
    return table


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count} {reason.value}" for reason, count in value.items()) or "none"
    return str(value)


def metrics_sum(pool: Pool) -> str:
    """The identity that holds in every snapshot of a pool's metrics."""
    numbers = dataclasses.asdict(pool.metrics())
    parts = ("queued", "running", "completed", "failed", "panicked", "cancelled")
    return f"{numbers['submitted']} submitted = " + " + ".join(f"{numbers[p]} {p}" for p in parts)


def folder(text: str) -> Path:
    """An argument type: a file or folder. make and some shells leave ``~`` to us."""
    return Path(text).expanduser()


def between(minimum: int, maximum: int) -> Callable[[str], int]:
    """An argument type: a whole number in this range."""

    def number(text: str) -> int:
        value = int(text)
        if not minimum <= value <= maximum:
            raise argparse.ArgumentTypeError(f"{value} is not in {minimum}..{maximum}")
        return value

    return number
