"""The names that the library imports when they are used are those that type checkers see."""

from __future__ import annotations

import ast

import ion_actors
from tests.house.code import circles, import_graph, origin, parse, read
from tests.house.test_house import TREE


def homes() -> dict[str, str]:
    """The table in ``ion_actors/__init__.py``."""
    for node in read()["ion_actors"].tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES":
            found = ast.literal_eval(node.value)
            assert isinstance(found, dict)
            return found
    raise AssertionError("there is no table")


def test_the_table_is_what_type_checkers_see() -> None:
    seen = {
        one.here: one.module.removeprefix("ion_actors.")
        for one in read()["ion_actors"].imports
        if one.for_types
    }
    assert homes() == seen


def test_the_table_has_all_public_names_in_order() -> None:
    assert list(homes()) == sorted(ion_actors.__all__) == ion_actors.__all__


def test_each_name_is_that_of_its_home() -> None:
    for name, home in homes().items():
        module, defined = origin(read(), f"ion_actors.{home}", name)
        assert defined == name, f"{home} has no {name}"
        assert module.startswith("ion_actors.")


def test_what_a_package_hands_on_later_is_an_import_of_it() -> None:
    later = (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from lib.high import low\n"
        "def __getattr__(name): ...\n"
    )
    tree = parse(
        TREE
        | {
            "lib/part/__init__.py": later,
            "lib/low.py": "from lib.part import low\nclass Low: ...\n",
        }
    )
    assert origin(tree, "lib.part", "low") == ("lib.high", "low")
    assert circles(import_graph(tree)) == [["lib.high", "lib.low"]]
