"""``repr(future)`` names the task and its state, and nothing that the program gave it."""

from __future__ import annotations

import functools
import gc
import re
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from ion_actors import Pool, TaskDropped
from ion_actors.workerpool.mailbox.task import TaskFuture
from ion_actors.workerpool.model.metrics import Tally
from tests.workerpool.helpers import PATIENCE, Gate, busy

SECRET = "hunter2"


def resize(*_args: Any, **_kwargs: Any) -> str:
    return SECRET


def fail(*_args: Any, **_kwargs: Any) -> None:
    raise ValueError(SECRET)


class Loud:
    """Its code must not run."""

    def __repr__(self) -> str:
        raise AssertionError("the user's code ran")

    __str__ = __repr__

    def __call__(self, *_args: Any) -> Loud:
        return self

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError("the user's code ran")

    @property
    def __class__(self) -> type:
        raise AssertionError("the user's code ran")


def shown(future: object) -> str:
    return re.sub(r"0x[0-9a-f]+", "0x", repr(future))


def test_a_task_is_named_in_each_state() -> None:
    with Pool(1) as pool:
        gate = Gate()
        running = pool.submit(gate)
        gate.await_entered()
        try:
            queued, dropped = pool.submit(resize, SECRET), pool.submit(fail)
            assert shown(running) == "<TaskFuture 'Gate' at 0x state=running>"
            assert shown(queued) == "<TaskFuture 'resize' at 0x state=pending>"
            dropped.cancel()
            assert shown(dropped) == "<TaskFuture 'fail' at 0x state=cancelled>"
        finally:
            gate.open()
        queued.result(PATIENCE)
        failed = pool.submit(fail, SECRET)
        assert isinstance(failed.exception(PATIENCE), ValueError)
        assert shown(queued) == "<TaskFuture 'resize' at 0x state=finished returned str>"
        assert shown(failed) == "<TaskFuture 'fail' at 0x state=finished raised ValueError>"


@pytest.mark.parametrize("backend", ["thread", "process"])
@pytest.mark.parametrize("fn", [resize, fail])
def test_an_ended_task_keeps_the_name_it_was_given(backend: str, fn: Callable[..., Any]) -> None:
    with Pool(1, backend=backend) as pool:
        plain = pool.submit(functools.partial(fn, SECRET), key=SECRET)
        given = pool.options(name="two\nlines", timeout=PATIENCE).submit(fn, SECRET)
        for one in plain, given:
            one.exception(PATIENCE)
        assert f"<TaskFuture {fn.__name__!r} at" in repr(plain)
        assert r"<TaskFuture 'two\\nlines' at" in repr(given)
        assert SECRET not in repr(plain) + repr(given)


def test_one_that_is_dropped_with_its_pool_is_named() -> None:
    pool = Pool(1)
    with busy(pool):
        dropped = pool.submit(resize)
        closing = threading.Thread(target=pool.close)
        closing.start()
        with pytest.raises(TaskDropped):
            dropped.result(PATIENCE)
    closing.join(PATIENCE)
    assert "'resize'" in repr(dropped)


def test_no_code_of_the_user_runs() -> None:
    with Pool(1) as pool, busy(pool):
        future = pool.submit(Loud(), Loud())
        assert "<TaskFuture 'Loud' at" in repr(future)
    assert future.result(PATIENCE) is not None
    assert shown(future) == "<TaskFuture 'Loud' at 0x state=finished returned Loud>"


def test_a_call_may_be_dropped_twice_as_when_that_is_interrupted() -> None:
    with Pool(1) as pool:
        future = pool.submit(resize)
        future.result(PATIENCE)
    assert isinstance(future, TaskFuture)
    future.complete("late", Tally())
    future.release_call()
    assert shown(future) == "<TaskFuture 'resize' at 0x state=finished returned str>"


def test_the_name_does_not_keep_the_function(without_gc: None) -> None:
    class Callee:
        def method(self) -> None: ...

    with Pool(1) as pool:
        for make in (lambda one: one.method, lambda one: functools.partial(resize, one)):
            callee = Callee()
            kept = weakref.ref(callee)
            future = pool.submit(make(callee))
            del callee
            future.result(PATIENCE)
            assert kept() is None
    gc.collect()
