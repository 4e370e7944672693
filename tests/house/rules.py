"""The rules of the house, and where the library does not keep them yet."""

from __future__ import annotations

from tests.house.code import (
    Modules,
    circles,
    crowding,
    doubled_names,
    import_graph,
    lines,
    private_touches,
    slices,
    wrong_maps,
)

CIRCLES = "modules that import each other in a circle, for types only or not"
FOLDER = "modules in one folder"
SLICES = "classes with a single subclass, which is in another file"
FOREIGN = "underscore names of other modules, per 1000 lines"
INHERITED = "underscore names inherited from other modules, per 1000 lines"
DOUBLED = "public class names that two classes have"
MAPS = "packages whose map differs from their folder"

#: The most that is allowed.
RULES: dict[str, float] = {
    CIRCLES: 0,
    FOLDER: 16,
    SLICES: 8,
    FOREIGN: 5.0,
    INHERITED: 5.0,
    DOUBLED: 6,
    MAPS: 0,
}

#: Where the library is not there yet: the figure of today, which may be lowered and not raised. An
#: entry goes when its rule is kept.
NOT_YET: dict[str, float] = {}


def limit(rule: str) -> float:
    """What holds today."""
    return NOT_YET.get(rule, RULES[rule])


def figures(modules: Modules) -> dict[str, float]:
    """What the library has of each."""
    foreign, inherited = private_touches(modules)
    thousands = max(lines(modules), 1) / 1000
    return {
        CIRCLES: sum(map(len, circles(import_graph(modules)))),
        FOLDER: max(crowding(modules).values(), default=0),
        SLICES: len(slices(modules)),
        FOREIGN: len(foreign) / thousands,
        INHERITED: len(inherited) / thousands,
        DOUBLED: len(doubled_names(modules)),
        MAPS: len(wrong_maps(modules)),
    }


def evidence(modules: Modules, rule: str) -> str:
    """What makes up the figure of a rule, one a line."""
    foreign, inherited = private_touches(modules)
    found: dict[str, list[object]] = {
        CIRCLES: [" <-> ".join(group) for group in circles(import_graph(modules))],
        FOLDER: [f"{one}: {number}" for one, number in crowding(modules).items()],
        SLICES: list(slices(modules)),
        FOREIGN: [f"{one.module}:{one.line} {one.name}" for one in foreign],
        INHERITED: [f"{one.module}:{one.line} {one.name}" for one in inherited],
        DOUBLED: list(doubled_names(modules)),
        MAPS: [f"{one}: {' '.join(rooms)}" for one, rooms in wrong_maps(modules).items()],
    }
    return "\n".join(map(str, found[rule]))
