"""Every target of speed in one run: ``python -m tests.benchmarks.targets``, or ``--only timeout``.

The contests are those of the other modules, without the peers that no target is about. The options
of tasks are compared with a plain task, in CPU time of all threads, once as a submitter that is
kept (``pool.options(...)`` is called once), and once as one for each task.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ion_actors import Pool, Retry
from tests.benchmarks import features, processes, rows
from tests.benchmarks.command import run_contests
from tests.benchmarks.measure import LIMIT, Contest, Line, Target

__all__ = ["contests", "main"]

_ARRAY = f"{64 * 1024}"

#: What a task with such options may cost, as a multiple of a plain one.
OPTIONS: dict[str, tuple[float, dict[str, Any]]] = {
    "timeout": (2.0, {"timeout": 60.0}),
    "key": (2.5, {"key": "same"}),
    "priority": (2.0, {"priority": 1}),
    "ttl": (2.0, {"ttl": 60.0}),
    "retry": (2.0, {"retry": Retry(attempts=2)}),
    "retry_on_worker_death": (2.0, {"retry_on_worker_death": 1}),
}


@contextmanager
def _for_each(count: int, /, **options: Any) -> Iterator[Callable[..., Any]]:
    with Pool(1, count) as pool:
        yield lambda fn: pool.options(**options).submit(fn)


def _options(scale: float) -> list[Contest]:
    count, parts = max(100, int(5_000 * scale)), 9 if scale >= 1 else 1
    given = {name: options for name, (_, options) in OPTIONS.items()}
    ways: dict[str, features.Setting] = {
        name: functools.partial(features.with_options, **options) for name, options in given.items()
    }
    ways["key, 100 of them"] = features.kept_keys
    for name, options in given.items():
        ways[f"{name}, anew"] = functools.partial(_for_each, **options)
    return [_option(name, way, count, parts) for name, way in ways.items()]


def _option(name: str, way: features.Setting, count: int, parts: int) -> Contest:
    bound = OPTIONS[name.partition(",")[0]][0]
    line = Line(f"options({name})", "µs", (Target(bound, at_least=False, peer=features.PLAIN),))

    def timed(setting: features.Setting) -> Callable[[], tuple[float, ...]]:
        return lambda: features.measure(setting, count)

    plain = {features.PLAIN: timed(features.plain)}
    return Contest(name, (line,), timed(way), plain, parts=parts)


def _of_targets(contest: Contest) -> Contest:
    """Without the peers that no target is about."""
    wanted = {target.peer for line in contest.lines for target in line.targets} | {LIMIT}
    peers = {name: peer for name, peer in contest.peers.items() if name in wanted}
    return replace(contest, peers=peers)


def _arrays(scale: float) -> list[Contest]:
    if importlib.util.find_spec("numpy") is None:
        return []
    from tests.benchmarks import arrays

    return [one for one in arrays.contests(scale) if one.key == _ARRAY]


def contests(scale: float = 1.0) -> list[Contest]:
    """All of them: options, pools of threads, pools of processes, arrays."""
    sizes = rows.FULL if scale >= 1 else rows.QUICK
    others = [
        *rows.contests(sizes),
        *(one for one in processes.contests(scale) if one.key in ("noop", "wait")),
        *_arrays(scale),
    ]
    aimed = [_of_targets(one) for one in others]
    return [*_options(scale), *(one for one in aimed if set(one.peers) - {LIMIT})]


def main(arguments: list[str] | None = None) -> None:
    """Run the contests, and print the results."""
    run_contests("tests.benchmarks.targets", contests, rounds=9, arguments=arguments)


if __name__ == "__main__":
    main()
