"""Context variables go with a task to its process, and so does its trace.

A variable is known there by where it stands: the module, and the name in it. Its value goes as a
plain pickle. What stands in no module, or whose value cannot be pickled, is left behind: no task
fails for that. :func:`left_behind` lists it.

OpenTelemetry keeps its context in a variable of its own, with objects of this process. What of it
is meant for other processes (the trace, the baggage), its propagators put into words.
"""

from __future__ import annotations

import contextvars
import importlib
import logging
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ion_actors._printable import OneLine
from ion_actors.backends.process.program import main_can_be_imported
from ion_actors.context import CURRENT

__all__ = ["left_behind", "pack_variables", "unpack_variables"]

logger = logging.getLogger("ion_actors")

Variable = contextvars.ContextVar[Any]
Address = tuple[str, str]  # module, name

# The child has a context of its own for the task: see the messages of cancellation.
_OURS: frozenset[Variable] = frozenset((CURRENT,))

_OF_OPENTELEMETRY = "current_context"

# How much is remembered about variables at most. (Some programs make them by the thousand.)
_MOST_KNOWN = 4096


def pack_variables(context: contextvars.Context) -> bytes | None:
    """What of these variables can go to another process; None if nothing. It never raises."""
    if not context:
        return None
    values = [(address, pickled) for _, address, pickled in _crossing(context) if address]
    trace = _inject(context)
    return pickle.dumps((values, trace), 5) if values or trace else None


def unpack_variables(packed: bytes | None) -> contextvars.Context:
    """A new context with the variables in it. It never raises: what cannot be set is left out."""
    context = contextvars.Context()
    if packed is None:
        return context
    values, trace = pickle.loads(packed)
    for address, pickled in values:
        try:
            variable = _known.find(address)
            context.run(variable.set, pickle.loads(pickled))
        except (Exception, SystemExit) as error:
            logger.debug(
                "the context variable %s.%s stays behind", *map(OneLine, address), exc_info=error
            )
    if trace:
        context.run(_extract, trace)
    return context


def left_behind(context: contextvars.Context | None = None) -> dict[str, str]:
    """Which context variables do not go with a task to a child process.

    Args:
        context: what to look at; by default the variables of the caller.

    Returns:
        Why each of them is left behind, by its name.
    """
    context = contextvars.copy_context() if context is None else context
    found = _crossing(context, try_again=True)
    return {
        variable.name: "no module has it under any name" if pickled else "it cannot be pickled"
        for variable, address, pickled in found
        if address is None
    }


def _crossing(
    context: contextvars.Context, *, try_again: bool = False
) -> Iterator[tuple[Variable, Address | None, bytes]]:
    """Each variable with its address and its value; without an address it stays behind."""
    for variable, value in context.items():
        if variable in _OURS or _is_of_opentelemetry(variable):
            continue
        address = _known.address(variable)
        if address is None:
            yield variable, None, b"\x80"
        elif not try_again and _known.refuses(variable, type(value)):
            yield variable, None, b""
        else:
            pickled = _pickled(variable, value)
            yield variable, address if pickled else None, pickled


def _pickled(variable: Variable, value: object) -> bytes:
    try:
        return pickle.dumps(value, 5)
    except BaseException as error:
        _known.refuse(variable, type(value))
        logger.debug("the context variable %s stays behind", OneLine(variable.name), exc_info=error)
        return b""


class _Known:
    """What was found out about variables. Any threads may use it: it only ever saves work."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards those below
        self._addresses: dict[Variable, Address | None] = {}
        self._modules = 0  # how many there were when the last one was looked for in vain
        self._refused: set[tuple[Variable, type]] = set()
        self._found: dict[Address, Variable] = {}

    def address(self, variable: Variable) -> Address | None:
        """Where a variable stands, if anywhere."""
        found = self._addresses.get(variable)
        if found is not None or (variable in self._addresses and self._modules == len(sys.modules)):
            return found
        modules = len(sys.modules)
        found = _search(variable)
        with self._lock:
            if modules != self._modules or len(self._addresses) >= _MOST_KNOWN:
                self._modules = modules
                self._addresses = {one: where for one, where in self._addresses.items() if where}
            self._addresses[variable] = found
        return found

    def find(self, address: Address) -> Variable:
        """The variable that stands there.

        Raises:
            Exception: none does.
        """
        found = self._found.get(address)
        if found is None:
            module, name = address
            found = getattr(importlib.import_module(module), name)
            if not isinstance(found, contextvars.ContextVar):
                raise TypeError(f"{module}.{name} is no context variable: {found!r}")
            self._found[address] = found
        return found

    # An attempt may go through half the objects of a web framework before it fails.

    def refuses(self, variable: Variable, kind: type) -> bool:
        """Whether a value of this type could not be pickled."""
        return (variable, kind) in self._refused

    def refuse(self, variable: Variable, kind: type) -> None:
        """A value of this type could not be pickled."""
        with self._lock:
            if len(self._refused) >= _MOST_KNOWN:
                self._refused.clear()
            self._refused.add((variable, kind))


_known = _Known()


def _search(variable: Variable) -> Address | None:
    for module, found in list(sys.modules.items()):
        if module == "__mp_main__" or (module == "__main__" and not main_can_be_imported()):
            continue
        # Without triggering those that load themselves only when something of theirs is asked for.
        try:
            names = object.__getattribute__(found, "__dict__")
        except AttributeError:
            continue
        for name, value in list(names.items()):
            if value is variable:
                return module, name
    return None


# -- OpenTelemetry -----------------------------------------------------------------------------


def _is_of_opentelemetry(variable: Variable) -> bool:
    return variable.name == _OF_OPENTELEMETRY and "opentelemetry.context" in sys.modules


def _inject(context: contextvars.Context) -> dict[str, str]:
    """The trace and the baggage, in words."""
    carrier: dict[str, str] = {}
    if any(_is_of_opentelemetry(variable) for variable in context):
        # In a copy: the context may be entered right now, by a wrapper of the task.
        context.copy().run(_propagate, "inject", carrier)
    return carrier


def _extract(carrier: dict[str, str]) -> None:
    """Make the trace of these words current."""
    found = _propagate("extract", carrier)
    if found is not None:
        importlib.import_module("opentelemetry.context").attach(found)


def _propagate(verb: str, carrier: dict[str, str]) -> Any:
    try:
        call: Callable[[dict[str, str]], Any] = getattr(
            importlib.import_module("opentelemetry.propagate"), verb
        )
        return call(carrier)
    except Exception as error:  # it is not installed there, or configured with a broken propagator
        logger.debug("the trace stays behind", exc_info=error)
        return None
