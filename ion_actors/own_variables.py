"""Context variables that hold something that is changed in place.

A copy of a context has the same objects as the original. Most programs set their variables and
never change what is in them, but ``decimal.getcontext().prec = 5`` changes the object that the
variable holds: in a task it would change the arithmetic of whoever submitted it. So a task gets a
copy.
"""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["copy_variables", "decimal_variable", "own_values"]

_modules = sys.modules  # looked into for every task
_decimal: contextvars.ContextVar[Any] | None = None


def decimal_variable() -> contextvars.ContextVar[Any] | None:
    """The variable that ``decimal`` keeps its context in; None if nobody has imported it.

    No module has it under any name, but in an empty context it is the only one that is set.
    """
    global _decimal  # noqa: PLW0603 - there is only one
    if _decimal is None:
        module: Any = _modules.get("decimal")
        getcontext: Callable[[], Any] | None = getattr(module, "getcontext", None)
        if getcontext is None:  # it may be in the middle of its import
            return None
        empty = contextvars.Context()
        empty.run(getcontext)
        _decimal = next(iter(empty), None)
    return _decimal


def own_values(context: contextvars.Context) -> contextvars.Context:
    """Copy what is changed in place, so that these variables have it for themselves.

    It costs next to nothing where ``decimal`` was not imported, or not used in this context.
    Returns the same context.
    """
    if "decimal" in _modules and (variable := _decimal or decimal_variable()) is not None:
        found = context.get(variable)
        if found is not None:
            context.run(variable.set, found.copy())
    return context


def copy_variables() -> contextvars.Context:
    """A copy of the variables of the caller, with values of its own where that matters."""
    return own_values(contextvars.copy_context())
