"""The command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.benchmarks import table
from tests.benchmarks.measure import Contest, Result, run
from tests.benchmarks.rows import FULL, QUICK, contests

TABLE = Path(__file__).parents[2] / "docs" / "explanation" / "benchmark-table.md"


def main() -> None:
    """Run the contests, print the results as they come, and write the table if told to."""
    parser = _parser()
    options = parser.parse_args()
    chosen = _chosen(contests(QUICK if options.quick else FULL), options.only)
    if not chosen:
        parser.error(f"no such row; there are {', '.join(one.key for one in contests(FULL))}")
    rounds = options.rounds or (1 if options.quick else 7)
    conditions = f"{table.conditions(rounds)} (at most 3 for memory and growth)."
    if options.quick:
        conditions += " **Sizes too small to mean anything.**"
    print(conditions, flush=True)
    results = [result for contest in chosen for result in _shown(run(contest, rounds))]
    if options.write is None:
        return
    if options.write == TABLE and (options.quick or options.only):
        print("not written: only a full run is")
        return
    options.write.write_text(table.markdown(results, conditions), encoding="utf-8")
    print(f"written: {options.write.name}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it work?")
    parser.add_argument("--rounds", type=_positive, help="by default 7, or 1 if quick")
    parser.add_argument(
        "--only",
        type=lambda names: names.split(","),
        metavar="ROW,ROW",
        help="only these rows; `burst` stands for burst-1, burst-4, ...",
    )
    parser.add_argument(
        "--write",
        type=Path,
        nargs="?",
        const=TABLE,
        metavar="FILE",
        help="write a Markdown table, by default the one in the docs",
    )
    return parser


def _positive(given: str) -> int:
    if (number := int(given)) < 1:
        raise ValueError
    return number


def _chosen(all_of_them: list[Contest], names: list[str] | None) -> list[Contest]:
    if names is None:
        return all_of_them
    return [
        one
        for one in all_of_them
        if any(one.key == name or one.key.startswith(f"{name}-") for name in names)
    ]


def _shown(results: list[Result]) -> list[Result]:
    for result in results:
        print(table.text(result), flush=True)
    return results


if __name__ == "__main__":
    main()
