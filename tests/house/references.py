"""The names of modules, classes and functions that pages mention, and whether they exist.

On a page these count, if they stand in backticks:

- ``workerpool.mailbox.task`` and ``workerpool.mailbox.task:TaskFuture.begin``: a module of the
  library, with or without ``ion_actors.`` before it, and after a colon something in it;
- ``Pool.submit``: an attribute of a class, if the library has a class of that name;
- ``lifecycle.py``, ``context/turns.py``: a file of the library.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.house.code import Modules, assigned, class_of, classes, origin, packages

_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_BLOCK = re.compile(r"(?ms)^( *)(`{3,}|:{3,}).*?^\1\2$")


def references(page: str) -> Iterator[str]:
    """What stands in backticks on a page, apart from blocks of code; without call brackets."""
    for found in _CODE.finditer(_BLOCK.sub("", page)):
        yield found[1].removesuffix("()")


class Names:
    """The names of a library."""

    def __init__(self, modules: Modules, library: str = "ion_actors") -> None:
        self._modules = modules
        self._library = library
        self._classes = classes(modules)
        self._tops = {one.split(".")[1] for one in packages(modules) if "." in one}

    def is_missing(self, reference: str) -> bool:
        """Whether a reference is one to the library and leads nowhere."""
        if re.fullmatch(r"[\w./]*\w\.py", reference):
            return not self._has_file(reference)
        if re.fullmatch(r"[a-z_][\w.]*:[A-Za-z_][\w.]*", reference):
            module, _, path = reference.partition(":")
            return not self._has(self._full(module), path.split("."))
        if re.fullmatch(r"[a-z_]\w*(\.\w+)+", reference):
            return self._is_ours(reference) and not self._has_dotted(self._full(reference))
        if re.fullmatch(r"[A-Z]\w*\.[a-z_]\w*", reference):
            name, _, attribute = reference.partition(".")
            own = [one for one in self._classes if one[1] == name]
            return bool(own) and not any(self._has_attribute(one, attribute) for one in own)
        return False

    def _is_ours(self, reference: str) -> bool:
        return reference.partition(".")[0] in {self._library, *self._tops}

    def _full(self, name: str) -> str:
        own = name == self._library or name.startswith(f"{self._library}.")
        return name if own else f"{self._library}.{name}"

    def _has_file(self, path: str) -> bool:
        files = (
            f"/{name.replace('.', '/')}{'/__init__' * module.is_package}.py"
            for name, module in self._modules.items()
        )
        return any(one.endswith(f"/{path}") for one in files)

    def _has_dotted(self, name: str) -> bool:
        parts = name.split(".")
        for size in range(len(parts), 0, -1):
            if (module := ".".join(parts[:size])) in self._modules:
                return size == len(parts) or self._has(module, parts[size:])
        return False

    def _has(self, module: str, path: list[str]) -> bool:
        if module not in self._modules:
            return False
        found, name = origin(self._modules, module, path[0])
        if name is None:
            return len(path) == 1 or self._has(found, path[1:])
        if (found, name) in self._classes and len(path) == 2:
            return self._has_attribute((found, name), path[1])
        return len(path) == 1 and name in _named(self._modules[found].tree.body)

    def _has_attribute(self, key: tuple[str, str], name: str) -> bool:
        """Whether a class has an attribute; if it may have it from elsewhere, it has."""
        node = self._classes[key]
        if name in _attributes(node):
            return True
        bases = [class_of(self._modules, key[0], one) for one in node.bases]
        ours = [one for one in bases if one in self._classes]
        foreign = {name for _, name in bases} - {name for _, name in ours}
        if foreign - {"object", "Protocol", "Generic", "Exception", "ABC"} and not ours:
            return not name.startswith("_")
        return any(self._has_attribute(one, name) for one in ours)


def _named(body: list[ast.stmt]) -> set[str]:
    """The names that statements give, at their own level."""
    found: set[str] = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            found |= assigned(node)
        elif isinstance(node, ast.If | ast.Try):
            found |= _named([*node.body, *node.orelse])
    return found


def _attributes(node: ast.ClassDef) -> set[str]:
    return _named(node.body) | {
        one.attr
        for one in ast.walk(node)
        if isinstance(one, ast.Attribute)
        and isinstance(one.ctx, ast.Store)
        and isinstance(one.value, ast.Name)
        and one.value.id == "self"
    }
