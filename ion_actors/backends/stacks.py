"""Where other threads are, and what users see of that.

With the GIL, a thread that looks at the frames of another one keeps it from running meanwhile.
Without it, the frames change while they are read, and reading what is no longer there ends the
process: CPython's guide to free-threading warns of ``sys._current_frames``, and its issue 152355
shows why. What CPython does safely there is :func:`faulthandler.dump_traceback`, which stops all
other threads for that long (since 3.13.2, issue 128400). It only writes to a file.

Before CPython 3.12, a look at a frame may start the garbage collector, which runs Python code, and
so other threads, too. ``sys._current_frames`` holds a lock then that they need to begin and to end:
the process hangs (CPython's issue 106883). And a frame that ends before it has been looked at is
memory that is used after it was freed. So nothing is collected for that long.

A task's stack begins at the user's function::

    threading · this library · pykka    left out: how the thread came to the task
    the user's function, what it calls  shown
    this library                        left out, wherever it is
    threading, asyncio, …               shown if they come last: the task waits in them

If the task is a coroutine that waits, its thread is in the event loop. Then the stack is that of
the coroutine: what it awaits, what that awaits, and so on.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import linecache
import os
import re
import sys
import threading
import traceback
import types
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from ion_actors.forking import has_ghosts
from ion_actors.naming import printable

__all__ = [
    "Seen",
    "Stack",
    "TaskStack",
    "calls_in",
    "calls_while_all_stand_still",
    "formatted",
    "look_at",
    "read_dump",
    "shown",
    "stack_of",
    "stack_on_loop",
]

# Asked each time: an extension that needs the GIL switches it on when it is imported.
_has_gil = getattr(sys, "_is_gil_enabled", lambda: True)

if (
    not _has_gil()
):  # only then they are needed, and not to be imported by a thread that must not block
    import tempfile  # noqa: F401

    with contextlib.suppress(ImportError):  # in a subinterpreter
        import faulthandler  # noqa: F401

_may_collect = sys.version_info < (3, 12)  # later, it waits for the end of the current instruction

_can_stop_all = sys.version_info >= (3, 13, 2)

_THREAD = re.compile(r"(?:Current thread|Thread) 0x([0-9a-f]+)")
_FRAME = re.compile(r'  File "(.*)", line (\d+) in (.*)')

#: The file, the line and the function of a call that is under way.
Call = tuple[str, int, str]

_NOTHING = "(in no Python code: in a built-in function, or just beginning or ending)\n"


class TaskStack(NamedTuple):
    """The calls of a task, the outermost first."""

    calls: list[Call]
    beside: list[Call]  # what its event loop runs while the task's coroutine waits
    hidden: bool = False  # there are calls, but none to be shown


class Stack(Protocol):
    """A stack that is known, or was asked for."""

    def text(self, until: float) -> str:
        """As in a traceback, or a line that says why not; empty if nothing is known.

        Args:
            until: the moment of the system's clock until which this may wait for an answer.
        """
        ...


class Seen(str):
    """A stack that is known."""

    __slots__ = ()

    def text(self, until: float) -> str:
        """The stack."""
        return str(self)


def stack_of(thread: threading.Thread | None, coroutine: object = None) -> Seen:
    """Where a thread is, as in a traceback; empty if it cannot be seen.

    It cannot if it has not begun or has ended; without the GIL nor if a hundred others have begun
    since, or before CPython 3.13.2. There, at most its innermost hundred calls are seen. Nor can it
    in a child that was forked past Python, which leaves the parent's threads in its list.

    Args:
        thread: which one.
        coroutine: the task's that runs there, if it is one.
    """
    return Seen(formatted(look_at(thread, coroutine)))


def stack_on_loop(thread: threading.Thread | None, coroutine: object) -> Seen:
    """Where a coroutine is that shares its event loop with others: what it awaits or, if it keeps
    the loop now, where its thread is.

    Args:
        thread: the loop's.
        coroutine: which one.
    """
    with _uncollected():
        calls = _awaited(coroutine)
    if not calls:
        return stack_of(thread)
    found = [call for call in calls if not _is_own(call)]
    return Seen(formatted(TaskStack(found, [], hidden=not found)))


def look_at(thread: threading.Thread | None, coroutine: object = None) -> TaskStack:
    """The same, before it is text."""
    if thread is None or thread.ident is None or has_ghosts():
        return TaskStack([], [])
    if _has_gil():
        with _uncollected():
            return shown(_calls_of(thread.ident), _awaited(coroutine))
    return shown(calls_while_all_stand_still(thread.ident) if _can_stop_all else [], [])


def formatted(stack: TaskStack) -> str:
    """As in a traceback."""
    if stack.hidden:
        return _NOTHING
    text = _as_text(stack.calls)
    return (
        f"{text}Meanwhile its event loop runs:\n{_as_text(stack.beside)}" if stack.beside else text
    )


def _as_text(calls: list[Call]) -> str:
    for file in {file for file, _, _ in calls}:
        linecache.checkcache(file)
    # Code that was compiled from a template may have any name; and the look-up of lines fails for
    # one that cannot be encoded.
    stack = traceback.StackSummary.from_list(
        traceback.FrameSummary(printable(file), line, printable(name), lookup_line=False)
        for file, line, name in calls
    )
    return "".join(stack.format())


# -- what is there -----------------------------------------------------------------------------


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Have no garbage collected, where a look at a frame would start that."""
    enabled = _may_collect and gc.isenabled()
    try:
        if enabled:
            gc.disable()
        yield
    finally:
        if enabled:
            gc.enable()


def _calls_of(ident: int) -> list[Call]:
    frame = sys._current_frames().get(ident)
    calls = [] if frame is None else [_call(one) for one, _ in traceback.walk_stack(frame)]
    return calls[::-1]


def _call(frame: types.FrameType) -> Call:
    code = frame.f_code
    linecache.lazycache(code.co_filename, frame.f_globals)
    return code.co_filename, frame.f_lineno or code.co_firstlineno, code.co_name


def calls_while_all_stand_still(ident: int) -> list[Call]:
    """The calls of a thread, as CPython dumps them: at most the innermost hundred."""
    import tempfile  # noqa: PLC0415 - see above

    try:
        import faulthandler  # noqa: PLC0415 - the same

        with tempfile.TemporaryFile() as file:
            faulthandler.dump_traceback(file, all_threads=True)
            file.seek(0)
            dump = file.read().decode("ascii", "replace")
    except (ImportError, OSError):  # no descriptor, no room: a report without stacks is still one
        return []
    return calls_in(dump, ident)


def read_dump(dump: str, ident: int) -> TaskStack:
    """What users see of a thread, by a dump of ``faulthandler``."""
    return shown(calls_in(dump, ident), [])


def calls_in(dump: str, ident: int) -> list[Call]:
    """The calls under way in a thread, by such a dump; the outermost first."""
    return [*_read(dump, ident)][::-1]


def _read(dump: str, ident: int) -> Iterator[Call]:
    wanted = False
    for line in dump.splitlines():
        if (thread := _THREAD.match(line)) is not None:
            wanted = int(thread[1], 16) == ident
        elif wanted and (call := _FRAME.fullmatch(line)) is not None:
            yield call[1], int(call[2]), call[3]


# -- what a coroutine awaits -------------------------------------------------------------------

_MOST_AWAITED = 200  # a circle is possible: two tasks that await each other

# The attributes with the frame, with what is awaited, and with whether it runs now (the last type
# says so also while it waits). Exact types only: the attributes of others may be users' code.
_SUSPENDABLE: dict[type, tuple[str, str, str]] = {
    types.CoroutineType: ("cr_frame", "cr_await", "cr_running"),
    types.GeneratorType: ("gi_frame", "gi_yieldfrom", "gi_running"),
    types.AsyncGeneratorType: ("ag_frame", "ag_await", ""),
}
# Types that cannot be imported; their objects stand between a coroutine and what it awaits.
_BETWEEN = {"coroutine_wrapper", "async_generator_asend", "async_generator_athrow", "FutureIter"}


def _awaited(coroutine: object) -> list[Call]:
    """The calls of a coroutine that waits, the outermost first; empty if it runs now."""
    calls: list[Call] = []
    at: Any = coroutine
    for _ in range(_MOST_AWAITED):
        at = _coroutine_in(at)
        if at is None or _is_running(at):
            break
        frame, awaits, _ = _SUSPENDABLE[type(at)]
        if (found := getattr(at, frame)) is None:
            break
        calls.append(_call(found))
        at = getattr(at, awaits)
    return calls


def _is_running(coroutine: Any) -> bool:
    attribute = _SUSPENDABLE[type(coroutine)][2]
    return bool(attribute and getattr(coroutine, attribute))


def _coroutine_in(awaited: Any) -> Any:
    """What can be suspended, by way of what stands between; None for anything else."""
    for _ in range(3):
        if type(awaited) in _SUSPENDABLE:
            return awaited
        if _is_task(awaited):
            awaited = awaited.get_coro()
        elif type(awaited).__name__ in _BETWEEN:
            found = gc.get_referents(awaited)
            awaited = next((one for one in found if _leads_on(one)), None)
    return awaited if type(awaited) in _SUSPENDABLE else None


def _leads_on(one: object) -> bool:
    return type(one) in _SUSPENDABLE or _is_task(one)


def _is_task(one: object) -> bool:
    asyncio: Any = sys.modules.get("asyncio")  # nobody waits in it who has not imported it
    return asyncio is not None and type(one) is asyncio.Task


# -- what is shown -----------------------------------------------------------------------------

_LIBRARY = os.path.dirname(os.path.dirname(_call.__code__.co_filename)) + os.sep  # noqa: PTH120
_STANDARD = os.path.dirname(threading.Thread.run.__code__.co_filename) + os.sep  # noqa: PTH120
# They call the task's function, or wait for it.
_MACHINERY = tuple(
    _STANDARD + one
    for one in (
        "threading.py",
        "asyncio" + os.sep,
        "multiprocessing" + os.sep,
        "selectors.py",
        "contextlib.py",
    )
)
_PYKKA = f"{os.sep}pykka{os.sep}"


def _is_own(call: Call) -> bool:
    return call[0].startswith(_LIBRARY)


def _is_machinery(call: Call) -> bool:
    return call[0].startswith(_MACHINERY) or _PYKKA in call[0]


def shown(calls: list[Call], awaited: list[Call]) -> TaskStack:
    """What users see of a thread, and of the coroutine that waits there."""
    parts = [list(part) for own, part in itertools.groupby(calls, _is_own) if not own]
    if not any(map(_is_own, calls)):
        return TaskStack(calls, [])
    if not _is_own(calls[0]):
        del parts[0]  # how the thread came to be
    last = [] if _is_own(calls[-1]) or not parts else parts.pop()
    found = [call for part in parts for call in itertools.dropwhile(_is_machinery, part)]
    below = [*itertools.dropwhile(_is_machinery, last)]
    if awaits := [one for one in awaited if not _is_own(one)]:
        return TaskStack(found + awaits, below)
    found += below or last
    return TaskStack(found, [], hidden=not found)
