"""What is printed in an actor, and sent: without Ray."""

from __future__ import annotations

import io
import sys
import threading

import pytest

from ion_actors.backends.process.transport.log_relay import show
from ion_actors.backends.process.transport.print_relay import PrintRelay
from ion_actors.backends.ray.last_words import last_words


def streams(monkeypatch: pytest.MonkeyPatch) -> tuple[io.StringIO, io.StringIO]:
    """Standard output and error from now on."""
    found = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", found[0])
    monkeypatch.setattr(sys, "stderr", found[1])
    return found


def test_whole_lines_are_sent_and_the_rest_at_the_end_of_the_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[bytes] = []
    below = streams(monkeypatch)
    relays = PrintRelay(sent.append)
    print("one", "two")
    assert len(sent) == 1
    print("no end", end="")
    thread = threading.Thread(target=print, args=("of another thread",))
    thread.start()
    thread.join()
    print("an error", file=sys.stderr)
    assert len(sent) == 3
    relays.take()
    relays.take()
    assert len(sent) == 4
    assert below[0].getvalue() == "one two\nno endof another thread\n"
    there = streams(monkeypatch)
    for one in sent:
        show(one)
    assert there[0].getvalue() == "one two\nof another thread\nno end"
    assert there[1].getvalue() == "an error\n"


def test_a_program_without_output_shows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    streams(monkeypatch)
    PrintRelay(sent.append)
    print("words")
    monkeypatch.setattr(sys, "stdout", None)  # as in a program without a console
    show(sent[0])


def test_last_words_are_those_of_the_task(tmp_path: object) -> None:
    path = f"{tmp_path}/worker.err"
    with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(
            ":job_id:01000000\n:actor_name:TaskActor\nwhat it said\n"
            "[2026-01-01 00:00:00,000 E 1 1] logging.cc:474: PC: @ 0x7f (unknown)\n"
            "*** SIGSEGV received at time=1 on cpu 1 ***\nPC: @     0x7f  (unknown)\n"
            "    @     0x7f  (unknown)\nFatal Python error: Segmentation fault\n\n"
            'Stack:\n  File "theirs.py", line 1 in segfault\n'
            '  File "/lib/ion_actors/backends/ray/task_actor.py", line 1 in _call\n  File "below"\n'
        )
    assert last_words(path) == (
        "what it said\n    Fatal Python error: Segmentation fault\n    \n    Stack:\n"
        '      File "theirs.py", line 1 in segfault'
    )
    assert last_words("pipe:[1]") == last_words("") == ""
