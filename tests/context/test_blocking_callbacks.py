"""Callbacks of a context are the user's code: the clock does not wait for them."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator

import pytest

from ion_actors import Context
from ion_actors.clock import system_clock
from ion_actors.context.waiters import Signal
from ion_actors.naming import is_own

PATIENCE = 30.0


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    found = threading.Event()
    yield found
    found.set()


def test_the_clock_goes_on_while_a_callback_blocks(gate):
    begun, later = threading.Event(), threading.Event()
    context = Context(timeout=0.01)
    context.add_callback(lambda: (begun.set(), gate.wait(PATIENCE)))
    assert begun.wait(PATIENCE)
    assert context.cancelled
    system_clock.call_at(system_clock.monotonic(), later.set)
    assert later.wait(PATIENCE)


def test_callbacks_that_are_due_at_once_are_called_in_their_order_by_one_thread(caplog):
    found: list[tuple[int, threading.Thread]] = []
    done = threading.Event()
    context = Context(timeout=0.05)
    for number in range(4):
        context.add_callback(
            lambda number=number: found.append((number, threading.current_thread()))
        )
    context.add_callback(lambda: 1 / 0)
    context.add_callback(done.set)
    assert done.wait(PATIENCE)
    assert [number for number, _ in found] == [0, 1, 2, 3]
    assert len({thread for _, thread in found}) == 1
    assert found[0][1].name == "ion_actors-callbacks"
    found[0][1].join(PATIENCE)
    assert "a callback of a context failed" in caplog.text


def test_who_ends_a_context_by_hand_calls_the_callbacks():
    threads: list[threading.Thread] = []
    context = Context()
    context.add_callback(lambda: threads.append(threading.current_thread()))
    context.cancel()
    assert threads == [threading.current_thread()]


def test_the_librarys_own_callbacks_are_known():
    signal = Signal()
    assert is_own(signal.set)
    assert is_own(functools.partial(signal.set))
    for other in (print, gate, threading.Event().set, functools.partial(print), lambda: None, int):
        assert not is_own(other)
