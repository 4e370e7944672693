"""SIGTERM drains a pool first, and then does what it would have done.

A signal that comes just before the main thread begins to wait is only handled when that wait is
over. So the programs wait in short pieces.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are another thing there")

Start = Callable[..., Any]


def test_accepted_work_is_done_before_the_signal_ends_the_process(start: Start) -> None:
    program = start(
        """
        def task(number):
            started.set()
            gate.wait()
            say("done", number)

        gate, started = threading.Event(), threading.Event()
        pool = Pool(1)
        pool.drain_on_signal()
        futures = [pool.submit(task, number) for number in range(3)]
        started.wait()
        say("ready")
        while not pool.is_draining:
            time.sleep(0.001)
        gate.set()
        while True:  # it is the signal that ends this
            time.sleep(0.01)
        """
    )
    program.await_line("ready")
    program.process.send_signal(signal.SIGTERM)
    code, lines, errors = program.end()
    assert lines == ["done 0", "done 1", "done 2"], errors
    assert code == -signal.SIGTERM


def test_a_second_signal_does_not_wait(start: Start) -> None:
    program = start(
        """
        pool = Pool(1)
        pool.drain_on_signal(signal.SIGTERM, timeout=1000)
        pool.submit(threading.Event().wait)
        say("ready")
        while not pool.is_draining:
            time.sleep(0.001)
        say("draining")
        while True:
            time.sleep(0.01)
        """
    )
    program.await_line("ready")
    program.process.send_signal(signal.SIGTERM)
    program.await_line("draining")
    program.process.send_signal(signal.SIGTERM)
    assert program.end()[0] == -signal.SIGTERM


def test_a_main_thread_that_submits_leaves_its_block_by_a_drain(start: Start) -> None:
    program = start(
        """
        before = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: before.set())
        finished = []
        pool = Pool(1, 100)
        pool.drain_on_signal()
        try:
            with pool:
                for number in range(10**9):
                    if number == 10:
                        say("ready")
                    pool.submit(finished.append, number)
        except PoolClosed:
            numbers = pool.metrics()
            say(numbers.cancelled, numbers.completed == len(finished))
        while not before.wait(0.01):
            pass
        say("and then what it would have done")
        """
    )
    program.await_line("ready")
    program.process.send_signal(signal.SIGTERM)
    code, lines, errors = program.end()
    assert lines == ["0 True", "and then what it would have done"], errors
    assert code == 0


def test_it_works_under_an_event_loop_and_after_it(start: Start) -> None:
    program = start(
        """
        import asyncio

        async def main(pool):
            await pool.asubmit(say, "accepted")
            say("ready")
            while not before.is_set():
                await asyncio.sleep(0.001)
            say("drained", pool.is_closed)

        before = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: before.set())
        for _ in range(2):
            before.clear()
            pool = Pool(1)
            pool.drain_on_signal()
            asyncio.run(main(pool))
        """
    )
    for _ in range(2):
        program.await_line("ready")
        program.process.send_signal(signal.SIGTERM)
        program.await_line("drained True")
    assert program.end()[0] == 0


def test_a_block_gives_the_signal_back(start: Start) -> None:
    program = start(
        """
        before = signal.getsignal(signal.SIGTERM)
        with Pool(1) as pool:
            with pool.drain_on_signal():
                say(signal.getsignal(signal.SIGTERM) == before)
            say(signal.getsignal(signal.SIGTERM) == before)
            one = pool.drain_on_signal()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            one.remove()  # somebody else has it now
            say(signal.getsignal(signal.SIGTERM) == signal.SIG_IGN)
        """
    )
    assert program.end()[1] == ["False", "True", "True"]


def test_a_drain_that_runs_out_of_time_is_told_of(start: Start) -> None:
    program = start(
        """
        import logging

        logging.basicConfig(format="%(message)s")
        pool = Pool(1, name="p")
        pool.drain_on_signal(timeout=0.01)
        pool.options(name="deaf").submit(threading.Event().wait)
        say("ready")
        while True:
            time.sleep(0.01)
        """
    )
    program.await_line("ready")
    program.process.send_signal(signal.SIGTERM)
    code, _, errors = program.end()
    assert "SIGTERM: pool 'p' was not drained in time" in errors
    assert code == -signal.SIGTERM


def test_a_handler_that_was_removed_stays_so_whoever_is_removed_later(start: Start) -> None:
    program = start(
        """
        one, two = Pool(1), Pool(1)
        first, second = one.drain_on_signal(), two.drain_on_signal()
        first.remove()
        second.remove()
        say(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
        one.close(), two.close()
        """
    )
    code, lines, errors = program.end()
    assert (code, lines) == (0, ["True"]), errors


def test_a_forked_child_has_nothing_to_drain(start: Start) -> None:
    program = start(
        """
        pool = Pool(1)
        pool.drain_on_signal()
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, b"!")  # while it is being made, Python drops its signals
            while True:
                time.sleep(0.01)
        os.read(reading, 1)
        os.kill(child, signal.SIGTERM)
        say(os.waitpid(child, 0)[1] == signal.SIGTERM)
        pool.close()
        """
    )
    code, lines, errors = program.end()
    assert (code, lines) == (0, ["True"]), errors
    assert "drain failed" not in errors


def test_a_signal_that_comes_while_the_handler_is_being_installed_drains(start: Start) -> None:
    program = start(
        """
        def install(signum, handler):
            signal.signal = real
            before = real(signum, handler)
            os.kill(os.getpid(), signum)
            return before

        pool = Pool(1)
        pool.submit(say, "accepted")
        real, signal.signal = signal.signal, install
        pool.drain_on_signal()
        while True:
            time.sleep(0.01)
        """
    )
    code, lines, errors = program.end()
    assert lines == ["accepted"]
    assert errors == ""
    assert code == -signal.SIGTERM


def test_a_signal_that_comes_twice_at_once_drains_once(start: Start) -> None:
    program = start(
        """
        def remove():
            del handler.remove
            os.kill(os.getpid(), signal.SIGTERM)  # before the first one has given way
            handler.remove()

        import logging

        logging.basicConfig(format="%(message)s", level=logging.INFO)
        ends = []
        signal.signal(signal.SIGTERM, lambda *_: ends.append(pool.is_closed))
        pool = Pool(1)
        handler = pool.drain_on_signal()
        handler.remove = remove
        os.kill(os.getpid(), signal.SIGTERM)
        while not ends:
            time.sleep(0.001)
        for one in threading.enumerate():
            if one.name == "ion_actors-SIGTERM":
                one.join()
        say(ends)
        """
    )
    code, lines, errors = program.end()
    assert lines == ["[True]"], errors
    assert errors.count("SIGTERM: draining") == 1
    assert code == 0
