"""Contexts: cancellation and deadlines.

A :class:`Context` is a node of a tree. It ends once, by :meth:`Context.cancel`, by its deadline, or
because a parent ended; code that runs under it finds out by asking (:attr:`Context.cancelled`,
:meth:`Context.check`), by waiting (:meth:`Context.sleep`, :meth:`Context.wait`), or by a callback.
The semantics are those of Go's ``context`` package; the interface resembles trio's cancel scopes.

From the top down, each importing only from below::

    turns    waiting in a line, for threads and coroutines
    scope    the public Context
    current  which context is current, and the with blocks that set it
    waiters  waiting for the end of a context, in a thread or on an event loop
    tree     how contexts end, and how their callbacks and children are told
"""

from ion_actors.context.current import CURRENT, enter_task, running_task
from ion_actors.context.scope import (
    Context,
    Helper,
    background,
    current_context,
    helper_here,
    make_current,
    of_thread,
)
from ion_actors.context.tree import Registration, Waker
from ion_actors.context.turns import Line, Terms, Turn, await_turn, wait_turn
from ion_actors.context.waiters import Signal, call_in_loop, forget_done_callback

__all__ = [
    "CURRENT",
    "Context",
    "Helper",
    "Line",
    "Registration",
    "Signal",
    "Terms",
    "Turn",
    "Waker",
    "await_turn",
    "background",
    "call_in_loop",
    "current_context",
    "enter_task",
    "forget_done_callback",
    "helper_here",
    "make_current",
    "of_thread",
    "running_task",
    "wait_turn",
]
