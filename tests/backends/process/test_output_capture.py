"""What is printed in a child, which here is one that only prints."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from ion_actors import Output
from ion_actors.backends.process.transport import output_capture
from ion_actors.backends.process.transport.output_capture import OutputCapture


def _child(files: OutputCapture, orders: object, what: Callable[[], None]) -> None:
    files.redirect()
    while orders.recv():
        what()
        sys.stdout.flush()
        orders.send("done")


def print_some() -> None:
    print("to stdout é")
    print("to stderr", file=sys.stderr)
    subprocess.run([sys.executable, "-c", "print('from another program')"], check=True)


def print_much() -> None:
    sys.stdout.write("x" * 5000 + "the end")


@pytest.fixture
def printing() -> Iterator[
    Callable[[Callable[[], None]], tuple[OutputCapture, Callable[[], None]]]
]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    files = OutputCapture()
    children = []

    def begin(what: Callable[[], None]) -> tuple[OutputCapture, Callable[[], None]]:
        child = context.Process(target=_child, args=(files, there, what))
        child.start()
        children.append(child)

        def once() -> None:
            here.send(True)
            assert here.recv() == "done"

        return files, once

    yield begin
    here.send(False)
    for child in children:
        child.join()
        child.close()
    for one in (here, there, files):
        one.close()


def test_all_that_is_printed_is_kept_once(printing):
    files, once = printing(print_some)
    assert files.take() == Output("", "")
    for _ in range(2):
        once()
        output = files.take()
        assert output.stdout == "to stdout é\nfrom another program\n"
        assert output.stderr == "to stderr\n"
    assert files.take() == Output("", "")


def test_of_too_much_the_end_is_kept(printing, monkeypatch):
    monkeypatch.setattr(output_capture, "_MOST", 1000)
    files, once = printing(print_much)
    once()
    stdout = files.take().stdout
    assert stdout.startswith("[4007 bytes are left out]\nxxx")
    assert stdout.endswith("xthe end")


def test_closing_twice_does_no_harm():
    files = OutputCapture()
    files.close()
    files.close()
