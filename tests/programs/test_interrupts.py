"""Ctrl-C, and other exceptions that leave a pool's block."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are another thing there")

Start = Callable[..., Any]

BLOCKS = {
    "submit": "pool.submit(listens); pool.submit(print)",
    "result": "pool.submit(listens).result()",
    "get": "pool.submit(listens).get()",
    "drain": "pool.submit(listens); pool.drain()",
    "close": "pool.submit(deaf); started.wait(); pool.close()",
    "map": "list(pool.map(lambda _: listens(), range(9)))",
}


@pytest.mark.parametrize("verb", BLOCKS)
def test_ctrl_c_interrupts_the_main_thread_and_the_block_closes_the_pool(
    verb: str, start: Start
) -> None:
    program = start(
        f"""
        gate, started = threading.Event(), threading.Event()

        def deaf():
            started.set()
            gate.wait()

        def listens():
            current_context().wait()

        when_main_thread_is_in({verb!r}, lambda: say("blocked"))
        try:
            with Pool(1, 0) as pool:
                try:
                    {BLOCKS[verb]}
                except KeyboardInterrupt:
                    say("interrupted")
                    gate.set()
                    raise
        except KeyboardInterrupt:
            say("closed", pool.is_closed, pool.metrics().running)
        """
    )
    program.await_line("blocked")
    program.interrupt()
    code, lines, errors = program.end()
    assert lines == ["interrupted", "closed True 0"], errors
    assert code == 0


def test_ctrl_c_during_the_drain_of_a_block_closes_the_pool(start: Start) -> None:
    program = start(
        """
        when_main_thread_is_in("drain", lambda: say("draining"))
        try:
            with Pool(1) as pool:
                running = pool.submit(lambda: current_context().wait())
                queued = pool.submit(print, "never")
        except KeyboardInterrupt:
            say("interrupted", pool.is_closed, running.done(), queued.cancelled())
        """
    )
    program.await_line("draining")
    program.interrupt()
    code, lines, errors = program.end()
    assert lines == ["interrupted True True True"], errors
    assert code == 0


BLOCKS_OF_POOLS = {
    "pool": "Pool(1)",
    "executor": "executors.ThreadPoolExecutor(1)",
    "client": "Client(executors.ThreadPoolExecutor(1))",
}


@pytest.mark.parametrize("block", BLOCKS_OF_POOLS)
def test_a_second_ctrl_c_does_not_wait(block: str, start: Start) -> None:
    program = start(
        f"""
        from ion_actors import executors
        begun = threading.Event()

        class Client:
            def __init__(self, executor):
                self.executor = executor

            def __enter__(self):
                return self.executor

            def __exit__(self, *_):
                self.executor.shutdown()

        def deaf():
            begun.set()
            threading.Event().wait()

        try:
            with {BLOCKS_OF_POOLS[block]} as pool:
                pool.submit(deaf)
                begun.wait()
                when_main_thread_is_in("report", lambda: say("closing"))
                say("begun")
                while True:
                    time.sleep(0.05)  # a signal just before a sleep does not wake it
        except KeyboardInterrupt:
            say("interrupted")
        """
    )
    program.await_line("begun")
    program.interrupt()
    program.await_line("closing")
    program.interrupt()
    code, lines, errors = program.end()
    assert (code, lines) == (0, ["interrupted"])
    [line] = errors.splitlines()
    assert line.endswith("was called off: 1 task had not ended")


def test_ctrl_c_never_reaches_a_task(start: Start) -> None:
    program = start(
        """
        release = threading.Event()
        when_main_thread_is_in("result", lambda: say("blocked"))
        with Pool(2) as pool:
            tasks = [pool.submit(release.wait, 60) for _ in range(2)]
            try:
                tasks[0].result()
            except KeyboardInterrupt:
                release.set()
            say([task.result() for task in tasks], pool.metrics().restarts)
        """
    )
    program.await_line("blocked")
    program.interrupt()
    assert program.end()[:2] == (0, ["[True, True] 0"])


def test_an_uncaught_ctrl_c_ends_the_program(start: Start) -> None:
    program = start(
        """
        when_main_thread_is_in("result", lambda: say("blocked"))
        with Pool(1) as pool:
            pool.submit(lambda: current_context().wait()).result()
        """
    )
    program.await_line("blocked")
    program.interrupt()
    code, _, errors = program.end()
    assert code != 0
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert "ResourceWarning" not in errors


def test_an_interrupted_submit_has_submitted_nothing(start: Start) -> None:
    program = start(
        """
        release = threading.Event()
        when_main_thread_is_in("wait_for_room", lambda: say("blocked"))
        with Pool(1, 0) as pool:
            first = pool.submit(release.wait, 60)
            try:
                pool.submit(say, "never")
            except KeyboardInterrupt:
                release.set()
            first.result()
        say(pool.metrics().submitted)
        """
    )
    program.await_line("blocked")
    program.interrupt()
    assert program.end()[:2] == (0, ["1"])


def test_an_exception_in_the_block_closes_instead_of_draining(start: Start) -> None:
    code, lines, errors = start(
        """
        try:
            with Pool(1) as pool:
                running = pool.submit(lambda: current_context().wait())
                queued = pool.submit(say, "never")
                raise LookupError
        except LookupError:
            say(pool.is_closed, running.done(), queued.cancelled())
        """
    ).end()
    assert lines == ["True True True"], errors
    assert code == 0
