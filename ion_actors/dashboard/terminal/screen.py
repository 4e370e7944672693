"""Lines in colours. Only imported where rich is installed."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from ion_actors.dashboard.terminal.layout import Line
from ion_actors.dashboard.terminal.report import Snippet

__all__ = ["coloured", "page"]

_STYLES = {"bad": "bold red", "odd": "yellow", "dim": "dim", "title": "bold", "": ""}


def coloured(lines: Iterable[Line]) -> Text:
    """The lines, one below the other."""
    # Never as markup: the texts are those of another process.
    parts = [[(mark.text, _STYLES[mark.meant]) for mark in line] for line in lines]
    text = Text("\n").join(Text.assemble(*line) for line in parts)
    text.no_wrap, text.overflow = True, "crop"
    return text


def page(console: Console, lines: list[Line], foot: Snippet, offset: int) -> tuple[Text, int]:
    """What fits on the screen, from this line on, with the foot at the bottom.

    Returns:
        That, and the greatest offset that makes sense.
    """
    height = max(1, console.height - 1)
    last = max(0, len(lines) - height)
    shown = lines[min(offset, last) :][:height]
    empty: list[Line] = [[] for _ in range(height - len(shown))]
    return coloured([*shown, *empty, [foot]]), last
