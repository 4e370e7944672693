"""How a name that somebody else has made becomes part of one line of text.

The name of a task, a key or a message of an exception may be made of what a stranger has sent. In a
log or a report it must not begin a line of its own, move the cursor, reverse the text, or be what
no encoding can write.
"""

from __future__ import annotations

__all__ = ["Lines", "OneLine", "for_log", "indented", "printable", "shown", "words"]


class Lines(str):
    """Text for a log that may have several lines, such as a stack: this library has made them."""

    __slots__ = ()


class OneLine:
    """Stands for an argument of a log message, and shows it in one line, whatever its class does.

    It is put into words when the message is, and not before.
    """

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __str__(self) -> str:
        return words(self._value)

    def __repr__(self) -> str:
        return shown(self._value)


_PLAIN = (int, float, Lines, type(None))


def for_log(value: object) -> object:
    """An argument of a log message that cannot begin another line of the log."""
    kind = type(value)  # not isinstance(), which may ask the user's code
    if issubclass(kind, _PLAIN) or (issubclass(kind, str) and str.isprintable(value)):  # type: ignore[arg-type]
        return value
    return OneLine(value)


def printable(text: str) -> str:
    """The text in one line: what cannot be printed is escaped as in a literal of Python.

    That is what :meth:`str.isprintable` denies: control characters, all that ends a line, marks
    that change the direction of text, halves of surrogate pairs, and spaces other than the usual
    one. Backslashes stay as they are.
    """
    if type(text) is not str:
        text = str.__str__(text)  # a subclass may do as it likes
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _escaped(one) for one in text)


def shown(value: object) -> str:
    """``repr(value)`` in one line, whatever its class does."""
    try:
        return printable(repr(value))
    except BaseException:
        return f"<{type(value).__name__} without a repr>"


def words(value: object) -> str:
    """``str(value)`` in one line, whatever its class does."""
    try:
        return printable(str(value))
    except BaseException:
        return f"<{type(value).__name__} that cannot be put into words>"


def indented(text: str) -> str:
    """Text of several lines that others have written: none of them begins like one of a log."""
    return "\n".join(f"    {printable(line.expandtabs())}" for line in text.splitlines())


def _escaped(one: str) -> str:
    return one.encode("unicode_escape").decode("ascii")
