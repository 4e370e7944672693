"""The public pipeline: a source and the stages that its items go through."""

from __future__ import annotations

import contextlib
import inspect
import weakref
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
)
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypeVar, overload

from ion_actors.clock import Clock, system_clock
from ion_actors.context import current_context
from ion_actors.pipeline.calls import Verb
from ion_actors.pipeline.drivers import outputs, outputs_async
from ion_actors.pipeline.metrics import PipelineMetrics
from ion_actors.pipeline.run import Run
from ion_actors.pipeline.stages import OnError, Stage
from ion_actors.workerpool.submission.submitter import Submitter

if TYPE_CHECKING:
    from ion_actors.workerpool.progress.displays import MapProgress

__all__ = ["Pipeline"]

T = TypeVar("T")
R = TypeVar("R")

_NO_SOURCE: Any = object()

_Outputs: TypeAlias = Generator[Any, None, None] | AsyncGenerator[Any, None]


class Pipeline(Generic[T]):
    """Items from a source, through stages that are worked by pools, to the one who iterates.

    ::

        pages = Pipeline(urls).map(fetch, pool=threads).flat_map(parse, pool=processes)
        for row in pages:
            ...

    Each method that adds a stage returns a new pipeline and leaves this one as it is. Nothing is
    pulled from the source until the pipeline is iterated. Each ``for`` is a run of its own.

    Args:
        source: any iterable, or an asynchronous one for ``async for``; it may be endless. It is
            iterated by the one who iterates the pipeline, and a generator is closed when the run
            ends. Without one, these are stages for the :meth:`through` of another pipeline.

    Raises:
        TypeError: the source is not iterable.

    In flight are at most as many items as all windows together have places, and two more. All that
    is not a pool's work is done by the one who iterates, while it waits for the next output: there
    is no thread for a stage. A run ends with the current context. As a ``with`` block (or
    ``async with``) it closes when the block is left.
    """

    def __init__(self, source: Iterable[T] | AsyncIterable[T] = _NO_SOURCE) -> None:
        self._source: Any = source
        if source is not _NO_SOURCE and not _is_iterable(self._source):
            raise TypeError(f"source must be iterable, not {source!r}")
        self._stages: tuple[Stage, ...] = ()
        self._closed = False
        self._latest: Run | None = None
        self._runs: weakref.WeakKeyDictionary[_Outputs, Run] = weakref.WeakKeyDictionary()
        # Those of coroutines, so that they can be awaited: garbage is closed by the loop, later.
        self._kept: list[AsyncGenerator[Any, None]] = []

    def _with(self, *stages: Stage) -> Pipeline[Any]:
        longer: Pipeline[Any] = Pipeline(self._source)
        longer._stages = self._stages + stages
        longer._closed = self._closed
        return longer

    # -- stages ------------------------------------------------------------------------------

    @overload
    def map(
        self, fn: Callable[[T], Coroutine[Any, Any, R]], *, pool: Submitter,
        window: int | None = None, ordered: bool = True, on_error: OnError = "stop",
        name: str | None = None,
    ) -> Pipeline[R]: ...  # fmt: skip
    @overload
    def map(
        self, fn: Callable[[T], R], *, pool: Submitter, window: int | None = None,
        ordered: bool = True, on_error: OnError = "stop", name: str | None = None,
    ) -> Pipeline[R]: ...  # fmt: skip

    def map(
        self,
        fn: Callable[[T], Any],
        *,
        pool: Submitter,
        window: int | None = None,
        ordered: bool = True,
        on_error: OnError = "stop",
        name: str | None = None,
    ) -> Pipeline[Any]:
        """Have a pool call ``fn(item)`` for each item; what it returns goes on.

        Args:
            fn: a function, or a coroutine function.
            pool: where it is called: a pool, or what its ``options(...)`` return. Stages may share
                one. A full pool is waited for, whatever its overflow policy.
            window: how many items may be in the stage: queued, under way, or done and waiting to go
                on. By default two for each worker.
            ordered: whether the order is kept. Then one slow item holds up those behind it, as far
                as the window reaches.
            on_error: what to do if ``fn`` raises, or its worker panics. "stop": end the run, and
                raise the error, with a note of the stage and the item. "skip": count the item,
                report it to the pool's dead letters, and go on. A callable: it is called with the
                error and the item by the one who iterates, and returns one of both.
            name: for notes and numbers; by default the function's.

        Raises:
            TypeError, ValueError: an argument makes no sense.
        """
        return self._with(Stage.checked(Verb.MAP, fn, pool, window, ordered, on_error, name))

    @overload
    def flat_map(
        self, fn: Callable[[T], Coroutine[Any, Any, Iterable[R]]], *, pool: Submitter,
        window: int | None = None, ordered: bool = True, on_error: OnError = "stop",
        name: str | None = None,
    ) -> Pipeline[R]: ...  # fmt: skip
    @overload
    def flat_map(
        self, fn: Callable[[T], Iterable[R] | AsyncIterable[R]], *, pool: Submitter,
        window: int | None = None, ordered: bool = True, on_error: OnError = "stop",
        name: str | None = None,
    ) -> Pipeline[R]: ...  # fmt: skip

    def flat_map(
        self,
        fn: Callable[[T], Any],
        *,
        pool: Submitter,
        window: int | None = None,
        ordered: bool = True,
        on_error: OnError = "stop",
        name: str | None = None,
    ) -> Pipeline[Any]:
        """:meth:`map`, where ``fn`` returns or yields many items, which go on one by one.

        They are taken in the worker, and come back as a list. Until the last of them has gone on,
        they take one place of the window.
        """
        return self._with(Stage.checked(Verb.FLAT_MAP, fn, pool, window, ordered, on_error, name))

    def filter(
        self,
        fn: Callable[[T], object],
        pool: Submitter | None = None,
        *,
        window: int | None = None,
        ordered: bool = True,
        on_error: OnError = "stop",
        name: str | None = None,
    ) -> Pipeline[T]:
        """Only items for which ``fn(item)`` is true go on.

        Args:
            fn: a function. Without a pool, the one who iterates calls it.
            pool: where to call it.
            window: see :meth:`map`; without a pool it has no meaning.
            ordered: the same.
            on_error: see :meth:`map`.
            name: see :meth:`map`.

        Raises:
            TypeError, ValueError: an argument makes no sense.
        """
        return self._with(Stage.checked(Verb.FILTER, fn, pool, window, ordered, on_error, name))

    def batch(self, n: int, within: float | None = None) -> Pipeline[list[T]]:
        """Gather ``n`` items into a list; the last one may be shorter.

        The items that it gathers are its window.

        Args:
            n: how many.
            within: seconds after which a batch goes on that is not full, counted from its first
                item, if the next output is waited for then. By default it waits for all ``n``.

        Raises:
            TypeError, ValueError: an argument makes no sense.
        """
        return self._with(Stage.batch(n, within))

    def through(self, other: Pipeline[R] | Callable[[Self], Pipeline[R]]) -> Pipeline[R]:
        """Add the stages of a pipeline without a source, or whatever a function adds.

        Args:
            other: a ``Pipeline()``, or a function that is called with this pipeline and returns a
                longer one.

        Raises:
            TypeError: the other one has a source, or is no pipeline.
        """
        if not isinstance(other, Pipeline):
            given: Any = other
            longer = given(self) if callable(given) else given
            if not isinstance(longer, Pipeline):
                raise TypeError(f"through() needs a Pipeline, not {longer!r}")
            return longer
        if other._source is not _NO_SOURCE:
            raise TypeError("through() needs a pipeline without a source: Pipeline().map(...)")
        return self._with(*other._stages)

    # -- running -----------------------------------------------------------------------------

    def __iter__(self) -> Generator[T, None, None]:
        self._check()
        if not isinstance(self._source, Iterable) and isinstance(self._source, AsyncIterable):
            raise TypeError("the source is asynchronous: use async for, or arun()")
        run = Run(self._stages, self._clock())
        generator = outputs(run, self._source)
        self._runs[generator] = self._latest = run
        return generator

    def __aiter__(self) -> AsyncGenerator[T, None]:
        self._check()
        run = Run(self._stages, self._clock())
        generator = outputs_async(run, self._source)
        self._runs[generator] = self._latest = run
        self._kept = [one for one in self._kept if not self._runs[one].over]
        self._kept.append(generator)
        return generator

    def _check(self) -> None:
        if self._source is _NO_SOURCE:
            raise TypeError("a pipeline without a source cannot run; it is for through()")
        if self._closed:
            raise ValueError("the pipeline is closed")

    def _clock(self) -> Clock:
        """The clock of the current context or of a pool, if one of them is not the usual one."""
        pools = [stage.pool.clock for stage in self._stages if stage.pool is not None]
        clocks = [current_context().clock, *pools]
        return next((clock for clock in clocks if clock is not system_clock), system_clock)

    def run(self, *, progress: MapProgress = None) -> PipelineMetrics:
        """Run it to its end, without looking at what comes out.

        Args:
            progress: shows how many items have come out: see :meth:`Pool.map
                <ion_actors.Pool.map>`.

        Returns:
            The numbers, stage by stage.
        """
        with self._shown(progress) as show:
            for _ in self:
                show()
        return self.metrics()

    async def arun(self, *, progress: MapProgress = None) -> PipelineMetrics:
        """:meth:`run` for coroutines, and for asynchronous sources."""
        with self._shown(progress) as show:
            async for _ in self:
                show()
        return self.metrics()

    @contextlib.contextmanager
    def _shown(self, progress: MapProgress) -> Iterator[Callable[[], object]]:
        """Yields what is to be called for each output."""
        if progress is None or progress is False:
            yield bool  # it does nothing
            return
        from ion_actors.workerpool.progress import displays, tracker  # noqa: PLC0415 - seldom used

        total = displays.total_of([self._source]) if self._keeps_count() else None
        display = displays.checked_display(progress, total, "pipeline", self._clock())
        if display is None:
            yield bool
            return
        counter = tracker.Tracker(display)
        counter.begin()
        try:
            yield counter.step
        finally:
            counter.finish()

    def _keeps_count(self) -> bool:
        """Whether as many items come out as go in, if none is skipped."""
        return all(stage.call is not None and stage.call.keeps_count for stage in self._stages)

    def metrics(self) -> PipelineMetrics:
        """The numbers of the latest run: so far, or at its end. Any thread may ask."""
        run = self._latest
        return Run(self._stages, self._clock()).metrics() if run is None else run.metrics()

    # -- the end -----------------------------------------------------------------------------

    def close(self) -> None:
        """End all runs, and allow no more. Calling twice does no harm.

        Nothing more is pulled, what is in flight is cancelled, and the source is closed if it is a
        generator. Another thread that iterates comes to its end; so does a coroutine.
        """
        self._closed = True
        for generator, run in list(self._runs.items()):
            run.close()
            if isinstance(generator, Generator):
                _close(generator)

    async def aclose(self) -> None:
        """:meth:`close`, which also awaits the end of an asynchronous source."""
        self.close()
        kept, self._kept = self._kept, []
        for generator in kept:
            if not generator.ag_running:  # type: ignore[attr-defined]  # else it ends by itself
                await generator.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        names = " → ".join(stage.name for stage in self._stages)
        state = " closed" if self._closed else ""
        return f"<{type(self).__name__}{state}: {names or 'no stages'}>"


def _is_iterable(source: object) -> bool:
    kinds = (Iterable, AsyncIterable)
    return isinstance(source, kinds) or hasattr(type(source), "__getitem__")  # as iter() sees it


def _close(generator: Generator[Any, None, None]) -> None:
    try:
        generator.close()
    except ValueError:
        if inspect.getgeneratorstate(generator) != inspect.GEN_RUNNING:
            raise  # else whoever iterates it finds that it is closed
