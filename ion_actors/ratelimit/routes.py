"""Which requests share a bucket: names of routes and of resources, made comparable."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Mapping

__all__ = ["Routes", "normal_route", "resource_key"]

_HEX = "[0-9a-fA-F]"
_ID = re.compile(rf"(?<=/)(?:\d+|{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}})(?=/|$)", re.ASCII)
_SLASHES = re.compile("/{2,}")
_PART = re.compile(r"\{[^{}/]*\}")
_LONGEST = 256  # characters of a name that are kept: users may send names of any length


def normal_route(route: str) -> str:
    """The route without the parts that differ from request to request.

    The query is dropped, and so is a slash at the end; a part of the path that is a number or a
    UUID becomes ``{id}``: ``GET /users/17?page=2`` and ``GET /users/4/`` are ``GET /users/{id}``.
    """
    path = _SLASHES.sub("/", route.partition("?")[0].strip())
    path = _ID.sub("{id}", path)
    return path.rstrip("/") if path.rstrip("/") and not path.endswith(" /") else path


def resource_key(resource: object, what: str = "resource") -> Hashable:
    """A key for a resource: the same for equal ones, whatever the order of a mapping.

    Raises:
        TypeError: it cannot be hashed.
    """
    try:
        key = frozenset(resource.items()) if isinstance(resource, Mapping) else resource
        key = _short(key) if type(key) is str else key
        hash(key)
    except TypeError:
        raise TypeError(
            f"{what} must be hashable, or a mapping of such values, not {resource!r}"
        ) from None
    return key


class Routes:
    """Templates of routes, such as ``GET /repos/{owner}/{repo}``.

    A part in braces matches any one part. A route belongs to the template that it equals, or else
    to the first one that it matches; all routes of one template share its bucket.
    """

    def __init__(self, templates: Mapping[str, object]) -> None:
        self._names = {normal_route(one): one for one in templates}
        self._patterns = [(_pattern(name), name) for name in self._names]

    def key(self, route: str) -> str:
        """The template of this route, or the route itself, in its normal form."""
        name = normal_route(route)
        if name in self._names:
            return name
        fits = (one for pattern, one in self._patterns if pattern.fullmatch(name))
        return next(fits, None) or _short(name)


def _short(name: str) -> str:
    """The name, or a shorter text that is practically unique to it."""
    if len(name) <= _LONGEST:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass"), usedforsecurity=False)
    return f"{name[:_LONGEST]}... ({digest.hexdigest()})"


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile("/".join(_segment(one) for one in name.split("/")))


def _segment(segment: str) -> str:
    """The pattern of the text between two slashes of a template.

    Each piece of text matches where it is first found, and the last one at the end: if there is any
    match, this is one. So there is no backtracking, whatever path is requested.
    """
    first, *rest = [re.escape(piece) for piece in _PART.split(segment)]
    if not rest:
        return first
    middle = "".join(f"(?>[^/]+?{piece})" for piece in rest[:-1])
    return f"(?>{first}{middle}[^/]+{rest[-1]}(?=/|\\Z))"
