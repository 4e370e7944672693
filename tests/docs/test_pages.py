"""The documentation is true: its code runs, prints what it says, and leaves nothing behind.

All ```` ```python ```` blocks of one page run in order and share their names. A ```` ```text ````
block is what the block before it prints, with ``...`` for what differs from run to run.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import doctest
import gc
import importlib
import io
import re
from pathlib import Path

import pytest
from sybil import Document, Example
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.myst import CodeBlockParser

from ion_actors.testing import assert_no_leaks
from tests import collect_garbage

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]


_GUARD = '\nif __name__ == "__main__":\n'


class Printed:
    """Runs the code of a page, and compares what it prints with what the page says."""

    def __init__(self) -> None:
        self._python = PythonEvaluator()
        self._out = ""

    def run(self, example: Example) -> None:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            self._python(example)
        self._out = out.getvalue()

    def compare(self, example: Example) -> None:
        said, printed = str(example.parsed), self._out
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        if not doctest.OutputChecker().check_output(said, printed, flags):
            where = f"{example.path}:{example.line}"
            pytest.fail(f"{where} says\n{said}\nbut the block before it printed\n{printed}")


def skip_without_packages(page: Path) -> None:
    """A page may need packages that are in no extra of the library: its first line names them."""
    needs = re.match(r"<!-- needs: (.+) -->", page.read_text())
    for package in needs[1].split(", ") if needs else ():
        pytest.importorskip(package, reason=f"the page needs {package}")


def run_page(page: Path) -> None:
    printed = Printed()
    parsers = (
        CodeBlockParser("python", printed.run),
        CodeBlockParser("text", printed.compare),
    )
    document = Document.parse(str(page), *parsers)
    # A page with a whole program is one.
    document.namespace["__name__"] = "__main__" if _GUARD in page.read_text() else page.stem
    try:
        for example in document.examples():
            example.evaluate()
    finally:
        document.namespace.clear()
        gc.collect()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs_and_leaves_nothing_behind(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_without_packages(page)
    monkeypatch.chdir(tmp_path)
    if "ion_actors.snapshot()" in page.read_text():  # it shows each pool that is not freed yet
        gc.unfreeze()
        collect_garbage()
    with assert_no_leaks():
        run_page(page)


def test_a_page_that_lies_is_found_out(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1)\n```\n\n```text\n2\n```\n")
    with pytest.raises(pytest.fail.Exception, match=r"page\.md:5 says"):
        run_page(page)


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 120


#: Whose public names the reference has, besides `ion_actors` itself.
ROOMS = (
    "adaptive", "circuit", "dashboard", "executors", "pipeline", "ratelimit", "semaphore",
    "supervision", "testing",
)  # fmt: skip


@pytest.mark.parametrize("room", ["", *(f".{room}" for room in ROOMS)])
def test_every_public_name_is_in_the_reference(room: str) -> None:
    text = "".join(page.read_text() for page in (DOCS / "reference" / "api").glob("*.md"))
    package = importlib.import_module(f"ion_actors{room}")
    told = set(re.findall(rf"^\.\. auto\w+:: ion_actors(?:{room})?\.(\w+)$", text, re.MULTILINE))
    # ion_actors.executors has all names of concurrent.futures, most of which are that one's own.
    theirs = vars(concurrent.futures)
    ours = {name for name in package.__all__ if getattr(package, name) is not theirs.get(name)}
    assert told >= ours


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page} links to {target}"
