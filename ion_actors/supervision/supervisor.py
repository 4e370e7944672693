"""The public supervisor of pools, actors and other supervisors."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Self

from ion_actors._arguments import seconds
from ion_actors.context import Context, background, current_context
from ion_actors.errors import ChildUnavailable
from ion_actors.logs import warn_in_finalizer
from ion_actors.naming import printable
from ion_actors.observe import Bus, Metrics, Probe, Subscription
from ion_actors.observe.living import SUPERVISORS
from ion_actors.supervision import exit_hooks
from ion_actors.supervision.actor import TreeActor
from ion_actors.supervision.child_table import Begin
from ion_actors.supervision.core import TreeCore
from ion_actors.supervision.events import LifecycleEvent
from ion_actors.supervision.report import ChildInfo, StopReport
from ion_actors.supervision.spec import ChildSpec, TreeSpec
from ion_actors.supervision.states import AutoShutdown, ChildState, Strategy, SupervisorState
from ion_actors.supervision.tree_text import draw
from ion_actors.workerpool.messages import Close, Drain
from ion_actors.workerpool.model.backoff import Backoff

__all__ = ["Supervisor"]

_HERE = (ChildState.RUNNING, ChildState.STOPPING)


class Supervisor:
    """Starts children in order, restarts those that fail, and stops them in reverse order.

    Args:
        children: what :func:`child` returns, in the order of their start. A callable stands for
            ``child(callable)``.
        strategy: which children are restarted with one that has to be: ONE_FOR_ONE (only that
            child, the default), ONE_FOR_ALL (all children) or REST_FOR_ONE (that child and those
            after it), or the same as a string.
        max_restarts: how many restarts there may be within ``within`` seconds; None for any number.
            One more, and the supervisor stops all its children and fails; its parent then decides.
        within: the window in seconds for ``max_restarts``.
        backoff: the pauses between tries to restart a child that fails to start. By default there
            are none. Each try counts as a restart; after ``backoff.retries`` of them in a row the
            supervisor gives up, too.
        auto_shutdown: whether the supervisor ends by itself, without having failed, when
            significant children have ended for good: NEVER (the default), ANY_SIGNIFICANT or
            ALL_SIGNIFICANT, or the same as a string.
        name: for threads, errors, logs and metrics; by default ``supervisor-1``, …
        context: when it ends, the supervisor closes. By default none does. Its clock tells the
            time.
        logger: gets what happens, with the facts in ``extra``; by default the logger
            ``ion_actors.supervision``.
        metrics: gets the counter ``ion_supervision_events_total`` (labels ``supervisor``,
            ``child``, ``event``): see :mod:`ion_actors.observe`.

    Raises:
        TypeError, ValueError: an argument makes no sense; the message names it.

    As a ``with`` block it starts, and drains when the block is left normally, or closes when it is
    left by an exception. If it gave up meanwhile, leaving the block normally raises that
    ``SupervisorFailed``. As an ``async with`` block it does the same without blocking the loop.
    """

    def __init__(
        self,
        children: Iterable[ChildSpec | Callable[..., Any]],
        *,
        strategy: Strategy | str = Strategy.ONE_FOR_ONE,
        max_restarts: int | None = 1,
        within: float = 5.0,
        backoff: Backoff | None = None,
        auto_shutdown: AutoShutdown | str = AutoShutdown.NEVER,
        name: str | None = None,
        context: Context | None = None,
        logger: logging.Logger | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        spec = TreeSpec.checked(
            children, strategy, max_restarts, within, backoff, auto_shutdown,
            name, context, logger, metrics,
        )  # fmt: skip
        self._core = TreeCore(spec, Bus(f"{spec.name}-events"), _launch)
        if spec.probe is not None:
            self._core.bus.add(functools.partial(_count, spec.probe, spec.name))

    # -- the beginning ---------------------------------------------------------------------

    def start(self) -> Self:
        """Start all children in order, each when the one before it has started.

        A pool has started as soon as it takes tasks, an actor when its ``on_start`` has run, a
        supervisor when all its children have started.

        Returns:
            The supervisor itself.

        Raises:
            ChildStartFailed: a child did not start. Those before it have been stopped.
            Cancelled, DeadlineExceeded: the current context has ended. So has the supervisor.
            RuntimeError: it was started before.
            SupervisorForked: this process is a fork of the supervisor's process.
        """
        _launch(self._core)
        try:
            current_context().wait(self._core.begun)
        except BaseException:  # also Ctrl-C: the caller would not learn that it has started
            self.close()
            raise
        self._core.check_start()
        return self

    async def astart(self) -> Self:
        """:meth:`start` for coroutines."""
        _launch(self._core)
        try:
            await current_context().await_(self._core.begun)
        except asyncio.CancelledError:
            self._core.tell(Close(None))
            raise
        except BaseException:
            await self.aclose()
            raise
        self._core.check_start()
        return self

    # -- the end ---------------------------------------------------------------------------

    def drain(self, timeout: float | None = None) -> StopReport:
        """Stop all children in the reverse order of their start, and end.

        Pools are drained: they finish the tasks that they have accepted. Each child has its
        ``shutdown`` seconds; one that does not stop in time is abandoned, which is logged and
        reported.

        Args:
            timeout: an additional limit in seconds for all of them together; by default none.

        Returns:
            The report; if the supervisor has ended already, that of its end.

        Raises:
            SupervisorForked: this process is a fork of the supervisor's process.

        Any thread may call this, any number of times; all wait for the same end. Called by one of
        the children, it cannot wait: the stop begins, and the report is empty.
        """
        return self._end(Drain(seconds("timeout", timeout)))

    def close(self, timeout: float | None = None) -> StopReport:
        """As :meth:`drain`, but pools are closed: tasks that have not begun are cancelled."""
        return self._end(Close(seconds("timeout", timeout)))

    async def adrain(self, timeout: float | None = None) -> StopReport:
        """:meth:`drain` for coroutines."""
        return await self._aend(Drain(seconds("timeout", timeout)))

    async def aclose(self, timeout: float | None = None) -> StopReport:
        """:meth:`close` for coroutines."""
        return await self._aend(Close(seconds("timeout", timeout)))

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the supervisor has ended, for whatever reason.

        Args:
            timeout: seconds to wait at most.

        Returns:
            True if it has ended without having failed, False if the timeout passed first.

        Raises:
            SupervisorFailed, ChildStartFailed: it failed.
            Cancelled, DeadlineExceeded: the current context has ended. The supervisor goes on.
        """
        self._core.check_fork()
        return self._outcome(current_context().wait(self._core.ended, timeout))

    async def await_(self, timeout: float | None = None) -> bool:
        """:meth:`wait` for coroutines."""
        self._core.check_fork()
        return self._outcome(await current_context().await_(self._core.ended, timeout))

    def _outcome(self, ended: bool) -> bool:
        if ended and self._core.failure is not None:
            raise self._core.failure
        return ended

    def _ask_for_end(self, message: Drain | Close) -> bool:
        """Request the end. Returns whether the caller can wait for it."""
        core = self._core
        core.check_fork()
        core.never_begun()
        core.tell(message)
        return not core.owns_thread()

    def _end(self, message: Drain | Close) -> StopReport:
        if not self._ask_for_end(message):
            return StopReport((), None, 0.0)
        # Not under the current context: the end has deadlines of its own, and is most needed when
        # everything else has ended.
        background().wait(self._core.ended)
        self._core.join()
        return self._core.ended.result()

    async def _aend(self, message: Drain | Close) -> StopReport:
        if not self._ask_for_end(message):
            return StopReport((), None, 0.0)
        await background().await_(self._core.ended)
        await self._core.ajoin()
        return self._core.ended.result()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        if exc_type is not None:
            self.close()
            return
        try:
            self.drain()
        except Exception:
            raise
        except BaseException:  # Ctrl-C while it drains
            self.close()
            raise
        self._outcome(True)

    async def __aenter__(self) -> Self:
        return await self.astart()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        if exc_type is not None:
            await self.aclose()
            return
        try:
            await self.adrain()
        except asyncio.CancelledError:
            self._core.tell(Close(None))
            raise
        self._outcome(True)

    # -- the children ----------------------------------------------------------------------

    def __getitem__(self, child: str) -> Any:
        """The current ``Pool``, ``pykka.ActorRef`` or ``Supervisor`` of that id.

        Do not keep it: after a restart it is another one.

        Raises:
            KeyError: there is no such child.
            ChildUnavailable: it is not running now.
            SupervisorForked: this process is a fork of the supervisor's process.
        """
        self._core.check_fork()
        info = next((one for one in self._core.infos if one.id == child), None)
        if info is None and child not in [spec.id for spec in self._core.spec.children]:
            raise KeyError(child)
        if info is not None and info.child is not None and info.state in _HERE:
            return info.child
        ended = self._core.state is not SupervisorState.NEW
        state = ChildState.WAITING if not ended else ChildState.ENDED
        raise self._unavailable(child, state if info is None else info.state)

    def _unavailable(self, child: str, state: ChildState) -> ChildUnavailable:
        name = self.name
        return ChildUnavailable(
            f"child {child!r} of supervisor {name!r} is not running, it is {state.value}",
            supervisor=name, child=child, state=state,
        )  # fmt: skip

    def __iter__(self) -> Iterator[str]:
        """The ids of the children, in the order of their start."""
        return iter([info.id for info in self._core.infos])

    def which_children(self) -> tuple[ChildInfo, ...]:
        """The current children, in the order of their start.

        A temporary child that has ended is forgotten, as in OTP.
        """
        return self._core.infos

    def subscribe(self, callback: Callable[[LifecycleEvent], object]) -> Subscription:
        """Call ``callback(event)`` for each event of the children, also of those further down.

        It is called on a thread of its own, one event at a time, in their order. What it raises is
        logged. ``remove()`` of the returned subscription cancels it.

        Raises:
            TypeError: it is not callable.
        """
        return self._core.bus.add(callback)

    # -- facts -----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The supervisor's name."""
        return self._core.spec.name

    @property
    def state(self) -> SupervisorState:
        """NEW, STARTING, RUNNING, STOPPING or STOPPED."""
        return self._core.state

    @property
    def failure(self) -> BaseException | None:
        """The reason for its end, if it was not requested; else None."""
        return self._core.failure

    def __str__(self) -> str:
        """The tree, one line for each child."""
        return draw(self._core)

    def __repr__(self) -> str:
        return f"<Supervisor {self.name!r} {self.state.value}, children={len(self._core.infos)}>"

    def __del__(self) -> None:
        core: TreeCore | None = getattr(self, "_core", None)
        if core is None or core.inbox is None or core.state is SupervisorState.STOPPED:
            return
        # First the message, which cannot fail: a warning may be turned into an error.
        asked = core.state is SupervisorState.STOPPING
        core.tell(Drain(None))
        if not asked:
            warn_in_finalizer(
                f"supervisor {core.spec.name!r} was never stopped; use it as a with block, or call "
                "drain() or close()",
                ResourceWarning,
                source=self,
            )


def _launch(core: TreeCore) -> None:
    core.check_fork()
    if exit_hooks.is_exiting():
        raise RuntimeError("cannot start a supervisor at interpreter exit")
    ours = False
    try:
        with core.launch:
            if core.state is not SupervisorState.NEW:
                raise RuntimeError(f"supervisor {core.spec.name!r} can be started only once")
            ours = True
            core.state = SupervisorState.STARTING
            TreeActor.start(core)
        exit_hooks.register(core)
        SUPERVISORS.add(core)
        core.tell(Begin())
        core.spec.context.add_callback(lambda: core.tell(Close(None)))
    except BaseException:  # Ctrl-C, or there was no thread: nobody else would end it
        if ours:
            core.call_off()
        raise


def _count(probe: Probe, name: str, event: LifecycleEvent) -> None:
    child = printable("/".join(event.path[1:])) or name
    probe.inc("ion_supervision_events_total", child=child, event=event.kind.value)
