"""The library keeps the rules of the house, and each rule finds out who breaks it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.house.code import (
    Modules,
    Touch,
    circles,
    crowding,
    doubled_names,
    import_graph,
    lines,
    origin,
    parse,
    private_touches,
    read,
    slices,
    wrong_maps,
)
from tests.house.rules import (
    CIRCLES,
    DOUBLED,
    FOLDER,
    FOREIGN,
    INHERITED,
    MAPS,
    NOT_YET,
    PYKKA,
    RULES,
    SLICES,
    evidence,
    figures,
    limit,
)


@pytest.fixture(scope="module")
def library() -> Modules:
    return read()


@pytest.fixture(scope="module")
def found(library: Modules) -> dict[str, float]:
    return figures(library)


@pytest.mark.parametrize("rule", RULES)
def test_the_library_keeps_the_rules(library: Modules, found: dict[str, float], rule: str) -> None:
    figure = found[rule]
    assert figure <= limit(rule), f"{figure:g} {rule}:\n{evidence(library, rule)}"


def test_what_is_not_there_yet_is_a_rule_that_is_broken(found: dict[str, float]) -> None:
    assert [one for one in NOT_YET if found[one] <= RULES[one]] == [], "rules that are kept now"


# -- each rule, on a small tree ------------------------------------------------------------

TREE = {
    "lib/__init__.py": (
        '"""A library.\n\n::\n\n    low    below\n    high   above\n    part/  a part\n"""'
    ),
    "lib/low.py": "class Low:\n    def _hidden(self): ...\n",
    "lib/high.py": "from lib.low import Low\n\nlow = Low()\n",
    "lib/part/__init__.py": (
        '"""A part.\n\n::\n\n    one  the first\n"""\nfrom lib.part.one import One\n'
    ),
    "lib/part/one.py": (
        "from lib.low import Low\n\nclass One(Low): ...\n\nclass _Two: ...\n_two = 2\n"
    ),
}


def tree(**changes: str) -> Modules:
    """The tree with some files changed or added; ``part__one`` is ``lib/part/one.py``, and
    ``part__init`` is ``lib/part/__init__.py``.
    """
    paths = {one: one.replace("__", "/").replace("/init", "/__init__") for one in changes}
    return parse(TREE | {f"lib/{paths[one]}.py": text for one, text in changes.items()})


def test_a_tree_in_order_breaks_no_rule_but_that_of_slices() -> None:
    found = figures(tree())
    assert found == dict.fromkeys(RULES, 0) | {FOLDER: 2, SLICES: 1}


def test_a_circle_is_found() -> None:
    found = tree(low="from lib.high import low\nclass Low: ...\n")
    assert circles(import_graph(found)) == [["lib.high", "lib.low"]]
    assert figures(found)[CIRCLES] == 2
    assert evidence(found, CIRCLES) == "lib.high <-> lib.low"


@pytest.mark.parametrize(
    "text",
    [
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from lib.high import low\n",
        "import typing\nif typing.TYPE_CHECKING:\n    import lib.high\n",
        "def later():\n    import lib.high\n",
        "from . import high\n",
        "from .high import low\n",
    ],
)
def test_a_circle_is_one_however_it_is_imported(text: str) -> None:
    found = tree(low=text + "class Low: ...\n")
    assert circles(import_graph(found)) == [["lib.high", "lib.low"]]


def test_what_is_for_types_only_can_be_told_apart() -> None:
    text = "if TYPE_CHECKING:\n    import lib.high\nelse:\n    import lib.part.one\n"
    graph = import_graph(tree(low=text), types=False)
    assert graph["lib.low"] == {"lib.part.one"}


def test_a_circle_by_what_a_package_hands_on_is_found() -> None:
    found = tree(low="from lib.part import One\nclass Low: ...\n")
    assert circles(import_graph(found)) == [["lib.low", "lib.part.one"]]


def test_circles_are_told_apart() -> None:
    graph = {"a": {"b"}, "b": {"a", "c"}, "c": {"d"}, "d": {"e"}, "e": {"c"}, "f": {"f", "a"}}
    assert circles(graph) == [["c", "d", "e"], ["a", "b"]]


def test_where_a_name_comes_from() -> None:
    found = tree()
    assert origin(found, "lib.part", "One") == ("lib.part.one", "One")
    assert origin(found, "lib", "low") == ("lib.low", None)
    assert origin(found, "lib.high", "Low") == ("lib.high", "Low")  # it is no package


def test_a_crowded_folder_is_found() -> None:
    found = tree(**{f"part__m{number}": "" for number in range(16)})
    assert crowding(found) == {"lib": 2, "lib.part": 17}
    assert figures(found)[FOLDER] == 17


@pytest.mark.parametrize(
    ("base", "imported"),
    [
        ("Low", "from lib.low import Low"),
        ("Low[int]", "from lib.low import Low"),
        ("Base", "from lib.low import Low as Base"),
        ("low.Low", "from lib import low"),
        ("lib.low.Low", "import lib.low"),
        ("l.Low", "import lib.low as l"),
    ],
)
def test_a_slice_is_found(base: str, imported: str) -> None:
    found = tree(part__one=f"{imported}\nclass One({base}): ...\n")
    assert slices(found) == ["lib.low.Low"]
    assert figures(found)[SLICES] == 1


def test_a_base_of_two_or_of_one_in_its_own_file_is_no_slice() -> None:
    two = tree(high="from lib.low import Low\nclass High(Low): ...\n")
    own = tree(part__one="", low="class Low: ...\nclass Lower(Low): ...\n")
    assert slices(two) == slices(own) == []


def test_a_touch_of_a_private_name_is_found() -> None:
    found = tree(high="from lib.low import Low\nLow()._hidden()\n")
    assert private_touches(found) == ([Touch("lib.high", 2, "_hidden")], [])
    assert figures(found)[FOREIGN] == pytest.approx(1000 / lines(found))
    assert evidence(found, FOREIGN) == "lib.high:2 _hidden"


def test_an_import_of_a_private_name_is_one() -> None:
    found = tree(high="from lib.part.one import _Two\n")
    assert private_touches(found)[0] == [Touch("lib.high", 1, "_Two")]


def test_a_private_name_that_is_inherited_is_found() -> None:
    found = tree(
        part__one="from lib.low import Low\nclass One(Low):\n    x = lambda self: self._hidden\n"
    )
    assert private_touches(found) == ([], [Touch("lib.part.one", 3, "_hidden")])
    assert figures(found)[INHERITED] == pytest.approx(1000 / lines(found))


@pytest.mark.parametrize(
    "text",
    [
        "class A:\n    def f(self, other): self._hidden = other._hidden\n",
        "class A:\n    __slots__ = ('_hidden',)\n    def f(self): return self._hidden\n",
        "import os\nos._exit(0)\n",  # it is not the library's
        "x = object().__class__\n",
    ],
)
def test_private_names_of_ones_own_and_of_strangers_do_not_count(text: str) -> None:
    assert private_touches(tree(high=text)) == ([], [])


def test_a_name_of_two_classes_is_found() -> None:
    found = tree(high="class Low: ...\n", part__two="class _Two: ...\n")
    assert doubled_names(found) == ["Low"]
    assert figures(found)[DOUBLED] == 1


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("from pykka.messages import _ActorStop\n", "pykka.messages._ActorStop"),
        ("from pykka._envelope import Envelope\n", "pykka._envelope.Envelope"),
        ("import pykka\nx = pykka.messages._ActorStop\n", "_ActorStop"),
        ("Low()._handle_receive(1)\n", "_handle_receive"),
        ("class A:\n    def _create_future(self): ...\n", "_create_future"),
    ],
)
def test_a_private_name_of_pykka_is_found_outside_of_its_room(text: str, name: str) -> None:
    found = tree(high=text)
    assert figures(found)[PYKKA] == 1
    assert evidence(found, PYKKA).endswith(f" {name}")
    assert figures(parse({"ion_actors/actors/low.py": text}))[PYKKA] == 0


def test_a_map_that_differs_from_its_folder_is_found() -> None:
    found = tree(part__two="", part__sub__init='"""A sub."""')
    assert wrong_maps(found) == {"lib.part": ["+sub/", "+two"]}
    gone = parse({name: text for name, text in TREE.items() if name != "lib/low.py"})
    assert wrong_maps(gone) == {"lib": ["-low"]}
    assert figures(gone)[MAPS] == 1
    assert evidence(gone, MAPS) == "lib: -low"


def test_a_map_may_name_rooms_by_what_they_define() -> None:
    text = '"""A part.\n\n::\n\n    One      the first    one\n      Other  the second   two\n"""'
    found = tree(part__init=text, part__two="")
    assert wrong_maps(found) == {}


TOP = {
    "LICENSE",
    "Makefile",
    "README.md",
    "docs",
    "examples",
    "ion_actors",
    "pyproject.toml",
    "tests",
}


def test_the_top_of_the_repository_has_only_what_belongs_there() -> None:
    root = Path(__file__).parents[2]
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        pytest.skip("this is no clone of the repository")
    listed = subprocess.run(
        [git, "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip(f"git does not read this clone: {listed.stderr}")
    tops = {path.partition("/")[0] for path in listed.stdout.split("\0") if path}
    assert {top for top in tops if not top.startswith(".")} == TOP
