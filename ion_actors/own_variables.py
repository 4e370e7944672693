"""Which context variables tasks and threads begin with.

A copy of a context has the same objects as the original. Most programs set their variables and
never change their values, but ``decimal.getcontext().prec = 5`` changes the object in the variable:
in a task it would change the arithmetic of the submitter. So a task gets a copy of that object.

The library's own threads begin with no variable at all. From Python 3.14 on, a thread may inherit
those of its creator, and on free-threaded builds it does by default. A worker would then live in
the context in which somebody made the pool, under its deadline, and keep its values alive.
"""

from __future__ import annotations

import _thread
import contextvars
import sys
import threading
from collections.abc import Callable
from typing import Any

__all__ = [
    "DAEMON",
    "copy_variables",
    "daemon_thread",
    "decimal_variable",
    "no_variables",
    "own_values",
]

#: Whether threads may be daemons: a subinterpreter allows none, and waits for its threads.
DAEMON: bool = getattr(_thread, "daemon_threads_allowed", lambda: True)()

_modules = sys.modules  # read for every task
_decimal: contextvars.ContextVar[Any] | None = None


def decimal_variable() -> contextvars.ContextVar[Any] | None:
    """The variable of the ``decimal`` module; None if that is not imported.

    It has no public name, but in an empty context it is the only one that is set.
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
    """Give this context its own copies of values that are changed in place.

    It costs next to nothing where ``decimal`` was not imported, or not used in this context.
    Returns the same context.
    """
    if "decimal" in _modules and (variable := _decimal or decimal_variable()) is not None:
        found = context.get(variable)
        if found is not None:
            context.run(variable.set, found.copy())
    return context


def copy_variables() -> contextvars.Context:
    """A copy of the caller's variables, with its own values where that matters."""
    return own_values(contextvars.copy_context())


def no_variables() -> dict[str, Any]:
    """Arguments for ``threading.Thread``: the thread begins without context variables."""
    return {"context": contextvars.Context()} if sys.version_info >= (3, 14) else {}


def daemon_thread(
    target: Callable[..., object], name: str | None = None, args: tuple[Any, ...] = ()
) -> threading.Thread:
    """A daemon thread, not yet started, which begins without context variables."""
    return threading.Thread(target=target, name=name, args=args, daemon=DAEMON, **no_variables())
