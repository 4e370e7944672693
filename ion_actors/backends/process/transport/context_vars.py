"""Context variables, and the trace, are sent with a task to its process.

A variable is identified by its address: the module, and its name there. Its value is sent as a
plain pickle. A variable without an address, or whose value cannot be pickled, is left behind: no
task fails for that. :func:`left_behind` lists these.

Some libraries keep their variables where they cannot be found, or with values that cannot be
pickled. This module knows those of decimal, numpy (from 2 on) and structlog, and sets their values
by functions of these libraries.

OpenTelemetry keeps its context in a variable of its own, with objects of this process. Its
propagators turn the parts that are meant for other processes (the trace, the baggage) into text.
"""

from __future__ import annotations

import contextvars
import importlib
import logging
import pickle
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ion_actors.backends.process.main_module import main_can_be_imported
from ion_actors.backends.process.transport.pickling import Packed, pack_simply, unpack
from ion_actors.context import CURRENT
from ion_actors.naming import OneLine
from ion_actors.own_variables import decimal_variable

__all__ = ["left_behind", "pack_variables", "unpack_variables"]

logger = logging.getLogger("ion_actors")

Variable = contextvars.ContextVar[Any]
Address = tuple[str, str]  # module, name; or library, name
Pickled = bytes | Packed
Variables = tuple[list[tuple[Address, Pickled]], dict[str, str]]  # the values, the trace

# The child has its own context for the task: cancellation is sent by messages.
_OURS: frozenset[Variable] = frozenset((CURRENT,))

_OF_OPENTELEMETRY = "current_context"

# The most that is remembered about variables. (Some programs make thousands of them.)
_MOST_KNOWN = 4096


def pack_variables(context: contextvars.Context) -> bytes | Variables | None:
    """The variables that can be sent to another process; None if there are none. It never raises.

    As bytes, unless a value has more than bytes: then it must be packed together with the call.
    """
    if not context:
        return None
    values = [(address, pickled) for _, address, pickled in _crossing(context) if address]
    trace = _inject(context)
    if not all(isinstance(pickled, bytes) for _, pickled in values):
        return values, trace
    return pickle.dumps((values, trace), 5) if values or trace else None


def unpack_variables(packed: bytes | Variables | None) -> contextvars.Context:
    """A new context with these variables. It never raises: what cannot be set is left out."""
    context = contextvars.Context()
    if packed is None:
        return context
    values, trace = pickle.loads(packed) if isinstance(packed, bytes) else packed
    for address, pickled in values:
        try:
            header, buffers = (pickled, ()) if isinstance(pickled, bytes) else pickled
            context.run(_set, address, unpack(header, buffers))
        except (Exception, SystemExit) as error:
            logger.debug(
                "the context variable %s.%s is left behind", *map(OneLine, address), exc_info=error
            )
    if trace:
        context.run(_extract, trace)
    return context


def _set(address: Address, value: object) -> None:
    known = _LIBRARIES.get(address[0])
    if known is None:
        KNOWN.find(address).set(value)
    else:
        known.set(address[1], value)


def left_behind(context: contextvars.Context | None = None) -> dict[str, str]:
    """The context variables that are not sent with a task to a child process.

    Args:
        context: the variables to check; by default the caller's.

    Returns:
        The reason for each of them, by its name.
    """
    context = contextvars.copy_context() if context is None else context
    found = _crossing(context, try_again=True)
    return {
        variable.name: "no module has a name for it" if pickled else "it cannot be pickled"
        for variable, address, pickled in found
        if address is None
    }


def _crossing(
    context: contextvars.Context, *, try_again: bool = False
) -> Iterator[tuple[Variable, Address | None, Pickled]]:
    """Each variable with its address and its value; those without an address are left behind."""
    for variable, value in context.items():
        if variable in _OURS or _is_of_opentelemetry(variable):
            continue
        address = KNOWN.address(variable)
        if address is None:
            yield variable, None, b"\x80"
        elif not try_again and KNOWN.refuses(variable, type(value)):
            yield variable, None, b""
        elif value is not ...:  # structlog's value for a variable that is not set
            pickled = _pickled(variable, value, _LIBRARIES.get(address[0]), context)
            yield variable, address if pickled else None, pickled


def _pickled(
    variable: Variable, value: object, library: _Library | None, context: contextvars.Context
) -> Pickled:
    try:
        if library is not None:
            # In a copy: the context may be entered already, by a wrapper of the task.
            value = context.copy().run(library.get, value)
        header, buffers = pack_simply(value)
        return (header, buffers) if buffers else header
    except BaseException as error:
        KNOWN.refuse(variable, type(value))
        name = OneLine(variable.name)
        logger.debug("the context variable %s is left behind", name, exc_info=error)
        return b""


class Known:
    """A cache of facts about variables. Any thread may use it: it only saves work."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards those below
        self._addresses: dict[Variable, Address | None] = {}
        self._modules = 0  # their number at the last search that found nothing
        self._refused: set[tuple[Variable, type]] = set()
        self._found: dict[Address, Variable] = {}

    def __len__(self) -> int:
        """How many variables it has looked for."""
        return len(self._addresses)

    def address(self, variable: Variable) -> Address | None:
        """The address of a variable, if it has one."""
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
        """The variable at this address.

        Raises:
            Exception: there is none.
        """
        found = self._found.get(address)
        if found is None:
            module, name = address
            found = getattr(importlib.import_module(module), name)
            if not isinstance(found, contextvars.ContextVar):
                raise TypeError(f"{module}.{name} is no context variable: {found!r}")
            self._found[address] = found
        return found

    # An attempt may visit half the objects of a web framework before it fails.

    def refuses(self, variable: Variable, kind: type) -> bool:
        """Whether a value of this type could not be pickled before."""
        return (variable, kind) in self._refused

    def refuse(self, variable: Variable, kind: type) -> None:
        """Note that a value of this type could not be pickled."""
        with self._lock:
            if len(self._refused) >= _MOST_KNOWN:
                self._refused.clear()
            self._refused.add((variable, kind))


KNOWN = Known()


def _search(variable: Variable) -> Address | None:
    for library, found in _LIBRARIES.items():
        if library in sys.modules and found.owns(variable):
            return library, variable.name
    for module, there in list(sys.modules.items()):
        if module == "__mp_main__" or (module == "__main__" and not main_can_be_imported()):
            continue
        # Without loading modules that load themselves when an attribute is read.
        try:
            names = object.__getattribute__(there, "__dict__")
        except AttributeError:
            continue
        for name, value in list(names.items()):
            if value is variable:
                return module, name
    return None


# -- libraries ---------------------------------------------------------------------------------


class _Library(NamedTuple):
    """How the values of a library's variables are read and set, by that library."""

    owns: Callable[[Variable], bool]
    get: Callable[[Any], object]  # the data to send for a value, while that is current
    set: Callable[[str, Any], object]  # sets the variable of that name from the received data


def _itself(value: object) -> object:
    return value


def _set_decimal(_name: str, value: Any) -> None:
    importlib.import_module("decimal").setcontext(value)


def _numpy_errors(_value: object) -> tuple[Mapping[str, str], object, int]:
    numpy: Any = importlib.import_module("numpy")
    return numpy.geterr(), numpy.geterrcall(), numpy.getbufsize()


def _set_numpy_errors(_name: str, value: tuple[Mapping[str, str], Any, int]) -> None:
    numpy: Any = importlib.import_module("numpy")
    errors, call, size = value
    numpy.seterrcall(call)
    numpy.seterr(**errors)
    numpy.setbufsize(size)


def _set_structlog(name: str, value: object) -> None:
    contextvars_there: Any = importlib.import_module("structlog.contextvars")
    contextvars_there.bind_contextvars(**{name.removeprefix(_OF_STRUCTLOG): value})


_OF_STRUCTLOG = "structlog_"

# By the module that must be imported for its variables to exist.
_LIBRARIES: dict[str, _Library] = {
    "decimal": _Library(lambda one: one is decimal_variable(), _itself, _set_decimal),
    "numpy": _Library(
        lambda one: one.name == "numpy.ufunc.extobj", _numpy_errors, _set_numpy_errors
    ),
    "structlog.contextvars": _Library(
        lambda one: one.name.startswith(_OF_STRUCTLOG), _itself, _set_structlog
    ),
}


# -- OpenTelemetry -----------------------------------------------------------------------------


def _is_of_opentelemetry(variable: Variable) -> bool:
    return variable.name == _OF_OPENTELEMETRY and "opentelemetry.context" in sys.modules


def _inject(context: contextvars.Context) -> dict[str, str]:
    """The trace and the baggage, as text."""
    carrier: dict[str, str] = {}
    if any(_is_of_opentelemetry(variable) for variable in context):
        # In a copy: the context may be entered already, by a wrapper of the task.
        context.copy().run(_propagate, "inject", carrier)
    return carrier


def _extract(carrier: dict[str, str]) -> None:
    """Make the trace of this text current."""
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
        logger.debug("the trace is left behind", exc_info=error)
        return None
