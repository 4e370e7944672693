"""Every pitfall is two whole programs: one that fails as the page says, and one that is mended.

``test_pages`` runs the page from top to bottom; here each program runs alone, as a reader would run
a copy of it.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "pitfalls.md"
SECTIONS = re.findall(r"(?ms)^## (.+?)\n(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"))
PROGRAM = r"(?ms)^```python\n(.*?)^```\n\n```text\n(.*?)^```$"


def programs() -> list[object]:
    return [
        pytest.param(code, said, id=f"{title}-{which}")
        for title, text in SECTIONS
        for which, (code, said) in zip(("fails", "mended"), re.findall(PROGRAM, text), strict=True)
    ]


@pytest.mark.parametrize(("code", "said"), programs())
def test_it_does_alone_what_the_page_says(code: str, said: str) -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, str(PAGE), "exec"), {"__name__": "pitfall"})

    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    assert doctest.OutputChecker().check_output(said, out.getvalue(), flags), out.getvalue()


@pytest.mark.parametrize("text", [pytest.param(text, id=title) for title, text in SECTIONS])
def test_the_failure_comes_first(text: str) -> None:
    shape = re.findall(r"(?m)^(\*\*Fails:|\*\*Mended:|```python)", text)
    assert shape == ["**Fails:", "```python", "**Mended:", "```python"]
