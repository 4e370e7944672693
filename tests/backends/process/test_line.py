"""The tasks that a child was sent: what has begun and what has not, whatever happens in between."""

from __future__ import annotations

import socket
import sys
from collections import deque
from collections.abc import Iterator
from multiprocessing.connection import wait
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ion_actors.backends.process.parent.line import SentTask, TaskLine
from ion_actors.backends.process.transport.channel import (
    MOST_IN_PACKET,
    TASK,
    Channel,
    Garbled,
    is_next,
    number_after,
    reply_flags,
    seconds_of_reply,
    task_flags,
)
from ion_actors.backends.window import SendWindow

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere packets are not apart")


class FarSide:
    """A child that does as it is told: it reads a task, and replies to it."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.stretch = self.last = 0
        self.current: int | None = None  # what has begun
        self.begun: list[int] = []
        self.replies: deque[int] = deque()  # the flags of those that nobody has read

    def begin(self) -> None:
        if self.current is not None or not wait([self.channel.fileno()], 0):
            return
        _, flags, body = self.channel.receive()
        if is_next(flags, self.stretch, self.last):
            self.last = flags >> 8
            self.current = int(body)
            self.begun.append(self.current)

    def reply(self, *, cut: bool) -> None:
        if self.current is not None:
            self.current = None
            self.stretch += cut
            self.replies.append(reply_flags(0.0, last=False, cut=cut))


class Both:
    """A line, and what is to become of each task."""

    def __init__(self) -> None:
        here, there = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self.sockets = (here, there)
        far = socket.socket(fileno=there.dup().detach())
        self.hurry: deque[bool] = deque()  # whether the child reads before the next packet is read
        self.line = TaskLine(Channel(here), cast("socket.socket", _Slow(there, self)))
        self.here = Channel(here)
        self.far_socket = far
        self.far = FarSide(Channel(far))
        self.sent: list[int] = []
        self.answered: list[int] = []
        self.given_back: list[int] = []

    def close(self) -> None:
        for one in (*self.sockets, self.far_socket):
            one.close()

    def send(self) -> None:
        number = len(self.sent)
        task: Any = str(number)
        if len(self.line):
            if self.line.send_ahead(task, task.encode()) is None:
                return
        else:
            _, flags = self.line.add(task)
            self.here.send(TASK, task.encode(), flags)
        self.sent.append(number)

    def hear(self) -> None:
        if self.far.replies:
            sent = self.line.answered(self.far.replies.popleft())
            assert sent is not None
            self.answered.append(number_of(sent))
            self.collect()

    def take_back(self) -> None:
        self.line.take_back()
        self.collect()

    def collect(self) -> None:
        unbegun = [number_of(one) for one in self.line.unbegun]
        assert unbegun == sorted(unbegun)
        assert all(one.out for one in self.line.unbegun)
        self.given_back += unbegun
        self.line.unbegun.clear()

    def die(self) -> None:
        """The process ends; what it has replied is read."""
        self.hurry.clear()
        while self.far.replies:
            self.hear()
        self.line.lose()
        self.collect()


def number_of(sent: SentTask) -> int:
    return int(cast("str", sent.task))


@pytest.fixture
def both() -> Iterator[Both]:
    made = Both()
    yield made
    made.close()


class _Slow:
    """The child's end, where it may read a task while this side takes some back."""

    def __init__(self, sock: socket.socket, both: Both) -> None:
        self._sock = sock
        self._both = both

    def recv(self, size: int, flags: int) -> bytes:
        found = self._sock.recv(size, flags)
        if self._both.hurry and self._both.hurry.popleft():
            self._both.far.begin()
        return found


STEPS = [
    "send",
    "send",
    "send",
    "begin",
    "begin",
    "reply",
    "reply",
    "fail",
    "hear",
    "take back",
    "race",
]


@given(st.lists(st.sampled_from(STEPS), min_size=10, max_size=60))
def test_each_task_is_answered_or_given_back_or_the_one_that_has_begun(steps: list[str]) -> None:
    both = Both()
    try:
        for step in steps:
            match step:
                case "send":
                    both.send()
                case "begin":
                    both.far.begin()
                case "reply" | "fail":
                    both.far.reply(cut=step == "fail")
                case "hear":
                    both.hear()
                case _:
                    both.hurry.append(step == "race")
                    both.take_back()
                    both.hurry.clear()
            begun = set(both.far.begun)
            assert not begun & set(both.given_back)
            assert set(both.answered) <= begun
        both.die()
        lost = [number_of(one) for one in both.line]
        assert lost == ([] if both.far.current is None else [both.far.current])
        assert sorted(both.answered + both.given_back + lost) == both.sent
        assert sorted(both.far.begun) == both.far.begun
        assert sorted(both.answered + lost) == both.far.begun
    finally:
        both.close()


def test_what_is_behind_a_failure_is_given_back_and_never_begins(both: Both) -> None:
    for _ in range(3):
        both.send()
    both.far.begin()
    both.far.reply(cut=True)
    both.far.begin()  # it has read the next one, and lets it go
    both.hear()
    assert (both.answered, both.given_back, both.far.begun) == ([0], [1, 2], [0])
    both.send()
    both.far.begin()
    assert both.far.begun == [0, 3]


def test_what_is_alone_is_not_taken_back(both: Both) -> None:
    both.send()
    both.take_back()
    assert (len(both.line), both.given_back) == (1, [])


def test_a_large_task_that_was_read_in_part_has_not_begun(both: Both) -> None:
    task: Any = "0"
    sent, flags = both.line.add(task)
    sent.alone = True
    both.here.send(TASK, bytes(2 * MOST_IN_PACKET), flags)
    assert len(both.far_socket.recv(16)) == 16
    both.line.lose()
    both.collect()
    assert (both.given_back, len(both.line)) == ([0], 0)


def test_the_socket_that_is_full_refuses(both: Both) -> None:
    both.send()
    sent = []
    while (one := both.line.send_ahead(cast("Any", "1"), bytes(MOST_IN_PACKET))) is not None:
        sent.append(one)
    assert 0 < len(sent) == len(both.line) - 1


def test_large_messages_cross_in_packets() -> None:
    here, there = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with here, there:
        for size in (0, 1, MOST_IN_PACKET - 1, MOST_IN_PACKET, MOST_IN_PACKET + 1, 150_000):
            body = bytes(range(256)) * (size // 256) + bytes(size % 256)
            Channel(here).send(TASK, body, task_flags(3, 65535, fresh=False))
            assert Channel(there).receive() == (TASK, 3 | 65535 << 8, body)


def test_a_child_begins_what_is_next_and_what_is_said_to_be() -> None:
    for last in (0, 1, 65534, 65535):
        number = number_after(last)
        assert 0 < number < 65536
        assert is_next(task_flags(5, number, fresh=False), 5, last)
        assert is_next(task_flags(128, number, fresh=False), 0, last)
        assert not is_next(task_flags(4, number, fresh=True), 5, last)
        assert not is_next(task_flags(5, number_after(number), fresh=False), 5, last)
        assert is_next(task_flags(5, number_after(number), fresh=True), 5, last)


def test_garbage_is_no_message_in_packets_either() -> None:
    here, there = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with here, there:
        here.send(b"what a task may write anywhere")
        with pytest.raises(Garbled):
            Channel(there).receive()


@given(st.floats(0, 1e6), st.booleans(), st.booleans())
def test_a_reply_tells_how_long_its_task_took(seconds: float, last: bool, cut: bool) -> None:
    told = seconds_of_reply(reply_flags(seconds, last=last, cut=cut))
    assert seconds - 1e-6 <= told * 1.000001
    assert told <= 2 * seconds + 1e-6


def test_the_window_follows_what_is_answered(both: Both) -> None:
    assert both.line.window.size == 1
    for _ in range(20):
        both.send()
        both.far.begin()
        both.far.reply(cut=False)
        both.hear()
    assert both.line.window.size == both.line.window.most
    both.send()
    both.far.begin()
    both.far.reply(cut=True)
    both.hear()
    assert isinstance(both.line.window, SendWindow)
    assert both.line.window.size <= 2


def test_what_the_child_reads_while_others_are_taken_back_does_not_begin(both: Both) -> None:
    for _ in range(4):
        both.send()
    both.far.begin()
    both.far.reply(cut=False)
    both.hurry.append(True)  # this side reads the second, and the child the third
    both.take_back()
    assert (both.given_back, both.far.begun) == ([1, 2, 3], [0])
    both.send()
    both.far.begin()
    assert both.far.begun == [0, 4]
