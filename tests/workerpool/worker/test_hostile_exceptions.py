"""Exceptions whose classes refuse, raise or lie, in threads and in processes."""

from __future__ import annotations

import dataclasses
import functools
import logging
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

import pykka
import pytest

from ion_actors import (
    BrokenPool,
    Cancelled,
    Context,
    Future,
    PanicRecovery,
    Pool,
    RemoteError,
    TaskPanicked,
    TaskQuarantined,
    current_context,
)
from ion_actors.errors import ChildStartFailed
from ion_actors.logs import flush
from ion_actors.raised import in_a_line, message_of, repr_of, traceback_of
from ion_actors.supervision import Supervisor, child

PATIENCE = 30.0


def _refuse(*_: Any) -> NoReturn:
    raise RuntimeError("hostile")


refuse: Any = _refuse


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenSlots(Exception):
    code: int


class Slots(Exception):
    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        self.code = code


class RaisingGetattr(Exception):
    def __getattr__(self, name: str) -> NoReturn:
        raise RuntimeError(name)


class AnswersAll(Exception):
    def __getattr__(self, name: str) -> Any:
        return self


class AnswersNone(Exception):
    def __getattr__(self, name: str) -> None:
        return None


class RaisingStr(Exception):
    __str__ = refuse


class RaisingRepr(Exception):
    __str__ = __repr__ = refuse


class RaisingEq(Exception):
    __eq__ = refuse
    __hash__ = None  # type: ignore[assignment]


class RaisingReduce(Exception):
    __reduce__ = __reduce_ex__ = refuse


class RaisingSetattr(Exception):
    __setattr__ = refuse


class RaisingGetattribute(Exception):
    __getattribute__ = refuse


class RaisingClass(Exception):
    __class__ = property(refuse)  # type: ignore[assignment]


class LyingClass(Exception):
    __class__ = Cancelled  # type: ignore[assignment]


class RaisingBool(Exception):
    __bool__ = __len__ = refuse


KINDS = [
    Frozen, FrozenSlots, Slots, RaisingGetattr, AnswersAll, AnswersNone, RaisingStr, RaisingRepr,
    RaisingEq, RaisingReduce, RaisingSetattr, RaisingGetattribute, RaisingClass, LyingClass,
    RaisingBool,
]  # fmt: skip


def fail(kind: Any) -> NoReturn:
    raise kind(404)


async def fail_in_coroutine(kind: Any) -> NoReturn:
    raise kind(404)


def fail_at_three(kind: Any, number: int) -> int:
    return number if number < 3 else fail(kind)


def expected(kind: type, backend: str) -> type:
    return RemoteError if kind is RaisingReduce and backend == "process" else kind


def raised_by(call: Callable[[], object]) -> BaseException | None:
    """(``pytest.raises`` would show the exception, which may refuse that.)"""
    try:
        call()
    except BaseException as error:
        return error
    return None


@pytest.mark.parametrize("backend", ["thread", "process"])
@pytest.mark.parametrize("fn", [fail, fail_in_coroutine])
def test_they_come_out_as_what_they_are(backend: str, fn: Any) -> None:
    with Pool(1, backend=backend) as pool:
        for kind in KINDS:
            error: Any = pool.submit(fn, kind).exception(PATIENCE)
            assert type(error) is expected(kind, backend)
            if kind in (Frozen, FrozenSlots, Slots):
                assert error.code == 404
            else:
                assert message_of(error).endswith("404")
            again = raised_by(functools.partial(pool.submit(fn, kind).result, PATIENCE))
            assert type(again) is expected(kind, backend)
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8
        assert pool.metrics().restarts == 0


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_results_before_them_are_not_lost(backend: str) -> None:
    with Pool(1, backend=backend) as pool:
        for kind in KINDS:
            found: list[int] = []
            results = pool.map(fail_at_three, [kind] * 6, range(6), chunksize=6)
            error = raised_by(functools.partial(found.extend, results))
            assert found == [0, 1, 2]
            assert type(error) is expected(kind, backend)


class Panic(BaseException):
    pass


def panic_at_three(n: int) -> int:
    if n == 3:
        raise Panic("three")
    return n


async def panic_later_at_three(n: int) -> int:
    return panic_at_three(n)


def exit_at_three(n: int) -> int:
    if n == 3:
        raise SystemExit(3)
    return n


@pytest.mark.parametrize("backend", ["thread", "process"])
@pytest.mark.parametrize("fn", [panic_at_three, panic_later_at_three, exit_at_three])
def test_results_before_a_panic_are_not_lost(
    backend: str, fn: Callable[[int], Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL + 1)  # the lost worker is meant to be lost
    with Pool(1, backend=backend) as pool:
        found: list[int] = []
        results = pool.map(fn, range(6), chunksize=6)
        error = raised_by(functools.partial(found.extend, results))
        assert found == [0, 1, 2]
        assert type(error) is TaskPanicked
        assert type(error.__cause__) in (Panic, SystemExit)
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_they_are_panics_that_can_be_shown(backend: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1)  # to show them is the handlers' affair
    recovery = PanicRecovery(is_panic=lambda _: True, max_restarts=1000)
    with Pool(1, backend=backend, panic_recovery=recovery) as pool:
        for kind in KINDS:
            error = pool.submit(fail, kind).exception(PATIENCE)
            assert type(error) is TaskPanicked
            assert expected(kind, backend).__name__ in str(error)
            again = pool.options(retry_on_worker_death=1).submit(fail, kind)
            assert type(again.exception(PATIENCE)) in (TaskPanicked, TaskQuarantined)


def test_what_they_say_is_found_another_way() -> None:
    class Empty(RaisingRepr):
        pass

    assert in_a_line(RaisingStr("why", 7)) == "RaisingStr: ('why', 7)"
    assert in_a_line(RaisingStr(RaisingStr("deep"))) == "RaisingStr: <RaisingStr>"
    assert repr_of(RaisingRepr("why")) == "<RaisingRepr: why>"
    assert repr_of(Empty()) == "<Empty>"
    assert repr_of(ValueError("two\nlines")) == "ValueError('two\\nlines')"


# -- outside of tasks --------------------------------------------------------------------------


def caught(kind: Any) -> BaseException:
    found = raised_by(functools.partial(fail, kind))
    assert found is not None
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_future_takes_them(kind: type[Exception]) -> None:
    error = caught(kind)
    for given in (error, (type(error), error, traceback_of(error))):
        future = Future[None]()
        future.set_exception(given)
        assert future.exception() is error


@pytest.mark.parametrize("kind", KINDS)
def test_a_callback_that_raises_one_keeps_nobody_from_being_called(
    kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL + 1)  # to show them is the handlers' affair
    called: list[str] = []
    future, context = Future[None](), Context()
    future.add_done_callback(lambda _: fail(kind))
    future.add_done_callback(lambda _: called.append("of the future"))
    context.add_callback(lambda: fail(kind))
    context.add_callback(lambda: called.append("of the context"))
    future.set(None)
    context.cancel()
    assert called == ["of the future", "of the context"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_with_state_and_a_supervised_actor_answer_with_them(
    kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL + 1)
    with Pool(1, worker=Answering) as pool:
        answer = pool.ask(kind)
        assert type(answer.exception(PATIENCE)) is kind
        assert pool.ask(None).result(PATIENCE) == "well"
        assert pool.metrics().restarts == 0
    with Supervisor([child(Answering, id="actor")], max_restarts=None) as tree:
        actor = tree["actor"]
        answer = raised_by(lambda: actor.ask(kind, timeout=PATIENCE))
        # pykka's future asks it for its ``with_traceback``
        assert type(answer) is (RuntimeError if kind is RaisingGetattribute else kind)
        assert actor.ask(None, timeout=PATIENCE) == "well"


class Answering(pykka.ThreadingActor):
    def on_receive(self, message: Any) -> str:
        return "well" if message is None else fail(message)


class Watched(Exception):
    """Says on which threads its own code runs."""

    threads: ClassVar[set[str]] = set()

    def __getattribute__(self, name: str) -> Any:
        Watched.threads.add(threading.current_thread().name)
        return super().__getattribute__(name)

    def __repr__(self) -> str:
        Watched.threads.add(threading.current_thread().name)
        return "Watched()"

    __str__ = __repr__


def fail_when_stopped(begun: threading.Event) -> NoReturn:
    begun.set()
    current_context().wait(timeout=PATIENCE)
    raise Watched


def test_none_of_their_code_runs_on_a_supervisors_thread() -> None:
    Watched.threads.clear()
    with pytest.raises(BrokenPool), Pool(1, initializer=fail, initargs=(Watched,)) as pool:
        pool.submit(int).result(PATIENCE)
    with Pool(1, panic_recovery=PanicRecovery(is_panic=Watched)) as pool:
        assert type(pool.submit(fail, Watched).exception(PATIENCE)) is TaskPanicked
    pool, begun = Pool(1), threading.Event()
    pool.submit(fail_when_stopped, begun)
    assert begun.wait(PATIENCE)
    assert pool.close(PATIENCE).failed == 1
    with (
        pytest.raises(ChildStartFailed),
        Supervisor([child(functools.partial(fail, Watched), id="child")]),
    ):
        pass
    with Supervisor([child(Answering, id="actor")], max_restarts=None) as tree:
        restarted = threading.Event()
        tree.subscribe(lambda event: restarted.set() if event.restarts else None)
        tree["actor"].tell(Watched)
        assert restarted.wait(PATIENCE)
    assert flush(PATIENCE)
    assert Watched.threads
    assert not [name for name in Watched.threads if name.endswith("-supervisor")]


def want_too_much() -> None:
    bytearray(sys.maxsize)


@pytest.mark.parametrize("overflow", ["block", "caller_runs"])
def test_each_want_of_memory_has_its_own_error(overflow: Any) -> None:
    # CPython has 16 and, from 3.12 on, one for all others.
    with Pool(1, 1, overflow=overflow) as pool:
        errors = [pool.submit(want_too_much).exception(PATIENCE) for _ in range(60)]
    assert len({id(error) for error in errors}) == 60
    for error in errors:
        lines = traceback.extract_tb(error.__traceback__)
        assert [line.name for line in lines].count("want_too_much") == 1
