"""Both sides of the line of tasks, with every order of what passes between them."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ion_actors.backends.ray.line import FarLine, NearLine, Sent
from ion_actors.backends.ray.wire import CallEnd, Reply


class FakeTask:
    """Counts what becomes of it."""

    stream = None
    follower = None

    def __init__(self) -> None:
        self.begun = 0
        self.fates: list[str] = []


class Notes:
    """A journal in memory."""

    def __init__(self) -> None:
        self.last = 0
        self.replies: dict[int, bytes] = {}

    def begin(self, number: int) -> None:
        self.last = number

    def arrived(self, number: int) -> None:
        self.replies = {n: one for n, one in self.replies.items() if n > number}

    def note(self, number: int, reply: bytes) -> bool:
        self.replies[number] = reply
        return True


class Model:
    """One near side, one far side, and what is on its way between them.

    Ray makes calls in order, and tells of their ends in any order.
    """

    def __init__(self) -> None:
        self.near = NearLine()
        self.notes = Notes()
        self.far = FarLine(self.notes)
        self.calls: deque[tuple[int, int, list[Sent]]] = deque()
        self.recalls: deque[int] = deque()
        self.answers: list[CallEnd] = []
        self.running: tuple[int, deque[Sent]] | None = None
        self.open: list[Sent] = []

    # -- steps -----------------------------------------------------------------------------------

    def send(self, count: int) -> None:
        sents = [self.near.add(FakeTask()) for _ in range(count)]  # type: ignore[arg-type]
        self.open += sents
        self.near.calls += 1
        self.calls.append((self.near.stretch, self.near.arrived, sents))

    def recall(self) -> None:
        self.recalls.append(self.near.stretch)

    def far_recall(self) -> None:
        if self.recalls:
            self.answers.append(self.far.cut(self.recalls.popleft()))

    def far_step(self, *, fine: bool) -> None:
        """Begin the next call, or the next task of it, or end it."""
        if self.running is None:
            if not self.calls:
                return
            stretch, arrived, sents = self.calls.popleft()
            self.far.enter(stretch, sents[0].number, len(sents), arrived)
            self.running = stretch, deque(sents)
        stretch, rest = self.running
        if rest and self.far.begin(stretch, rest[0].number):
            sent = rest.popleft()
            sent.task.begun += 1  # type: ignore[attr-defined]
            self.far.end(stretch, Reply(sent.number, fine, 0, (b"", ())))
        else:
            self.answers.append(self.far.answer(stretch))
            self.running = None

    def hear(self, place: int = 0) -> None:
        if not self.answers:
            return
        answer = CallEnd.of(self.answers.pop(place % len(self.answers)).sent())
        self.settle(*self.near.take(answer))

    def settle(self, answered: list[Sent], unbegun: list[Sent]) -> None:
        for one in answered:
            self.fate(one, "answered" if one.reply is not None else "lost")
        for one in unbegun:
            self.fate(one, "unbegun")

    def fate(self, sent: Sent, what: str) -> None:
        task: Any = sent.task
        task.fates.append(what)
        assert task.fates == [what], "a task has one fate"
        assert task.begun == (what != "unbegun")
        self.open.remove(sent)
        self.near.leave(sent)

    def finish(self) -> None:
        while self.calls or self.running or self.recalls or self.answers:
            self.far_recall()
            self.far_step(fine=True)
            self.hear()

    def die(self) -> None:
        self.settle(*self.near.lose(self.notes.last, self.notes.replies, lambda: KeyError("died")))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 4)),
        st.tuples(st.just("hear"), st.integers(0, 2)),
        st.sampled_from([("recall",), ("far_recall",), ("run",), ("run",), ("fail",)]),
    ),
    max_size=60,
)


def played(steps: list[tuple[Any, ...]]) -> Model:
    model = Model()
    for step, *more in steps:
        if step == "run":
            model.far_step(fine=True)
        elif step == "fail":
            model.far_step(fine=False)
        else:
            getattr(model, step)(*more)
    return model


@given(STEPS)
def test_each_task_has_one_fate(steps: list[tuple[Any, ...]]) -> None:
    model = played(steps)
    model.finish()
    assert not model.open
    assert len(model.near) == 0
    assert model.near.rest() == []
    assert model.near.calls == 0


@given(STEPS, st.booleans())
def test_each_task_has_one_fate_when_the_actor_dies(
    steps: list[tuple[Any, ...]], in_a_task: bool
) -> None:
    model = played(steps)
    if in_a_task and model.running is not None:
        stretch, rest = model.running
        if rest and model.far.begin(stretch, rest[0].number):
            rest[0].task.begun += 1  # type: ignore[attr-defined]
    model.die()
    assert not model.open
    assert len(model.near) == 0


@given(STEPS)
def test_nothing_begins_after_a_failure_until_it_is_known(steps: list[tuple[Any, ...]]) -> None:
    model = Model()
    failed = False
    for step, *more in steps:
        if step in ("run", "fail"):
            before = model.notes.last
            model.far_step(fine=step == "run")
            if failed:
                assert model.notes.last == before
            failed = failed or (step == "fail" and model.notes.last != before)
        elif step == "hear":
            stretch = model.near.stretch
            model.hear()
            failed = failed and model.near.stretch == stretch
        else:
            getattr(model, step)(*more)


def test_a_call_that_overtakes_another_begins_nothing() -> None:
    model = Model()
    model.send(1)
    model.send(2)
    model.far_step(fine=True)
    model.far_step(fine=True)
    model.send(2)
    model.calls.popleft()  # it is late
    model.far_step(fine=True)
    model.finish()
    assert [one.number for one in model.open] == []
    assert model.near.stretch == 1


@pytest.mark.parametrize("dies", [False, True])
def test_an_answer_that_overtakes_another_waits_for_it(dies: bool) -> None:
    model = Model()
    for count in (2, 1, 3):
        model.send(count)
    while len(model.answers) < 3:
        model.far_step(fine=True)
    model.hear(2)
    model.hear(1)
    assert len(model.open) == 6, "the first is still on its way"
    assert model.near.arrived == 0, "the journal must keep what may be lost"
    if dies:
        model.notes.replies = {n: one for n, one in model.notes.replies.items() if n <= 2}
        model.die()
    else:
        model.hear()
        assert model.near.arrived == 6
    assert not model.open
    assert all(one.reply is not None for one in model.near.rest())


def test_nothing_is_known_without_a_journal() -> None:
    model = Model()
    model.send(3)
    ended = model.near.lose_all(lambda: KeyError("died"))
    assert [type(one.error) for one in ended] == [KeyError] * 3
    assert len({id(one.error) for one in ended}) == 3


@pytest.mark.parametrize("count", [1, 3])
def test_a_call_that_was_not_made(count: int) -> None:
    model = Model()
    model.send(count)
    failed = model.near.fail(range(1, count + 1), KeyError("no"))
    assert len(failed) == count
    assert (len(model.near), model.near.calls) == (0, 0)
