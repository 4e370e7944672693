"""The underscore names that modules use of each other, as a table for the docs."""

from __future__ import annotations

from collections import defaultdict

from tests.house.code import Modules, private_touches

__all__ = ["table"]


def table(modules: Modules, library: str = "ion_actors") -> str:
    """One row for each module that uses such names of others, inherited ones apart."""
    rows: dict[str, set[str]] = defaultdict(set)
    for touch in private_touches(modules)[0]:
        rows[touch.module.removeprefix(f"{library}.")].add(touch.name)
    lines = [
        f"| `{module}` | {', '.join(f'`{name}`' for name in sorted(names))} |"
        for module, names in sorted(rows.items())
    ]
    return "\n".join(["| module | uses |", "| --- | --- |", *lines, ""])
