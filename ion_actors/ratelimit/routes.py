"""Which requests share a bucket: names of routes and of resources, made comparable."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping

__all__ = ["Routes", "normal_route", "resource_key"]

_HEX = "[0-9a-fA-F]"
_ID = re.compile(rf"(?<=/)(?:\d+|{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}})(?=/|$)", re.ASCII)
_SLASHES = re.compile("/{2,}")


def normal_route(route: str) -> str:
    """The route without what differs from request to request.

    The query is dropped, and so is a slash at the end; a part of the path that is a number or a
    UUID becomes ``{id}``: ``GET /users/17?page=2`` and ``GET /users/4/`` are ``GET /users/{id}``.
    """
    path = _SLASHES.sub("/", route.partition("?")[0].strip())
    path = _ID.sub("{id}", path)
    return path.rstrip("/") if path.rstrip("/") and not path.endswith(" /") else path


def resource_key(resource: object) -> Hashable:
    """A key for a resource: the same for equal ones, whatever the order of a mapping.

    Raises:
        TypeError: it cannot be hashed.
    """
    try:
        key = frozenset(resource.items()) if isinstance(resource, Mapping) else resource
        hash(key)
    except TypeError:
        raise TypeError(
            f"resource must be hashable, or a mapping of such values, not {resource!r}"
        ) from None
    return key


class Routes:
    """Templates of routes, such as ``GET /repos/{owner}/{repo}``.

    A part in braces stands for any one part. A route belongs to the template that it equals, or
    else to the first one that it fits; all routes of one template share its bucket.
    """

    def __init__(self, templates: Mapping[str, object]) -> None:
        self._names = {normal_route(one): one for one in templates}
        self._patterns = [(_pattern(name), name) for name in self._names]

    def key(self, route: str) -> str:
        """The template of this route, or the route itself, in its normal form."""
        name = normal_route(route)
        if name in self._names:
            return name
        return next((one for pattern, one in self._patterns if pattern.fullmatch(name)), name)


def _pattern(name: str) -> re.Pattern[str]:
    parts = re.split(r"(\{[^{}/]*\})", name)
    return re.compile(
        "".join("[^/]+" if part.startswith("{") else re.escape(part) for part in parts)
    )
