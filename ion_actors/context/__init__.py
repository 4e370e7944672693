"""Contexts: who still wants this work, and until when.

A :class:`Context` is a node of a tree. It ends once, by :meth:`Context.cancel`, by its deadline, or
because a parent ended; what runs under it learns of that by asking (:attr:`Context.cancelled`,
:meth:`Context.check`), by waiting (:meth:`Context.sleep`, :meth:`Context.wait`), or by a callback.
The semantics are those of Go's ``context`` package, the feel is that of trio's cancel scopes.

From the top down, each importing only from below::

    turns    waiting in a line for one's turn, for a thread and for a coroutine
    scope    the context as its users have it
    current  which context is current, and the blocks that make it so
    waiting  what waits for the end of a context
    tree     how contexts end, and how the news of it travels
"""

from ion_actors.context.current import CURRENT
from ion_actors.context.scope import (
    Context,
    Helper,
    background,
    current_context,
    make_current,
    of_thread,
)
from ion_actors.context.tree import Registration, Waker
from ion_actors.context.turns import Line, Turn, await_turn, wait_turn
from ion_actors.context.waiting import Signal, call_in_loop, forget_done_callback

__all__ = [
    "CURRENT",
    "Context",
    "Helper",
    "Line",
    "Registration",
    "Signal",
    "Turn",
    "Waker",
    "await_turn",
    "background",
    "call_in_loop",
    "current_context",
    "forget_done_callback",
    "make_current",
    "of_thread",
    "wait_turn",
]
