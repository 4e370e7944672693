"""The report in lines of a given width: for a pipe as they are, for a terminal in colours."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from ion_actors.dashboard.terminal.report import Section, Snippet

__all__ = ["Line", "as_text", "laid_out"]

#: The parts of a line, from the left to the right.
Line = Sequence[Snippet]

_GAP = Snippet("  ")
_LEAST = 12  # columns are not cut to less than that


def laid_out(head: Iterable[Snippet], sections: Iterable[Section], width: int) -> list[Line]:
    """The lines of the head, and the sections below, in lines of so many columns if possible."""
    lines: list[Line] = [[one] for one in head]
    for section in sections:
        if lines:
            lines.append([])
        lines += _section(section, width)
    return lines


def as_text(lines: Iterable[Line]) -> str:
    """The lines without colours."""
    return "\n".join("".join(mark.text for mark in line).rstrip() for line in lines)


def _section(section: Section, width: int) -> Iterator[Line]:
    if section.title.text:
        yield [section.title]
    names = [Snippet(name.removeprefix(">"), "dim") for name in section.head]
    right = [name.startswith(">") for name in section.head]
    columns = zip(names, *(row.cells for row in section.rows), strict=True)
    widths = _fitted([max(_width(cell.text) for cell in column) for column in columns], width)
    yield _line(names, widths, right)
    for row in section.rows:
        yield _line(row.cells, widths, right)
        for line in row.below:
            yield [_GAP, _GAP, Snippet(line, "dim")]
    if section.note:
        yield [_GAP, Snippet(section.note, "dim")]


def _line(cells: Iterable[Snippet], widths: list[int], right: list[bool]) -> Line:
    parts: list[Snippet] = []
    for cell, width, at_right in zip(cells, widths, right, strict=True):
        shown = Snippet(_cut(cell.text, width), cell.meant)
        space = Snippet(" " * (width - _width(shown.text)))
        parts += [_GAP, space, shown] if at_right else [_GAP, shown, space]
    return parts


def _fitted(widths: list[int], width: int) -> list[int]:
    """Narrower columns, the widest first, until they fit."""
    fitted = list(widths)
    while sum(fitted) + len(_GAP.text) * len(fitted) > width and max(fitted) > _LEAST:
        widest = max(fitted)
        fitted[fitted.index(widest)] -= 1
    return fitted


def _cut(cell: str, width: int) -> str:
    if _width(cell) <= width:
        return cell
    while cell and _width(cell) > width - 1:
        cell = cell[:-1]
    return f"{cell}…"


def _width(cell: str) -> int:
    """How many columns it takes up."""
    return len(cell) if cell.isascii() else sum(map(_columns, cell))


def _columns(one: str) -> int:
    if unicodedata.combining(one):
        return 0
    return 2 if unicodedata.east_asian_width(one) in "WF" else 1
