"""The interpreter's exit, and Ctrl-C, of programs that use the executors."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests import needs_threads_at_exit

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are another thing there")

Run = Callable[..., tuple[int, list[str], str]]
Start = Callable[..., Any]


@needs_threads_at_exit
@pytest.mark.parametrize("kind", ["ThreadPoolExecutor", "ProcessPoolExecutor"])
def test_at_exit_what_was_accepted_is_finished_and_nobody_is_warned(kind: str, run: Run) -> None:
    code, lines, errors = run(
        f"""
        from ion_actors.executors import {kind}

        if __name__ == "__main__":
            executor = {kind}(1)
            for number in range(3):
                executor.submit(time.sleep, 0.01)
                executor.submit(print, number, flush=True)
        """,
        "-X",
        "dev",
        "-W",
        "error",
    )
    assert (code, lines, errors) == (0, ["0", "1", "2"], "")


def test_ctrl_c_in_a_client_s_block_ends_a_long_queue_quietly(start: Start) -> None:
    program = start(
        """
        from ion_actors.executors import ThreadPoolExecutor
        begun = threading.Event()

        class Session:
            def __enter__(self):
                self.executor = ThreadPoolExecutor(2)
                return self

            def __exit__(self, *_):
                self.executor.shutdown()

        def get(number):
            if number < 50:
                raise ConnectionError(number)
            begun.set()
            current_context().wait()

        try:
            with Session() as session:
                futures = [session.executor.submit(get, number) for number in range(1000)]
                begun.wait()
                say("begun")
                while True:
                    time.sleep(0.05)  # a signal just before a sleep does not wake it
        except KeyboardInterrupt:
            del futures
            say("interrupted")
        """
    )
    program.await_line("begun")
    program.interrupt()
    code, lines, errors = program.end()
    assert (code, lines) == (0, ["interrupted"])
    [line] = errors.splitlines()
    assert "was called off: 94" in line


def test_ctrl_c_of_a_terminal_ends_processes_quietly(run: Run) -> None:
    code, lines, errors = run(
        """
        from ion_actors.executors import ProcessPoolExecutor

        if __name__ == "__main__":
            os.setpgrp()
            try:
                with ProcessPoolExecutor(2) as executor:
                    for _ in range(100):
                        executor.submit(time.sleep, 300)
                    while executor.metrics().running < 2:
                        time.sleep(0.01)
                    os.killpg(0, signal.SIGINT)  # a terminal signals all processes
                    while True:
                        time.sleep(0.05)
            except KeyboardInterrupt:
                say("interrupted")
        """
    )
    assert (code, lines) == (0, ["interrupted"])
    [line] = errors.splitlines()
    assert line.endswith("was called off: 98 tasks had not begun and 2 tasks had not ended")
