"""Small tables in HTML: how notebooks show a pool, its numbers and its dump.

The colours are those of the page, light or dark. There is no script, and every text is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ion_actors.naming import printable

__all__ = ["Cell", "Folded", "table"]

_SPACE = "padding:.2em .7em;vertical-align:top;border-bottom:1px solid rgba(128,128,128,.35)"
_TABLE = '<table style="border-collapse:collapse">'
_CAPTION = '<caption style="caption-side:top;text-align:left">'


class Folded(str):
    """Text of several lines, of which the last one is shown until the reader unfolds it."""

    __slots__ = ()


Cell = str | float


def table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[Cell]], notes: Iterable[str] = ()
) -> str:
    """A table in HTML.

    Args:
        caption: what stands above it; nothing if it is empty.
        head: the names of the columns.
        rows: the cells of each row. Numbers go to the right; those that are no int have three
            places.
        notes: lines below it.
    """
    body = [_row("td", row) for row in rows]
    above = f"{_CAPTION}{_escaped(caption)}</caption>" if caption else ""
    below = "".join(f"<div>{_escaped(note)}</div>" for note in notes)
    return (
        f'<div style="overflow-x:auto">{_TABLE}{above}<thead>{_row("th", head)}</thead>'
        f"<tbody>{''.join(body)}</tbody></table>{below}</div>"
    )


def _row(kind: str, cells: Sequence[Cell]) -> str:
    return f"<tr>{''.join(_cell(kind, one) for one in cells)}</tr>"


def _cell(kind: str, value: Cell) -> str:
    side = "left" if isinstance(value, str) else "right"
    return f'<{kind} style="text-align:{side};{_SPACE}">{_content(value)}</{kind}>'


def _content(value: Cell) -> str:
    if not isinstance(value, str):
        return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}"
    if not isinstance(value, Folded) or not value:
        return _escaped(value)
    lines = value.splitlines()
    text = "\n".join(map(_escaped, lines))
    last = _escaped(lines[-1].strip())
    return f"<details><summary>{last}</summary><pre>{text}</pre></details>"


def _escaped(text: str) -> str:
    import html  # noqa: PLC0415 - only in notebooks

    return html.escape(printable(text))
