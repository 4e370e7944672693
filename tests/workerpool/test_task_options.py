"""What belongs to a task: options that are given on top of others."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ion_actors.workerpool.model.retry import Retry
from ion_actors.workerpool.task_options import NO_OPTIONS, TaskOptions

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "timeout": st.none() | st.floats(0.0, 9.0),
    "name": st.none() | st.text(max_size=2),
    "ttl": st.none() | st.floats(0.0, 9.0),
    "priority": st.none() | st.integers(-2, 2),
    "key": st.none() | st.sampled_from([False, 0, "", "key"]),
    "key_limit": st.none() | st.integers(1, 3),
    "retry_on_worker_death": st.none() | st.integers(0, 3),
    "retry": st.none() | st.just(Retry()),
    "delay": st.none() | st.floats(0.0, 9.0),
}
OPTIONS = st.fixed_dictionaries(VALUES)


def on_top(old: TaskOptions, values: dict[str, Any], *, pass_context: bool = False) -> TaskOptions:
    said = (None, *(values[name] for name in VALUES))
    return old.overridden_by(said, pass_context=pass_context)


@given(OPTIONS, OPTIONS)
def test_what_is_given_counts_and_the_rest_stays(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    merged = on_top(on_top(NO_OPTIONS, first), second)
    wanted = {name: first[name] if new is None else new for name, new in second.items()}
    assert {name: getattr(merged, name) for name in VALUES} == wanted
    types = {name: type(value) for name, value in wanted.items()}
    assert {name: type(getattr(merged, name)) for name in VALUES} == types


@given(st.none() | st.floats(0.0, 9.0))
def test_a_delay_takes_the_place_of_a_moment(delay: float | None) -> None:
    merged = on_top(TaskOptions(at=5.0), {**dict.fromkeys(VALUES), "delay": delay})
    assert (merged.delay, merged.at) == ((None, 5.0) if delay is None else (delay, None))


@given(st.booleans(), st.booleans())
def test_the_context_is_passed_once_that_was_asked_for(first: bool, second: bool) -> None:
    nothing = dict.fromkeys(VALUES)
    merged = on_top(on_top(NO_OPTIONS, nothing, pass_context=first), nothing, pass_context=second)
    assert merged.pass_context is (first or second)


def test_all_that_can_be_given_is_merged() -> None:
    names = [one.name for one in fields(TaskOptions)]
    assert names == ["context", *VALUES, "at", "pass_context"]
