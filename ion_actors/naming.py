"""What users' objects are called, found out without running their code.

An error or a report names tasks, also under a lock and on threads that must not block. But
``__qualname__``, ``__dict__``, ``__class__`` and ``__repr__`` may be code of the user's, which may
block, raise, or call the pool. So a name is read from where CPython keeps it.
"""

from __future__ import annotations

import functools
import types
from typing import Any

from ion_actors._printable import shown

__all__ = ["as_repr", "is_own", "name_of", "unwrapped"]

# What C code keeps, and reads without calling anything else.
_KEPT = (types.GetSetDescriptorType, types.MemberDescriptorType)

_qualname_of_type = type.__dict__["__qualname__"].__get__
_dict_of_type = type.__dict__["__dict__"].__get__
_mro_of_type = type.__dict__["__mro__"].__get__
_wrapped_by_partial = functools.partial.__dict__["func"]


def name_of(fn: object) -> str:
    """The qualified name of a callable; that of its class, if it has none of its own.

    A name that would have to be computed by the user's code counts as none.
    """
    kind = type(fn)
    if kind is types.MethodType:
        return name_of(fn.__func__)  # type: ignore[attr-defined]
    if issubclass(kind, type):
        return str(_qualname_of_type(fn))
    found = _kept(fn, kind, "__qualname__")
    if found is None:
        own = _kept(fn, kind, "__dict__")
        found = dict.get(own, "__qualname__") if issubclass(type(own), dict) else None
    if type(found) is str and found:
        return found
    return str(_qualname_of_type(kind))


def unwrapped(fn: Any) -> Any:
    """What a ``functools.partial`` calls; None if it is no such thing."""
    return _wrapped_by_partial.__get__(fn) if issubclass(type(fn), functools.partial) else None


def is_own(fn: Any) -> bool:
    """Whether calling this runs a function of this library's, or a method or partial of one."""
    while type(fn) is not types.FunctionType:
        fn = fn.__func__ if type(fn) is types.MethodType else unwrapped(fn)
        if fn is None:
            return False
    module = fn.__globals__.get("__name__")
    return type(module) is str and module.partition(".")[0] == "ion_actors"


def as_repr(error: BaseException) -> str:
    """Its repr in one line, or what it is if its class fails at that. Runs the user's code."""
    return shown(error)


def _kept(thing: object, kind: type, name: str) -> Any:
    """An attribute that C code keeps for this thing; None if there is none."""
    for base in _mro_of_type(kind):
        if name in (names := _dict_of_type(base)):
            found = names[name]
            return found.__get__(thing) if type(found) in _KEPT else None
    return None
