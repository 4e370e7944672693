"""What an actor leaves behind, read after it, and in the middle of what it writes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ion_actors.backends.ray import journal
from ion_actors.backends.ray.journal import MOST, Journal, JournalReader, read_and_remove

SECRET = 77


@pytest.fixture
def written() -> Iterator[Journal]:
    found = Journal(SECRET)
    yield found
    found.remove()


def test_it_is_found_by_its_secret_and_has_no_name_then(written: Journal) -> None:
    with pytest.raises(OSError, match="another one's"):
        JournalReader(written.path, SECRET + 1)
    reader = JournalReader(written.path, SECRET)
    assert not Path(written.path).exists()
    written.begin(3)
    assert written.note(3, b"three")
    written.begin(4)
    assert reader.read() == (4, {3: b"three"})
    reader.close()


def test_one_that_is_not_here() -> None:
    with pytest.raises(FileNotFoundError):
        JournalReader("/nowhere/at all", SECRET)


def test_what_is_no_journal(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"short")
    with pytest.raises(OSError, match="is no journal"):
        JournalReader(str(tmp_path / "file"), SECRET)


def test_it_goes_when_its_actor_leaves() -> None:
    found = Journal(SECRET)
    found.remove()
    assert not Path(found.path).exists()


@given(st.lists(st.tuples(st.integers(0, MOST + 10), st.integers(0, 3)), max_size=40))
def test_what_has_not_arrived_is_there(steps: list[tuple[int, int]]) -> None:
    written = Journal(SECRET)
    reader = JournalReader(written.path, SECRET)
    try:
        expected: dict[int, bytes] = {}
        for number, (length, arrived) in enumerate(steps, start=1):
            reply = os.urandom(8).ljust(8) + bytes(max(0, length - 8))
            written.begin(number)
            if written.note(number, reply):
                expected[number] = reply
            else:
                assert length > MOST or sum(map(len, expected.values())) + length > 300_000
            written.arrived(number - arrived)
            expected = {n: one for n, one in expected.items() if n > number - arrived}
            begun, found = reader.read()
            assert begun == number
            assert expected.items() <= found.items()
    finally:
        reader.close()
        written.remove()


def test_old_replies_make_room(written: Journal) -> None:
    reader = JournalReader(written.path, SECRET)
    for number in range(1, 500):
        assert written.note(number, bytes(10_000))
        written.arrived(number)
    assert 499 in reader.read()[1]
    reader.close()


def test_without_room_nothing_is_noted(written: Journal) -> None:
    notes = [written.note(number, bytes(100_000)) for number in range(1, 9)]
    assert notes[0]
    assert not notes[-1]


_DYING = """
import os, sys
from ion_actors.backends.ray.journal import Journal
found = Journal(77)
print(found.path, flush=True)
number = 0
while True:
    number += 1
    found.begin(number)
    found.note(number, b"%d" % number * 1000)
    found.arrived(number - 5)
"""


def test_it_is_whole_whenever_its_actor_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", _DYING], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        path = process.stdout.readline().decode().strip()
        reader = JournalReader(path, SECRET)
        while reader.read()[0] < 2000:  # it has changed halves by then
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
    begun, replies = reader.read()
    reader.close()
    assert all(reply == b"%d" % number * 1000 for number, reply in replies.items())
    assert set(range(begun - 4, begun)) <= set(replies)


def test_what_a_dead_actor_has_left_is_removed_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", _DYING], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        path = process.stdout.readline().decode().strip()
        monkeypatch.setattr(journal, "_YOUNG", 0.0)
        Journal(SECRET).remove()
        assert Path(path).exists()  # its actor lives
        process.kill()
        process.wait()
    Journal(SECRET).remove()
    assert not Path(path).exists()


def test_it_is_read_once() -> None:
    written = Journal(SECRET)
    written.begin(1)
    assert read_and_remove(written.path, SECRET) == (1, {})
    with pytest.raises(FileNotFoundError):
        read_and_remove(written.path, SECRET)
    written.remove()
