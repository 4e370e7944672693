"""The library as its source text says it is: modules, imports, names. Nothing is imported or run.

All functions are pure: they take the modules that :func:`parse` makes of texts.
"""

from __future__ import annotations

import ast
import functools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "ion_actors"


class Import(NamedTuple):
    """One imported name; without a name, the module itself."""

    module: str
    name: str | None
    here: str
    for_types: bool


@dataclass(frozen=True)
class Module:
    """One file of the library.

    Attributes:
        name: as one imports it; a package's ``__init__`` has the name of the package.
        text: its source.
        is_package: whether it is an ``__init__``.
    """

    name: str
    text: str
    is_package: bool

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    @property
    def package(self) -> str:
        """The package that it lies in; a package lies in itself."""
        return self.name if self.is_package else self.name.rpartition(".")[0]

    @cached_property
    def imports(self) -> list[Import]:
        """All that is imported, for types only or not."""
        for_types = {
            id(below)
            for node in self.nodes
            if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
            for one in node.body
            for below in ast.walk(one)
        }
        found: list[Import] = []
        for node in self.nodes:
            if isinstance(node, ast.Import):
                for one in node.names:
                    here = one.asname or one.name
                    found.append(Import(one.name, None, here, id(node) in for_types))
            elif isinstance(node, ast.ImportFrom):
                for one in node.names:
                    here = one.asname or one.name
                    found.append(Import(self.base(node), one.name, here, id(node) in for_types))
        return found

    def base(self, node: ast.ImportFrom) -> str:
        """The absolute name of the module that names are imported from."""
        if not node.level:
            return node.module or ""
        parts = self.package.split(".")
        parts = parts[: len(parts) - node.level + 1]
        return ".".join([*parts, *([node.module] if node.module else [])])


Modules = Mapping[str, Module]


def parse(sources: Mapping[str, str]) -> dict[str, Module]:
    """Make modules of texts, which are given by their paths, such as ``pkg/__init__.py``."""
    modules = {}
    for path, text in sorted(sources.items()):
        parts = PurePosixPath(path).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        modules[name] = Module(name, text, is_package)
    return modules


@functools.cache
def read(folder: Path = LIBRARY) -> Modules:
    """The modules below a folder, which is a package. They are read once."""
    return parse(
        {
            path.relative_to(folder.parent).as_posix(): path.read_text("utf-8")
            for path in folder.rglob("*.py")
        }
    )


# -- imports -------------------------------------------------------------------------------


def origin(modules: Modules, module: str, name: str) -> tuple[str, str | None]:
    """Where a name that can be imported from a module is defined; a module has no name.

    A package's ``__init__`` hands names on: it is asked where it has them from.
    """
    for _ in range(10):
        if f"{module}.{name}" in modules:
            return f"{module}.{name}", None
        if module not in modules or not modules[module].is_package:
            break
        found = [one for one in modules[module].imports if one.here == name and one.name]
        if not found or found[0].module not in modules:
            break
        module, name = found[0].module, found[0].name or ""
    return module, name


def import_graph(modules: Modules, *, types: bool = True) -> dict[str, set[str]]:
    """The modules that each module imports: what a package hands on counts where it is defined.

    Packages are left out: what they do is to hand on.

    Args:
        modules: all of them.
        types: count what is imported for type checkers only, too.
    """
    graph: dict[str, set[str]] = {}
    for module in modules.values():
        if module.is_package:
            continue
        found = {
            one.module if one.name is None else origin(modules, one.module, one.name)[0]
            for one in module.imports
            if types or not one.for_types
        }
        graph[module.name] = {
            one for one in found if one in modules and not modules[one].is_package
        } - {module.name}
    return graph


def circles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """The groups of nodes that reach each other, each sorted, the largest first (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            if len(group := stack[at:]) > 1:
                found.append(sorted(group))
            del stack[at:]

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return sorted(found, key=lambda group: (-len(group), group))


# -- folders and maps ----------------------------------------------------------------------


def packages(modules: Modules) -> list[str]:
    return [one.name for one in modules.values() if one.is_package]


def rooms(modules: Modules, package: str) -> list[str]:
    """What lies in the folder of a package: ``name`` for a module, ``name/`` for a package."""
    below = [one for name, one in modules.items() if name.rpartition(".")[0] == package]
    return [one.name.rpartition(".")[2] + "/" * one.is_package for one in below]


def crowding(modules: Modules) -> dict[str, int]:
    """How many modules each folder holds, its ``__init__`` apart."""
    return {
        one: sum(not room.endswith("/") for room in rooms(modules, one))
        for one in packages(modules)
    }


def map_of(module: Module) -> set[str]:
    """The rooms that a package's docstring names.

    The map is a literal block of ``room  what it is for``; where rooms are shown by what they
    define, the name of the room is the last word of the line.
    """
    text = ast.get_docstring(module.tree) or ""
    lines = [line for line in text.splitlines() if line.startswith(" ")]
    first = re.compile(r"^ {4}([a-z_]\w*/?)(?: {2,}|$)")
    last = re.compile(r"^ {4,}[A-Z]\w+ {2,}.* {2,}(\w+/?)$")
    return {
        found[1] for line in lines if (found := first.match(line) or last.match(line)) is not None
    }


def wrong_maps(modules: Modules) -> dict[str, list[str]]:
    """By package, the rooms that its map lacks (``+``), and those that are not there (``-``)."""
    wrong = {}
    for package in packages(modules):
        there, named = set(rooms(modules, package)), map_of(modules[package])
        if there != named:
            wrong[package] = [f"+{one}" for one in sorted(there - named)]
            wrong[package] += [f"-{one}" for one in sorted(named - there)]
    return wrong


# -- classes -------------------------------------------------------------------------------


def classes(modules: Modules) -> dict[tuple[str, str], ast.ClassDef]:
    """All classes, by the module and the name."""
    return {
        (module.name, node.name): node
        for module in modules.values()
        for node in module.nodes
        if isinstance(node, ast.ClassDef)
    }


def doubled_names(modules: Modules) -> list[str]:
    """The public names that two classes have."""
    count = Counter(name for _, name in classes(modules) if not name.startswith("_"))
    return sorted(name for name, times in count.items() if times > 1)


def slices(modules: Modules) -> list[str]:
    """The classes that have one subclass, which is in another file."""
    every = classes(modules)
    users: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (module, _), node in every.items():
        for base in node.bases:
            found = class_of(modules, module, base)
            if found in every:
                users[found].append(module)
    return sorted(
        ".".join(base) for base, found in users.items() if len(found) == 1 and found != [base[0]]
    )


def class_of(modules: Modules, module: str, base: ast.expr) -> tuple[str, str]:
    """Where a class that is named as a base is defined."""
    if isinstance(base, ast.Subscript):
        base = base.value
    *path, name = ast.unparse(base).split(".")
    for one in modules[module].imports:
        if not path and one.here == name and one.name:
            found, defined_as = origin(modules, one.module, one.name)
            return found, defined_as or name
        if path and one.name is None and ".".join(path) == one.here:
            return one.module, name
        if path and one.name is not None and one.here == path[0]:
            found = origin(modules, one.module, one.name)[0]
            return ".".join([found, *path[1:]]), name
    return module, name


# -- private names -------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class Touch:
    """An underscore name of one module that another one uses."""

    module: str
    line: int
    name: str


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def defined(module: Module) -> set[str]:
    """The names that a module gives to something: variables, functions, classes, attributes."""
    found = set()
    for node in module.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if _is_self(node.value):
                found.add(node.attr)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            found |= assigned(node)
    return found | _slots(module)


def assigned(node: ast.Assign | ast.AnnAssign) -> set[str]:
    """The variables that a statement gives a value or a type."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    nodes = (one for target in targets for one in ast.walk(target))
    return {one.id for one in nodes if isinstance(one, ast.Name)}


def _slots(module: Module) -> set[str]:
    found: set[str] = set()
    for node in module.nodes:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__slots__":
            found |= {one.value for one in ast.walk(node.value) if isinstance(one, ast.Constant)}
    return found


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in {"self", "cls"}


def private_touches(modules: Modules) -> tuple[list[Touch], list[Touch]]:
    """The uses of underscore names that another module of the library defines.

    Returns:
        Those of other objects, and those that are inherited (``self._name``).
    """
    own = {name: defined(module) for name, module in modules.items()}
    every = set().union(*own.values())
    foreign, inherited = [], []
    for module in modules.values():
        for line, name, of_self in _uses(module, modules):
            if _is_private(name) and name in every and name not in own[module.name]:
                (inherited if of_self else foreign).append(Touch(module.name, line, name))
    return sorted(foreign), sorted(inherited)


def _uses(module: Module, modules: Modules) -> Iterator[tuple[int, str, bool]]:
    for node in module.nodes:
        if isinstance(node, ast.Attribute):
            yield node.lineno, node.attr, _is_self(node.value)
        elif isinstance(node, ast.ImportFrom) and module.base(node) in modules:
            for one in node.names:
                if f"{module.base(node)}.{one.name}" not in modules:
                    yield node.lineno, one.name, False


def lines(modules: Modules) -> int:
    """How many lines the library has."""
    return sum(one.text.count("\n") for one in modules.values())


def uses_of(modules: Modules, names: Set[str], library: str, room: str) -> list[Touch]:
    """The uses of another library's underscore names, outside of the one room that may have them.

    Args:
        modules: all of them.
        names: the attributes that the library's classes have for themselves.
        library: its name: what is private in it, or comes from a private module, is not imported.
        room: the module or package whose uses do not count.
    """
    found = []
    for module in modules.values():
        if f"{module.name}.".startswith(f"{room}."):
            continue
        for node in module.nodes:
            if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"{library}."):
                path = [f"{node.module}.{one.name}" for one in node.names]
                found += [Touch(module.name, node.lineno, one) for one in path if "._" in one]
            elif isinstance(node, ast.Attribute) and node.attr in names:
                found.append(Touch(module.name, node.lineno, node.attr))
            elif isinstance(node, ast.FunctionDef) and node.name in names:
                found.append(Touch(module.name, node.lineno, node.name))
    return sorted(found)
