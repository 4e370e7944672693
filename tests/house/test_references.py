"""What the pages say of the code by name is there."""

from __future__ import annotations

import re

import pytest

from tests.house.code import ROOT, parse, read
from tests.house.references import Names, references

DOCS = ROOT / "docs"
OF_THE_CODE = [
    DOCS / "explanation" / "architecture.md",
    DOCS / "explanation" / "design.md",
    DOCS / "contributing.md",
]
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


@pytest.fixture(scope="module")
def names() -> Names:
    return Names(read())


@pytest.mark.parametrize("page", OF_THE_CODE, ids=lambda page: page.name)
def test_what_a_page_on_the_code_names_exists(page: object, names: Names) -> None:
    assert page in PAGES
    missing = [
        one
        for one in references(page.read_text("utf-8"))  # type: ignore[attr-defined]
        if names.is_missing(one) and not (ROOT / one).exists()
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_attributes_of_classes_exist(page: object, names: Names) -> None:
    of_classes = [
        one
        for one in references(page.read_text("utf-8"))  # type: ignore[attr-defined]
        if re.fullmatch(r"[A-Z]\w*\.[a-z]\w*", one)
    ]
    assert [one for one in of_classes if names.is_missing(one)] == []


def test_the_architecture_names_many() -> None:
    found = list(references(OF_THE_CODE[0].read_text("utf-8")))
    assert sum(":" in one for one in found) > 60


SMALL = Names(
    parse(
        {
            "ion_actors/__init__.py": "from ion_actors.room.wall import Wall",
            "ion_actors/door.py": "def knock(): ...\nHANDLE, LOCK = 1, 2\n",
            "ion_actors/room/__init__.py": "from ion_actors.room.wall import Wall",
            "ion_actors/room/wall.py": (
                "from ion_actors.room.base import Base\n"
                "import threading\n"
                "class Wall(Base):\n    colour: str\n    def paint(self): self.dry = False\n"
                "class Thread(threading.Thread): ...\n"
            ),
            "ion_actors/room/base.py": "class Base:\n    def stand(self): ...\n",
        }
    )
)


@pytest.mark.parametrize(
    "there",
    [
        "door:knock",
        "door:LOCK",
        "ion_actors.door:knock",
        "ion_actors.door.knock",
        "room.wall",
        "room.wall:Wall",
        "room.wall:Wall.paint",
        "room.wall:Wall.dry",
        "room.wall:Wall.colour",
        "room.wall:Wall.stand",
        "ion_actors.Wall.stand",
        "Wall.paint",
        "wall.py",
        "room/wall.py",
        "ion_actors/room/__init__.py",
        "Thread.join",  # it may be inherited from elsewhere
        "os.path",  # these are not of the library
        "ThreadPoolExecutor.submit",
        "x > 3",
        "room",
    ],
)
def test_what_is_there_is_found(there: str) -> None:
    assert not SMALL.is_missing(there)


@pytest.mark.parametrize(
    "missing",
    [
        "door:ring",
        "window:open",
        "room.wall:Floor",
        "room.wall:Wall.fall",
        "room.wall:Wall.paint.dry",
        "ion_actors.window",
        "ion_actors.door.ring",
        "room.ceiling",
        "room.wall.Floor",
        "Wall.fall",
        "window.py",
        "door/wall.py",
        "Thread._join",
    ],
)
def test_what_is_not_there_is_missed(missing: str) -> None:
    assert SMALL.is_missing(missing)


def test_references_are_what_stands_in_backticks() -> None:
    page = "A `one:two()` and ``no``,\n```python\n`x:y`\n```\nand `three`.\n"
    assert list(references(page)) == ["one:two", "three"]
