"""A call that is under way, and how it ended."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

from ion_actors._arguments import seconds
from ion_actors.adaptive.algorithms import Sample
from ion_actors.adaptive.learner import Learner
from ion_actors.adaptive.overload import retry_after_of
from ion_actors.delivery import run_elsewhere

__all__ = ["CallBlock", "Permit"]


class Permit:
    """One call that may be under way. Say once how it ended, by one of the three methods.

    Any thread may do so. A permit that is dropped before ends as by :meth:`ignore`.
    """

    __slots__ = ("__weakref__", "_began", "_end_of", "_learner")

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._began = 0.0
        # Whoever sets the key first ends it: one atomic step, which an interruption cannot hide.
        self._end_of: dict[str, object] = {"call": None}

    def begin(self) -> None:
        """The call begins; its permit was taken. Called by the limit."""
        self._began = self._learner.clock.monotonic()
        self._end_of = {}

    @property
    def ended(self) -> bool:
        """Whether it was said how the call ended."""
        return "call" in self._end_of

    def success(self) -> None:
        """The call succeeded.

        Raises:
            RuntimeError: it was said before how it ended.
        """
        self._end("success", None)

    def overloaded(self, retry_after: float | None = None) -> None:
        """The call was refused, because there was too much for the other side.

        Args:
            retry_after: seconds for which no call may begin, as the other side has asked for.

        Raises:
            RuntimeError: it was said before how it ended.
            TypeError, ValueError: ``retry_after`` is no number of seconds.
        """
        self._end("overloaded", seconds("retry_after", retry_after))

    def ignore(self) -> None:
        """The call ended in a way that says nothing about the load.

        Raises:
            RuntimeError: it was said before how it ended.
        """
        self._end("ignored", None)

    def _end(self, status: str, retry_after: float | None) -> None:
        self._learner.ended(status, self._give_back(status, retry_after))

    def _give_back(self, status: str, retry_after: float | None) -> float:
        """Give it back, and have the limit learn from it. Returns the call's seconds."""
        learner, me = self._learner, object()
        receipt: list[bool] = []
        try:
            if self._end_of.setdefault("call", me) is not me:
                raise RuntimeError("it was already said how this call ended")
            ended, in_flight = learner.clock.monotonic(), learner.in_flight
            learner.permits.give_back(1, receipt)
        except BaseException:  # Ctrl-C, perhaps before it was given back: nobody does so again
            if self._end_of.get("call") is me and not receipt:
                learner.permits.give_back(1)
            raise
        if status == "ignored":
            learner.ignored()
        else:
            sample = Sample(self._began, ended, in_flight, status == "overloaded")
            learner.learn(sample, retry_after)
        return ended - self._began

    def __del__(self) -> None:
        # An interruption in __init__ leaves nothing here.
        if "call" not in getattr(self, "_end_of", "call"):
            latency = self._give_back("ignored", None)
            if self._learner.has_hooks:  # they may block, and this may be any thread
                run_elsewhere(functools.partial(self._learner.ended, "ignored", latency))

    def __repr__(self) -> str:
        return f"<Permit of {self._learner.name!r}, {'ended' if self.ended else 'in flight'}>"


class CallBlock:
    """A block that is one call: see :meth:`AdaptiveLimit.hold`. It is entered once.

    Left normally the call has succeeded; left by an exception it was refused, if that is an
    overload, and is ignored otherwise. If the block itself has ended its permit, that holds.
    """

    __slots__ = ("_acquire", "_aacquire", "_judge", "_permit")  # noqa: RUF023  # as in __init__

    def __init__(
        self,
        acquire: Callable[[], Permit],
        aacquire: Callable[[], Awaitable[Permit]],
        judge: Callable[[BaseException], bool],
    ) -> None:
        self._acquire = acquire
        self._aacquire = aacquire
        self._judge = judge
        self._permit: Permit | None = None

    def __enter__(self) -> Permit:
        self._permit = self._acquire()
        return self._permit

    async def __aenter__(self) -> Permit:
        self._permit = permit = await self._aacquire()
        return permit

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        permit, self._permit = self._permit, None
        if permit is None or permit.ended:
            return
        if exc is None:
            permit.success()
        elif self._judge(exc):
            permit.overloaded(retry_after_of(exc))
        else:
            permit.ignore()

    async def __aexit__(self, *error: Any) -> None:
        self.__exit__(*error)
