"""How a name that somebody else has made becomes part of one line of text.

The name of a task, a key or a message of an exception may be made of what a stranger has sent. In a
log or a report it must not begin a line of its own, move the cursor, reverse the text, or be what
no encoding can write.
"""

from __future__ import annotations

__all__ = ["Lines", "printable", "shown"]


class Lines(str):
    """Text of this library's own making that may have several lines, such as a stack."""

    __slots__ = ()


def printable(text: str) -> str:
    """The text in one line: what cannot be printed is escaped as in a literal of Python.

    That is what :meth:`str.isprintable` denies: control characters, all that ends a line, marks
    that change the direction of text, halves of surrogate pairs, and spaces other than the usual
    one. Backslashes stay as they are.
    """
    if str.isprintable(text):
        return text
    return "".join(one if one.isprintable() else _escaped(one) for one in text)


def shown(value: object) -> str:
    """``repr(value)`` in one line, whatever its class does."""
    try:
        return printable(repr(value))
    except BaseException:
        return f"<{type(value).__name__} without a repr>"


def _escaped(one: str) -> str:
    return one.encode("unicode_escape").decode("ascii")
