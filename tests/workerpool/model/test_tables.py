"""The tables that notebooks show: whole, escaped, and without anything but text and numbers."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ion_actors import DropReason, Pool, PoolMetrics
from ion_actors.naming import printable
from ion_actors.workerpool.model.tables import Cell, Folded, table
from tests.workerpool.helpers import PATIENCE, busy

EVIL = "<script>alert(1)</script> & \"quotes' </td>\n\x1b[31m"
TAGS = {
    "div", "table", "caption", "thead", "tbody", "tr", "th", "td", "details", "summary", "pre",
}  # fmt: skip


def parsed(text: str) -> ET.Element:
    """The table, which has nothing that could run or that fits to one kind of page only."""
    root = ET.fromstring(text)
    for one in root.iter():
        assert one.tag in TAGS
        assert set(one.attrib) <= {"style", "scope"}
        assert not {"color", "background"} & {
            rule.partition(":")[0] for rule in one.get("style", "").split(";")
        }
    return root


def texts(root: ET.Element, path: str) -> list[str]:
    return ["".join(one.itertext()) for one in root.findall(path)]


cells = st.text() | st.integers() | st.floats(0, 1e9) | st.text().map(Folded)


@given(st.text(), st.lists(st.text()), st.lists(st.lists(cells)), st.lists(st.text()))
def test_any_text_is_shown_as_it_is(
    caption: str, head: list[str], rows: list[list[Cell]], notes: list[str]
) -> None:
    root = parsed(table(caption, head, rows, notes))
    assert texts(root, ".//th") == [printable(one) for one in head]
    assert texts(root, "./div") == [printable(one) for one in notes]
    assert texts(root, ".//caption") == ([printable(caption)] if caption else [])
    shown = texts(root, ".//td")
    given = [one for row in rows for one in row]
    assert len(shown) == len(given)
    for seen, one in zip(shown, given, strict=True):
        if isinstance(one, str) and not isinstance(one, Folded):
            assert seen == printable(one)


def test_numbers_go_to_the_right_and_are_grouped() -> None:
    root = parsed(table("", ["a", "b", "c"], [["text", 1234567, 1.5]]))
    assert texts(root, ".//td") == ["text", "1,234,567", "1.500"]
    sides = ["right" in one.attrib["style"] for one in root.findall(".//td")]
    assert sides == [False, True, True]


def test_a_stack_is_folded_to_its_last_line() -> None:
    root = parsed(table("", ["where"], [[Folded('  File "a.py"\n    wait(<1>)')]]))
    assert texts(root, ".//summary") == ["wait(<1>)"]
    assert texts(root, ".//pre") == ['  File "a.py"\n    wait(<1>)']


def test_the_numbers_of_a_pool() -> None:
    numbers = PoolMetrics(
        size=4, queue_size=10, queued=1, running=2, submitted=1003, completed=1000, failed=0,
        panicked=0, cancelled=0, rejected=0, restarts=0, dropped={DropReason.EXPIRED: 3},
    )  # fmt: skip
    root = parsed(numbers._repr_html_())
    shown = dict(zip(texts(root, ".//th"), texts(root, ".//td"), strict=True))
    assert shown.pop("queue size") == "10"
    assert shown.items() >= {("size", "4"), ("submitted", "1,003"), ("completed", "1,000")}
    assert shown.keys() >= {"queued", "running", "failed", "panicked", "delayed", "retries"}
    assert texts(root, "./div") == [f"dropped: 3 {DropReason.EXPIRED.value}"]


def test_a_pool_and_its_dump() -> None:
    with Pool(2, name=EVIL) as pool:
        with busy(pool):
            pool.options(name=EVIL).submit(int)
            shown = parsed(pool._repr_html_())
            dump = parsed(pool.dump()._repr_html_())
        assert texts(shown, ".//caption") == [f"pool {printable(EVIL)!r} is running"]
        assert dict(zip(texts(shown, ".//th"), texts(shown, ".//td"), strict=True))["queued"] == "1"
        [caption] = texts(dump, ".//caption")
        assert "is running: 2 workers, 1 of " in caption
        rows = [texts(row, "./td") for row in dump.findall(".//tbody/tr")]
        assert [row[1] for row in rows] == ["Gate", "Gate"]
        assert all("in __call__" in where for where in texts(dump, ".//pre"))
    assert texts(parsed(pool._repr_html_()), ".//caption")[0].endswith("is closed")


def test_an_idle_worker() -> None:
    pool = Pool(1, name="idle")
    pool.submit(int).result(PATIENCE)
    root = parsed(pool.dump()._repr_html_())
    assert texts(root, ".//td") == ["idle-0", "idle", "", ""]
    pool.close()


@pytest.mark.parametrize("show", [Pool._repr_html_, Pool.__repr__])
def test_no_argument_is_shown(show: Callable[[Pool], str]) -> None:
    with Pool(1) as pool, busy(pool):
        pool.submit(int, "hunter2")
        assert "hunter2" not in show(pool) + pool.dump()._repr_html_()
