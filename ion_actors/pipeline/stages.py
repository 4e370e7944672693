"""The stages of a pipeline: their checked arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ion_actors._arguments import boolean, optional, positive_seconds, whole_number
from ion_actors.naming import describe
from ion_actors.pipeline.calls import StageCall, Verb
from ion_actors.pipeline.flow import Shape, Work
from ion_actors.workerpool.submission.submitter import Submitter

__all__ = ["OnError", "Stage"]

#: What to do about an item that failed: "stop", "skip", or a function of the error and the item
#: that returns one of both.
OnError: TypeAlias = Literal["stop", "skip"] | Callable[[Exception, Any], Literal["stop", "skip"]]


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """One stage.

    Attributes:
        name: for notes and numbers.
        shape: what the flow has to know.
        func: the user's function; None of a batch.
        pool: where it is called; None: by the one who iterates.
        call: what the pool calls.
        on_error: what to do about an item that failed.
    """

    name: str
    shape: Shape
    func: Callable[[Any], Any] | None = None
    pool: Submitter | None = None
    call: StageCall | None = None
    on_error: OnError = "stop"

    @classmethod
    def checked(
        cls,
        verb: Verb,
        fn: Callable[[Any], Any],
        pool: Submitter | None,
        window: int | None,
        ordered: bool,
        on_error: OnError,
        name: str | None,
    ) -> Stage:
        """The stage for these arguments.

        Raises:
            TypeError, ValueError: one of them makes no sense.
        """
        if not callable(fn):
            raise TypeError(f"fn must be callable, not {fn!r}")
        optional("name", name, str)
        if not callable(on_error) and on_error not in ("stop", "skip"):
            raise ValueError(f'on_error must be "stop", "skip" or callable, not {on_error!r}')
        boolean("ordered", ordered)
        shown = describe(fn, name)
        if window is not None:
            whole_number("window", window, minimum=1)
        if pool is None and verb is Verb.FILTER:
            return cls(shown, Shape(Work.CALL), fn, on_error=on_error)
        if not isinstance(pool, Submitter):
            raise TypeError(f"pool must be a Pool or what its options() return, not {pool!r}")
        shape = Shape(Work.TASK, 2 * pool.size if window is None else window, ordered)
        return cls(shown, shape, fn, pool, StageCall(fn, verb, pool.clock), on_error)

    @classmethod
    def batch(cls, n: int, within: float | None) -> Stage:
        """A stage that gathers items.

        Raises:
            TypeError, ValueError: an argument makes no sense.
        """
        size = whole_number("n", n, minimum=1)
        return cls("batch", Shape(Work.BATCH, size, within=positive_seconds("within", within)))
