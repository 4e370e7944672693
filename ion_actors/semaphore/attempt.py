"""One acquisition that has to wait, with its logs, metrics and spans."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ion_actors.context import Context, Terms, await_turn, wait_turn
from ion_actors.errors import AcquireTimeout, DeadlineExceeded

if TYPE_CHECKING:
    from ion_actors.observe import Log, Span
    from ion_actors.semaphore.hooks import SemaphoreHooks
    from ion_actors.semaphore.permits import Permits

__all__ = ["Attempt", "SemaphoreCore"]


@dataclass(frozen=True, slots=True)
class SemaphoreCore:
    """The state that the parts of one semaphore share."""

    name: str
    permits: Permits
    log: Log
    hooks: SemaphoreHooks | None

    def late(self, permits: int, timeout: float) -> AcquireTimeout:
        """The error of an acquisition that was not served in time."""
        return AcquireTimeout(
            f"semaphore {self.name!r}: {permits} of {self.permits.capacity} permits could not be "
            f"acquired within {timeout:g} s; free: {self.permits.available}, in line: "
            f"{self.permits.waiting}",
            semaphore=self.name,
            permits=permits,
            timeout=timeout,
        )


class Attempt:
    """See the module.

    Args:
        core: of the semaphore.
        permits: how many are requested.
        timeout: seconds from now; None for any time.
        context: ends the wait when it ends; its clock is used.
    """

    def __init__(
        self, core: SemaphoreCore, permits: int, timeout: float | None, context: Context
    ) -> None:
        self._core = core
        self._n = permits
        self._timeout = timeout
        self._clock = context.clock
        self._began = self._clock.monotonic()
        self._context = context
        self._deadline = None if timeout is None else self._began + timeout
        self._granted = False
        self._span: Span | None = None

    def wait(self) -> None:
        """Block until it is served."""
        try:
            self._begin()
            wait_turn(self._core.permits, self._n, self._terms())
            self._granted = True
            self._succeeded()
        except BaseException as error:
            self._failed(error)
            raise

    async def await_(self) -> None:
        """:meth:`wait` for coroutines."""
        try:
            self._begin()
            await await_turn(self._core.permits, self._n, self._terms())
            self._granted = True
            self._succeeded()
        except BaseException as error:
            self._failed(error)
            raise

    def _terms(self) -> Terms:
        return Terms(self._context, self._clock, self._deadline, self._late)

    def _late(self) -> AcquireTimeout:
        assert self._timeout is not None
        return self._core.late(self._n, self._timeout)

    def _begin(self) -> None:
        core = self._core
        core.log(
            logging.DEBUG,
            "semaphore %r: a caller waits for %d permits, %d are free",
            core.name, self._n, core.permits.available,
            permits=self._n,
        )  # fmt: skip
        if core.hooks is not None:
            self._span = core.hooks.span(self._n)
            core.hooks.waiting(more=1)

    def _succeeded(self) -> None:
        hooks = self._core.hooks
        if hooks is not None:
            hooks.waiting()
            hooks.acquired(self._clock.monotonic() - self._began)
            hooks.finish(self._span, None)

    def _failed(self, error: BaseException) -> None:
        core = self._core
        if self._granted:  # interrupted since: the caller will not learn that it has them
            core.permits.give_back(self._n)
        core.log(
            logging.DEBUG,
            "semaphore %r: a wait for %d permits ended without any: %s",
            core.name, self._n, error,
            permits=self._n,
        )  # fmt: skip
        if core.hooks is not None:
            core.hooks.waiting()
            core.hooks.failed("timeout" if isinstance(error, DeadlineExceeded) else "cancelled")
            core.hooks.finish(self._span, error)
