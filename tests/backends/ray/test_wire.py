"""What goes to a Ray actor and back, without Ray."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ion_actors import TaskNotPicklable
from ion_actors.backends.process.transport import pickling
from ion_actors.backends.process.transport.pickling import far_side, pack_call, pack_result
from ion_actors.backends.ray.wire import (
    Batch,
    Call,
    CallEnd,
    Item,
    News,
    PlaceOf,
    Reply,
    check_sendable,
    put_in_place,
)

PIECES = st.lists(st.binary(max_size=20), max_size=5)
NUMBERS = st.integers(0, 2**64 - 1)


@given(NUMBERS, NUMBERS, NUMBERS, PIECES, st.binary(), PIECES)
def test_a_call_arrives_as_it_was_sent(
    stretch: int,
    arrived: int,
    number: int,
    references: list[bytes],
    header: bytes,
    buffers: list[bytes],
) -> None:
    views = [memoryview(one) for one in buffers]
    call = Call(number, references, (header, views))
    head, *beside = Batch(stretch, arrived, [call]).arguments()
    batch = Batch.of(head, beside)
    assert batch[:2] == (stretch, arrived)
    (found,) = batch.calls
    assert (found.number, list(found.references), found.packed[0]) == (number, references, header)
    assert [bytes(one) for one in found.packed[1]] == buffers


@given(st.integers(0, 2**32), st.lists(st.binary(), min_size=1, max_size=40))
def test_a_batch_arrives_as_it_was_sent(first: int, headers: list[bytes]) -> None:
    calls = [Call(first + n, (), (one, ())) for n, one in enumerate(headers)]
    (head,) = Batch(1, 2, calls).arguments()
    found = Batch.of(head, ())
    assert [(one.number, one.packed[0]) for one in found.calls] == [
        (first + n, one) for n, one in enumerate(headers)
    ]


REPLIES = st.builds(
    Reply,
    number=NUMBERS,
    fine=st.booleans(),
    before=NUMBERS,
    packed=st.tuples(st.binary(), st.just(())),
    news=PIECES,
    seconds=st.floats(0, 1e6, width=32),
)


@given(NUMBERS, NUMBERS, st.booleans(), st.booleans(), st.lists(REPLIES, max_size=5), PIECES)
def test_an_answer_arrives_as_it_was_sent(
    stretch: int, begun: int, cut: bool, asked: bool, replies: list[Reply], buffers: list[bytes]
) -> None:
    if replies:
        last = replies[-1]
        item = Item(last.number, (b"item", ()))
        news = [*last.news, item] if buffers else last.news
        packed = last.packed[0], [memoryview(one) for one in buffers]
        last = Reply(last.number, last.fine, last.before, packed, news, last.seconds)
        replies = [*replies[:-1], last]
    sent = CallEnd(stretch, begun, cut, asked, replies).sent()
    assert isinstance(sent, bytes) == (not (buffers and replies))
    found = CallEnd.of(sent)
    assert found[:4] == (stretch, begun, cut, asked)
    assert [_shape(one) for one in found.replies] == [_shape(one) for one in replies]


def _shape(reply: Reply) -> Any:
    number, fine, before, (header, buffers), news, seconds = reply
    return number, fine, before, header, [bytes(one) for one in buffers], [*news], seconds


def test_references_are_put_in_place() -> None:
    assert put_in_place((1, PlaceOf(1), (2,), PlaceOf(0)), ["a", "b"]) == (1, "b", (2,), "a")


@pytest.mark.parametrize("writable", [True, False])
def test_large_buffers_are_copied_if_they_are_to_be_writable(writable: bool) -> None:
    data = pickle.PickleBuffer(bytearray(1_000_000))
    (reply,) = CallEnd.of(
        CallEnd(0, 1, False, False, [Reply(1, True, 0, pack_result(str, data))]).sent()
    ).replies
    shared = [bytes(one) for one in reply.packed[1]]
    found = Reply(1, True, 0, (reply.packed[0], shared)).value(str, writable=writable)
    assert (found is shared[0]) == (not writable)
    assert memoryview(found).readonly == (not writable)


def test_a_result_that_cannot_be_rebuilt() -> None:
    with pytest.raises(TaskNotPicklable, match="task 'name' cannot be rebuilt"):
        Reply(1, True, 0, (b"", ())).value(lambda: "name", writable=True)


def test_what_exists_on_this_machine_only_is_refused() -> None:
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        packed = pack_call(lambda: "name", print, (ours,), None)
        with pytest.raises(TaskNotPicklable, match="the call of task 'name' has a file, a pipe"):
            check_sendable(packed, "name", "the call")
        for one in packed[1]:
            memoryview(one).obj.close()


def _task() -> None:
    pass


def test_a_main_module_that_is_not_there_is_sent_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    import __main__

    monkeypatch.setattr(pickling, "main_can_be_imported", lambda: True)
    monkeypatch.setattr(__main__, "_task", _task, raising=False)
    monkeypatch.setattr(_task, "__module__", "__main__")

    def size(has_main: bool) -> int:
        far_side.has_main = has_main
        return len(pack_call(str, _task, (), None)[0])

    with ThreadPoolExecutor(1) as thread:  # it is a setting of the thread
        by_name, by_value = thread.submit(size, True).result(), thread.submit(size, False).result()
    assert by_name < 100 < by_value


def test_news_leave_in_order_by_themselves_and_with_the_reply() -> None:
    news = News()
    news.begin(7)
    news.add(b"1")
    news.add(b"2")
    assert news.wait() == (7, [b"1", b"2"])
    news.add(b"3")
    assert news.rest() == ([b"3"], 1)
    assert news.rest() == ([], 1)
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(news.wait)  # the bell of the third rings, and it is gone
        news.add(b"4")
        assert waiting.result(30) == (7, [b"4"])
    assert news.rest() == ([], 2)


def test_no_news_are_lost_or_overtaken() -> None:
    news, found = News(), list[tuple[int, list[Any]]]()
    ended = threading.Event()

    def listen() -> None:
        batches = 0
        while not ended.is_set():
            _, batch = news.wait()
            batches += 1
            found.append((batches, batch))

    with ThreadPoolExecutor(1) as thread:
        listening = thread.submit(listen)
        replies = list[tuple[list[Any], int]]()
        for number in range(1000):
            news.add(b"%d" % number)
            if number % 7 == 0:
                replies.append(news.rest())
        ended.set()
        news.add(b"last")
        listening.result(30)
    batches = [*found, *((before + 0.5, rest) for rest, before in replies)]
    told = [piece for _, batch in sorted(batches, key=lambda one: one[0]) for piece in batch]
    assert told == [*(b"%d" % number for number in range(1000)), b"last"]
