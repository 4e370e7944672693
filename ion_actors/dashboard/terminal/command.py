"""The command ``python -m ion_actors``: its arguments, its texts for mistakes, its exit codes.

0: it has done what it was asked to. 1: the process cannot be read. 2: the arguments make no sense.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import math
import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from ion_actors.dashboard.terminal.layout import as_text, laid_out
from ion_actors.dashboard.terminal.report import (
    Section,
    Snippet,
    View,
    report,
    summary,
    who_is_there,
)
from ion_actors.dashboard.terminal.words import clean

__all__ = ["main"]

_NOBODY = (
    "No process of yours publishes itself. Start one with the environment variable "
    "ION_ACTORS_PUBLISH=1, or have it call ion_actors.dashboard.publish()."
)
_NO_RICH = (
    "the live view needs rich: pip install 'ion_actors[cli]'; --once and --json do without it"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""
    given = _parser().parse_args(arguments)
    if given.command is None:
        _parser().print_help()
        return 0
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name may have what the terminal cannot show
        sys.stdout.reconfigure(errors="replace")
    try:
        code = _top(given)
        sys.stdout.flush()  # here, where it is known what to do if nobody reads
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # as by `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    name = "python -m ion_actors" if sys.argv[0].endswith("__main__.py") else "ion-actors"
    parser = argparse.ArgumentParser(prog=name, description="Supervised pools of actors.")
    version = getattr(sys.modules["ion_actors"], "__version__", "")
    parser.add_argument("--version", action="version", version=f"ion_actors {version}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    top = commands.add_parser(
        "top",
        help="show what a running program does now",
        description=(
            "Show what a running program does now: its pools, running and stuck tasks with their "
            "stacks, what waits, and what was given up. The program has to publish itself: by the "
            "environment variable ION_ACTORS_PUBLISH=1, or by ion_actors.dashboard.publish()."
        ),
    )
    top.add_argument(
        "pid", nargs="?", type=_pid, metavar="PID", help="by default: list who is there"
    )
    top.add_argument("--once", action="store_true", help="print it once, and end")
    top.add_argument("--json", action="store_true", help="print the snapshot as JSON, and end")
    top.add_argument("--stacks", action="store_true", help="with whole stacks, and all rows")
    top.add_argument(
        "--interval", type=_seconds, default=1.0, metavar="S",
        help="seconds between two looks; by default 1",
    )  # fmt: skip
    return parser


def _pid(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no process id")
    return int(text)


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0.1 <= found <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0.1 to 3600")
    return found


def _top(given: argparse.Namespace) -> int:
    if os.name == "nt":
        return _fail("top needs Unix sockets, which Python does not have on Windows; use serve()")
    from ion_actors.dashboard.reader import Unreadable  # noqa: PLC0415 - not on Windows

    try:
        if given.pid is None:
            _list(given)
        elif given.json or given.once or not _is_terminal():
            _print_once(given)
        elif importlib.util.find_spec("rich") is None:
            return _fail(_NO_RICH)
        else:
            _watch(given)
    except (Unreadable, OSError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        return _fail(str(error))
    return 0


def _list(given: argparse.Namespace) -> None:
    from ion_actors.dashboard.reader import everybody  # noqa: PLC0415

    found = everybody()
    if given.json:
        print(json.dumps(found, indent=2))  # noqa: T201
    elif found:
        _show([], [who_is_there(found)])
    else:
        print(_NOBODY)  # noqa: T201


def _read(pid: int) -> dict[str, Any]:
    from ion_actors.dashboard.reader import snapshot_of  # noqa: PLC0415

    return snapshot_of(pid)


def _print_once(given: argparse.Namespace) -> None:
    found = _read(given.pid)
    if given.json:
        print(json.dumps(found, indent=2))  # noqa: T201
    else:
        _show(*_told(found, View(stacks=given.stacks)))


def _told(found: dict[str, Any], view: View) -> tuple[list[Snippet], list[Section]]:
    """What is to be shown of a snapshot, which may be of another version of the library."""
    try:
        return summary(found), report(found, view)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        from ion_actors.dashboard.reader import Unreadable  # noqa: PLC0415

        raise Unreadable(
            f"process {found.get('pid')} has ion_actors {clean(found.get('version'))}, whose "
            "snapshots this version cannot show; use --json"
        ) from error


def _watch(given: argparse.Namespace) -> None:
    from ion_actors.dashboard.terminal.live import watch  # noqa: PLC0415 - needs rich

    _told(_read(given.pid), View())  # first: what is wrong is said on the usual screen
    try:
        watch(lambda: _read(given.pid), given.interval)
    except KeyboardInterrupt:
        return


def _show(head: Sequence[Snippet], sections: Sequence[Section]) -> None:
    """Print it: in colours on a terminal, if rich is there."""
    lines = laid_out(head, sections, shutil.get_terminal_size((120, 40)).columns)
    if sys.stdout.isatty() and importlib.util.find_spec("rich") is not None:
        from rich.console import Console  # noqa: PLC0415

        from ion_actors.dashboard.terminal.screen import coloured  # noqa: PLC0415

        Console().print(coloured(lines))
    else:
        print(as_text(lines))  # noqa: T201


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _fail(why: str) -> int:
    print(f"ion_actors: {why}", file=sys.stderr)  # noqa: T201
    return 1
