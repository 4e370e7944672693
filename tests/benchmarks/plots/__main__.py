"""The command line."""

from __future__ import annotations

import argparse
import platform
import sys
import time
from dataclasses import replace
from pathlib import Path

from tests.benchmarks import table
from tests.benchmarks.plots import sweeps, tables

FOLDER = Path(__file__).parents[3] / "docs" / "explanation" / "performance"


def main() -> None:
    """Measure with this interpreter, and draw what was measured with this one and the other."""
    options = _parser().parse_args()
    options.into.mkdir(parents=True, exist_ok=True)
    if not options.draw_only:
        found = _measure(options.quick, options.rounds, options.only)
        before = sweeps.kept(options.into) if options.only else None
        sweeps.save(options.into, found if before is None else _joined(before, found))
    measured = sweeps.load(options.into)
    written = tables.write(options.into, measured)
    if not options.no_figures:
        from tests.benchmarks.plots import figures  # needs the extra `bench`

        written += figures.draw(options.into, measured)
    print("written:", ", ".join(path.name for path in written))


def _joined(before: sweeps.Measured, found: sweeps.Measured) -> sweeps.Measured:
    """What was measured before, but for what was measured now."""
    said = f"{before.conditions} {', '.join(found.sweeps)}: {found.conditions}"
    return replace(before, conditions=said, sweeps=before.sweeps | found.sweeps)


def _measure(quick: bool, rounds: int, only: list[str]) -> sweeps.Measured:
    conditions = f"{table.conditions(rounds)}."
    print(conditions, flush=True)
    numbers = {}
    for sweep in sweeps.sweeps(sweeps.QUICK if quick else sweeps.FULL):
        if only and sweep.key not in only:
            continue
        began = time.monotonic()
        numbers[sweep.key] = sweeps.measure(sweep, rounds)
        print(f"{sweep.key}: {time.monotonic() - began:.0f} s", flush=True)
    return sweeps.Measured(_interpreter(), conditions, numbers)


def _interpreter() -> str:
    free_threaded = not getattr(sys, "_is_gil_enabled", lambda: True)()
    major, minor = sys.version_info[:2]
    name = platform.python_implementation()
    return f"{name} {major}.{minor}{', no GIL' if free_threaded else ''}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.plots", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it work?")
    parser.add_argument("--rounds", type=int, default=7, help="by default 7")
    parser.add_argument("--only", nargs="*", default=[], help="these, and keep the others")
    parser.add_argument("--draw-only", action="store_true", help="measure nothing")
    parser.add_argument("--no-figures", action="store_true", help="tables only")
    parser.add_argument("--into", type=Path, default=FOLDER, help="by default the docs' folder")
    return parser


if __name__ == "__main__":
    main()
