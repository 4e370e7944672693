"""The command line of the benchmarks that are one list of contests."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks import table
from tests.benchmarks.measure import Contest, run

__all__ = ["run_contests"]


def run_contests(
    module: str,
    contests: Callable[[float], list[Contest]],
    *,
    rounds: int,
    arguments: list[str] | None = None,
    place: Path | None = None,
) -> None:
    """Run the contests, print the results as they come, and write the table if told to.

    Args:
        module: what ``python -m`` is given.
        contests: makes them, their sizes times a factor.
        rounds: how often they take turns.
        arguments: of the command line, by default those of the process.
        place: of the table in the docs, if it has one.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it work?")
    parser.add_argument("--only", default="", metavar="ROW,ROW", help="those that begin like this")
    parser.add_argument("--rounds", type=int, default=rounds)
    if place is not None:
        parser.add_argument(
            "--write",
            type=Path,
            nargs="?",
            const=place,
            metavar="FILE",
            help="by default in the docs",
        )
    options: Any = parser.parse_args(arguments)
    rounds = 1 if options.quick else options.rounds
    only = tuple(options.only.split(","))
    conditions = table.conditions(rounds)
    print(conditions)
    results = []
    for contest in contests(0.01 if options.quick else 1.0):
        if not contest.key.startswith(only):
            continue
        for result in run(contest, rounds):
            print(table.text(result), flush=True)
            results.append(result)
    target: Path | None = getattr(options, "write", None)
    if target is not None and not (options.quick and target == place):
        target.write_text(table.of_peers(results, conditions), encoding="utf-8")
