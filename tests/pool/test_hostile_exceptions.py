"""Exceptions whose classes refuse, raise or lie, in threads and in processes."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from ion_actors import Cancelled, PanicRecovery, Pool, RemoteError, TaskPanicked, TaskQuarantined
from ion_actors.raised import in_a_line, message_of, repr_of

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
