"""The command line of the benchmarks that are one list of contests."""

from __future__ import annotations

import argparse
from collections.abc import Callable
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
) -> None:
    """Run the contests and print the results as they come.

    Args:
        module: what ``python -m`` is given.
        contests: makes them, their sizes times a factor.
        rounds: how often they take turns.
        arguments: of the command line, by default those of the process.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it work?")
    options: Any = parser.parse_args(arguments)
    rounds = 1 if options.quick else rounds
    print(table.conditions(rounds))
    for contest in contests(0.01 if options.quick else 1.0):
        for result in run(contest, rounds):
            print(table.text(result), flush=True)
