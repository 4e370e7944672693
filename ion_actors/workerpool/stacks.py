"""Where other threads are.

With the GIL, a thread that looks at the frames of another one keeps it from running meanwhile.
Without it, the frames change while they are read, and reading what is no longer there ends the
process: CPython's guide to free-threading warns of ``sys._current_frames``, and its issue 152355
shows why. What CPython does safely there is :func:`faulthandler.dump_traceback`, which stops all
other threads for that long (since 3.13.2, issue 128400). It only writes to a file.

Before CPython 3.12, a look at a frame may start the garbage collector, which runs Python code, and
so other threads, too. ``sys._current_frames`` holds a lock then that they need to begin and to end:
the process hangs (CPython's issue 106883). And a frame that ends before it has been looked at is
memory that is used after it was freed. So nothing is collected for that long.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import re
import sys
import threading
import traceback
from collections.abc import Iterator

from ion_actors.forking import has_ghosts
from ion_actors.naming import printable

__all__ = ["stack_of"]

# Asked each time: an extension that needs the GIL switches it on when it is imported.
_has_gil = getattr(sys, "_is_gil_enabled", lambda: True)

if not _has_gil():  # only then it is needed, and not to be imported by a thread that must not block
    import tempfile  # noqa: F401

_may_collect = sys.version_info < (3, 12)  # later, it waits for the end of the current instruction

_can_stop_all = sys.version_info >= (3, 13, 2)

_THREAD = re.compile(r"(?:Current thread|Thread) 0x([0-9a-f]+)")
_FRAME = re.compile(r'  File "(.*)", line (\d+) in (.*)')


def stack_of(thread: threading.Thread | None) -> str:
    """Where a thread is, as in a traceback; empty if it cannot be seen.

    It cannot if it has not begun or has ended; without the GIL nor if a hundred others have begun
    since, or before CPython 3.13.2. There, at most its innermost hundred calls are seen. Nor can it
    in a child that was forked past Python, which leaves the parent's threads in its list.
    """
    if thread is None or thread.ident is None or has_ghosts():
        return ""
    if _has_gil():
        with _uncollected():
            frame = sys._current_frames().get(thread.ident)
            if frame is None:
                return ""
            frames = list(traceback.walk_stack(frame))
        stack = traceback.StackSummary.extract(iter(frames), lookup_lines=False)
        stack.reverse()
        return _formatted(stack)
    return _stack_while_all_stand_still(thread.ident) if _can_stop_all else ""


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


def _stack_while_all_stand_still(ident: int) -> str:
    import tempfile  # noqa: PLC0415 - see above

    try:
        with tempfile.TemporaryFile() as file:
            faulthandler.dump_traceback(file, all_threads=True)
            file.seek(0)
            dump = file.read().decode("ascii", "replace")
    except OSError:  # no descriptor is left, or no room: a report without stacks is still one
        return ""
    calls = [*_calls(dump, ident)]
    return _formatted(traceback.StackSummary.from_list(calls[::-1]))


def _formatted(stack: traceback.StackSummary) -> str:
    # Code that was compiled from a template may have any name; and the look-up of lines fails for
    # one that cannot be encoded.
    for call in stack:
        call.filename, call.name = printable(call.filename), printable(call.name)
    return "".join(stack.format())


def _calls(dump: str, ident: int) -> Iterator[tuple[str, int, str, None]]:
    """The file, line and function of each call under way in that thread, the innermost first."""
    wanted = False
    for line in dump.splitlines():
        if (thread := _THREAD.match(line)) is not None:
            wanted = int(thread[1], 16) == ident
        elif wanted and (call := _FRAME.fullmatch(line)) is not None:
            yield call[1], int(call[2]), call[3], None
