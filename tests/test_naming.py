"""Names are read without running the user's code."""

from __future__ import annotations

import functools
import types
from typing import Any

import pytest

from ion_actors.naming import describe


def ran(*_: object) -> Any:
    raise AssertionError("the user's code was run")


class Odd(dict[str, Any]):
    get = ran


class Named:
    def __init__(self, name: str) -> None:
        self.__dict__ = Odd(__qualname__=name)

    def __call__(self) -> int:
        return 1


class Text(str):
    __slots__ = ()
    __bool__ = __eq__ = ran
    __hash__ = str.__hash__


def plain() -> None: ...


def hostile_class() -> Any:
    """A class of which nothing can be asked without running code of the user's."""

    class Meta(type):
        __getattribute__ = ran

    class Hostile(metaclass=Meta):
        __class__ = property(ran)  # type: ignore[assignment]
        __dict__ = property(ran)  # type: ignore[assignment]
        __getattribute__ = ran
        __call__ = ran

    return Hostile


def instance() -> Any:
    return hostile_class()()


def hostile_partial() -> Any:
    class Partial(functools.partial[None]):
        func = property(ran)  # type: ignore[assignment]
        __getattribute__ = ran

    return Partial(plain)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (hostile_class, "hostile_class.<locals>.Hostile"),
        (instance, "hostile_class.<locals>.Hostile"),
        (lambda: types.MethodType(hostile_class()(), 1), "hostile_class.<locals>.Hostile"),
        (
            lambda: functools.partial(functools.partial(hostile_class()())),
            "hostile_class.<locals>.Hostile",
        ),
        (hostile_partial, "plain"),
        (lambda: Named("its own"), "its own"),
        (lambda: Named(Text("odd")), "Named"),
        (lambda: functools.lru_cache(plain), "plain"),
        (lambda: functools.wraps(plain)(Named("")), "plain"),
        (lambda: [].append, "list.append"),
        (lambda: str.upper, "str.upper"),
        (lambda: len, "len"),
        (lambda: int, "int"),
        (lambda: Named("").__init__, "Named.__init__"),  # type: ignore[misc]
    ],
)
def test_a_name_is_found_without_the_users_code(make, expected):
    assert describe(make()) == expected
