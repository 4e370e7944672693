"""Names and messages that others have made, as parts of one line."""

from __future__ import annotations

import logging
import pickle
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ion_actors.naming import Lines, OneLine, for_log, indented, printable, shown, words
from ion_actors.observe import Log

ANY_TEXT = st.text(st.characters()) | st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl"]))
BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


@given(ANY_TEXT)
@example(BREAKS)
@example("\x1b[2J\x00\x7f\u202e\u2066\u200f\ud800\udfff\t")
def test_what_is_printable_is_one_line_that_can_be_written(text: str) -> None:
    found = printable(text)
    assert found.isprintable()
    assert len(found.splitlines()) <= 1
    assert found.encode().decode() == found
    assert printable(found) == found
    assert (found == text) is text.isprintable()


def test_escapes_are_those_of_python() -> None:
    assert printable("a\nb\\n\x1b\x85\u2028\u202e\ud800\U000e0001") == (
        r"a\nb\n\x1b\x85\u2028\u202e\ud800\U000e0001"
    )
    assert printable("größer 大 😀 C:\\new") == "größer 大 😀 C:\\new"


class Hostile:
    """What a user's class may do."""

    def __init__(self, error: type[BaseException] | None = None) -> None:
        self.error = error

    def __str__(self) -> str:
        if self.error is not None:
            raise self.error
        return "s\n2026"

    def __repr__(self) -> str:
        if self.error is not None:
            raise self.error
        return "r\u20282026"


def test_objects_are_put_into_one_line_whatever_they_do() -> None:
    assert words(Hostile()) == r"s\n2026"
    assert shown(Hostile()) == r"r\u20282026"
    for error in (ValueError, SystemExit, RecursionError):
        assert words(Hostile(error)) == "<Hostile without a str>"
        assert shown(Hostile(error)) == "<Hostile without a repr>"
    assert shown(10**5000) == "<int without a repr>"  # has too many digits
    assert f"{OneLine(Hostile())} {OneLine(Hostile())!r}" == r"s\n2026 r\u20282026"
    assert str(pickle.loads(pickle.dumps(OneLine("a\nb")))) == r"a\nb"


def test_numbers_and_plain_text_go_into_a_log_as_they_are() -> None:
    for value in (1, 1.5, True, None, "plain", Lines("a\nb")):
        assert for_log(value) is value


def test_lines_of_others_do_not_begin_like_lines_of_a_log() -> None:
    assert indented("a\n2026\r\nb\x1b\u2028c\td") == "    a\n    2026\n    b\\x1b\n    c       d"
    assert indented("") == ""


@given(ANY_TEXT)
def test_a_log_has_one_line_for_each_record(text: str) -> None:
    found: list[logging.LogRecord] = []
    target = logging.Logger("test")  # noqa: LOG001 - nobody else is to have it
    target.handle = found.append  # type: ignore[assignment, method-assign]
    log = Log(target, "unused", pool=text)
    log(logging.INFO, "%s %r %s", text, text, ValueError(text), task=text, number=3)
    [record] = found
    facts: Any = record
    assert record.getMessage().isprintable()
    assert repr(text) in record.getMessage()  # escaped once, not twice
    assert facts.pool == facts.task == printable(text)
    assert facts.number == 3
    log(logging.INFO, "%s", Lines("a\n  b"))
    assert found[1].getMessage() == "a\n  b"


def test_a_percent_sign_in_a_name_is_no_format(caplog: pytest.LogCaptureFixture) -> None:
    Log(None, "ion_actors.test")(logging.WARNING, "%s and %r", "%s%d%n", "100 %")
    assert caplog.messages == ["%s%d%n and '100 %'"]
