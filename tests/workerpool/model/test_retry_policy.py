"""Whether a failure is tried again, and when: the policy, without a pool."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ion_actors import Backoff, Retry, TaskPanicked, WorkerDied
from ion_actors.workerpool.model.retry import PastTries, hint_of

SECONDS = st.floats(0, 1e6)


@given(
    attempts=st.none() | st.integers(1, 9),
    deadline=st.none() | SECONDS,
    failures=st.integers(1, 12),
    accepted_at=SECONDS,
    passed=SECONDS,
    hint=st.none() | st.just(math.inf) | SECONDS,
    jitter=st.floats(0, 1),
    chance=st.floats(0, 1),
)
def test_it_is_tried_as_often_and_as_late_as_it_may_be(
    attempts, deadline, failures, accepted_at, passed, hint, jitter, chance
):
    backoff = Backoff(initial=1, factor=2, maximum=8, jitter=jitter)
    retry = Retry(attempts=attempts, backoff=backoff, deadline=deadline)
    now = accepted_at + passed
    due, why = retry.plan(failures, now, accepted_at, hint, lambda: chance)
    assert (due is None) == bool(why), "who gives up says why, and only then"
    wait = max(min(8.0, 2.0 ** (failures - 1)) * (1 - jitter * chance), hint or 0.0)
    if attempts is not None and failures >= attempts:
        assert due is None
        assert "attempts" in why
    elif math.isinf(wait):
        assert due is None
    elif deadline is not None and now + wait > accepted_at + deadline:
        assert due is None
        assert "deadline" in why
    else:
        assert due == now + wait


def test_the_retries_of_the_backoff_do_not_count_for_tasks() -> None:
    retry = Retry(attempts=None, backoff=Backoff(initial=1, jitter=0, maximum=3, retries=0))
    assert [retry.plan(n, 0, 0, None).due for n in (1, 2, 3, 500)] == [1, 2, 3, 3]


class Refused(ConnectionError):
    pass


@pytest.mark.parametrize(
    ("on", "error", "covered"),
    [
        (ConnectionError, Refused(), True),
        ((KeyError, ConnectionError), Refused(), True),
        ((KeyError,), Refused(), False),
        (lambda error: "again" in str(error), ValueError("again"), True),
        (lambda error: "again" in str(error), ValueError("no"), False),
        (Exception, ValueError(), True),
    ],
)
def test_types_or_a_predicate_say_what_is_tried_again(
    on: Any, error: Exception, covered: bool
) -> None:
    assert Retry(on=on).covers(error) is covered


@pytest.mark.parametrize(
    ("on", "covered"),
    [
        (Exception, False),
        (OSError, False),
        (lambda _: True, False),
        (WorkerDied, True),
        ((ValueError, WorkerDied), True),
        (TaskPanicked, True),
        (BaseException, True),
        (SystemExit, False),
    ],
)
def test_the_death_of_a_worker_is_covered_only_by_name(on: Any, covered: bool) -> None:
    assert Retry(on=on).covers_death(WorkerDied("gone", worker="w")) is covered


def test_what_is_no_exception_is_covered_by_its_class() -> None:
    assert Retry(on=(SystemExit, OSError)).covers_death(SystemExit(1))
    assert Retry(on=TaskPanicked).covers_death(SystemExit(1))
    assert not Retry(on=KeyboardInterrupt).covers_death(SystemExit(1))


class Hint(Exception):
    def __init__(self, hint: object) -> None:
        self.retry_after = hint


class Property(Exception):
    @property
    def retry_after(self) -> float:
        raise LookupError


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (Hint(2), 2.0),
        (Hint(0.5), 0.5),
        (Hint(math.inf), math.inf),
        (Hint(None), None),
        (Hint(-1), None),
        (Hint(math.nan), None),
        (Hint(True), None),
        (Hint("2"), None),
        (Hint(10**400), None),
        (Property(), None),
        (ValueError(), None),
    ],
)
def test_an_error_may_say_when(error: Exception, hint: float | None) -> None:
    assert hint_of(error) == hint


def test_failures_are_kept_as_text_the_last_ten_and_not_too_long() -> None:
    failures = PastTries()
    for number in range(12):
        failures = failures.added(f"E: {number}" if number else "E" * 999, 0.25)
    assert (failures.count, failures.last) == (12, "E: 11")
    notes = failures.notes()
    assert notes[0] == "2 tries failed before these"
    assert notes[1] == "try 3 failed after 0.25 s with E: 2"
    assert len(notes) == 11
    assert len(PastTries().added("E" * 999, 0).last) < 400


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({"attempts": 0}, ValueError, "attempts"),
        ({"attempts": 2.5}, TypeError, "attempts"),
        ({"attempts": True}, TypeError, "attempts"),
        ({"backoff": 3}, TypeError, "backoff"),
        ({"on": ()}, TypeError, "on"),
        ({"on": None}, TypeError, "on"),
        ({"on": "ConnectionError"}, TypeError, "on"),
        ({"on": (ConnectionError, 3)}, TypeError, "on"),
        ({"on": int}, TypeError, "on"),
        ({"deadline": -1}, ValueError, "deadline"),
        ({"deadline": "soon"}, TypeError, "deadline"),
    ],
)
def test_what_makes_no_sense_is_named(
    arguments: dict[str, Any], error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=rf"\b{named}\b"):
        Retry(**arguments)
