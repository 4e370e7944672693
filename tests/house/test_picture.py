"""The picture of the house is what the code gives, and its layers are right."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.house.__main__ import DRAWN
from tests.house.code import parse, read
from tests.house.picture import draw, layers, reduced
from tests.house.private_names import table
from tests.house.test_house import TREE

_SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("path", DRAWN, ids=lambda path: path.name)
def test_what_is_drawn_from_the_code_is_up_to_date(path: Path) -> None:
    assert path.read_text("utf-8") == DRAWN[path](read()), "the code has changed: make house"


def test_private_names_are_listed_by_the_module_that_uses_them() -> None:
    found = table(
        parse(TREE | {"lib/high.py": "from lib.low import Low\nLow()._hidden()\n"}), "lib"
    )
    assert found.splitlines()[2:] == ["| `high` | `_hidden` |"]


def test_every_module_is_in_the_picture() -> None:
    modules = read()
    shown = [one.text for one in ET.fromstring(draw(modules)).iter(f"{_SVG}text")]
    for module in modules.values():
        name = module.name.rpartition(".")[2]
        assert f"{name}/" * module.is_package or name in shown


def test_nothing_stands_outside_the_paper_or_on_something_else() -> None:
    picture = ET.fromstring(draw(read()))
    _, _, width, height = map(float, picture.attrib["viewBox"].split())
    chips = []
    for one in picture.iter(f"{_SVG}rect"):
        if "x" in one.attrib:
            x, y, w, h = (float(one.attrib[name]) for name in ("x", "y", "width", "height"))
            assert 0 < x < x + w < width
            assert 0 < y < y + h < height
            if one.attrib["class"] == "chip":
                chips.append((x, y, x + w, y + h))
    for number, (x, y, right, low) in enumerate(chips):
        for other in chips[:number]:
            assert other[2] < x or right < other[0] or other[3] < y or low < other[1]


def test_layers_lie_on_what_they_import() -> None:
    graph: dict[str, set[str]] = {
        "top": {"low", "mid"},
        "mid": {"low"},
        "side": {"low"},
        "low": set(),
    }
    assert layers(graph) == [["top"], ["mid", "side"], ["low"]]


def test_arrows_that_follow_from_others_are_left_out() -> None:
    graph: dict[str, set[str]] = {"top": {"low", "mid"}, "mid": {"low"}, "low": set()}
    assert reduced(graph) == [("mid", "low"), ("top", "mid")]


def test_an_import_that_points_upwards_is_drawn_as_such() -> None:
    upwards = "if TYPE_CHECKING:\n    from lib.part import One\n"
    assert 'class="types"' not in draw(parse(TREE), "lib")
    assert 'class="types"' in draw(parse(TREE | {"lib/low.py": upwards}), "lib")


def test_an_entry_point_stands_above() -> None:
    text = draw(parse(TREE | {"lib/__main__.py": "import lib.part.one\n"}), "lib")
    assert text.index("__main__") < text.index(">part/<") < text.index(">low<")
