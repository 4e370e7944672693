"""A task as its ``task_wrapper`` is given it: called without arguments, and run to its end.

The wrapper is called in the worker, wherever the task itself runs. What it is given runs a
coroutine to its end as well, so any wrapper covers all that the task does, whether it knows of
coroutines or not.
"""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from ion_actors.awaitables import PLAIN_TYPES, is_coroutine, running_loop

if TYPE_CHECKING:
    from ion_actors.backends.protocol import Runner
    from ion_actors.workerpool.mailbox.task import TaskFuture
    from ion_actors.workerpool.spec import TaskWrapper

__all__ = ["call_wrapped"]


def call_wrapped(wrapper: TaskWrapper, runner: Runner, task: TaskFuture[Any]) -> Any:
    """Call a task in its wrapper, with the task's variables."""
    try:
        if not runner.inline:
            return task.variables.run(_wrap, wrapper, functools.partial(runner.call, task))
        call = _Call(task.fn, *task.args, **(task.kwargs or {}))
        call.task, call.runner = task, runner
        try:
            return task.variables.run(_wrap, wrapper, call)
        finally:
            call.task = None  # the traceback of an error holds the wrapper, which holds the call
    finally:
        del task


def _wrap(wrapper: TaskWrapper, call: Callable[[], Any]) -> Any:
    return wrapper(call)()


_call_partial = functools.partial.__call__


class _Call(functools.partial[Any]):
    """The call of a task in the worker's own thread.

    A partial, so that wrappers can see which function it calls.
    """

    __slots__ = ("runner", "task")  # wrappers copy what is in its ``__dict__``

    task: TaskFuture[Any] | None
    runner: Runner

    @override
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        value = _call_partial(self, *args, **kwargs)
        if type(value) in PLAIN_TYPES or not is_coroutine(value):
            return value
        if self.task is None or running_loop() is not None:
            return value  # the wrapper is a coroutine, too, and awaits it
        # The task's variables are in use, and cannot be entered again: so a copy is.
        variables = contextvars.copy_context()
        try:
            return self.runner.finish(value, self.task.task_context(), variables)
        finally:
            _take_over(variables)


def _take_over(variables: contextvars.Context) -> None:
    """Set what a coroutine has set, as if it had been a plain call."""
    here = contextvars.copy_context()
    for variable, value in variables.items():
        if here.get(variable, _UNSET) is not value:
            variable.set(value)


_UNSET = object()
