"""Checks of arguments: clear errors that name the argument and the value."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ion_actors._arguments import (
    exceptions_or_predicate,
    moment,
    number,
    optional_callable,
    seconds,
    whole_number,
)
from ion_actors.circuit import FailureRate
from ion_actors.circuit.rules import BreakerRules
from ion_actors.ratelimit import (
    HeaderBounds,
    LeakyBucket,
    Limit,
    MultiTierLimiter,
    Rate,
    TokenBucket,
    per_second,
)
from ion_actors.supervision import ChildSpec
from ion_actors.workerpool.messages import Close, Drain, Resize
from ion_actors.workerpool.model.backoff import Backoff
from ion_actors.workerpool.model.overflow import CoDel
from ion_actors.workerpool.model.recovery import PanicRecovery
from ion_actors.workerpool.task_options import TaskOptions

anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.lists(st.integers(), max_size=2),
    st.decimals(),
    st.complex_numbers(),
)


def check_all(value):
    """Each check's answer, or its error."""
    for check in (
        lambda: whole_number("it", value, minimum=1),
        lambda: number("it", value, minimum=0, maximum=1),
        lambda: seconds("it", value),
        lambda: moment("it", value),
        lambda: optional_callable("it", value),
        lambda: exceptions_or_predicate("it", value),
    ):
        try:
            yield check()
        except (TypeError, ValueError) as error:
            yield error


@given(anything)
def test_whatever_is_passed_an_error_names_the_argument_and_the_value(value):
    for answer in check_all(value):
        if isinstance(answer, Exception):
            assert str(answer).startswith("it must be")
            assert repr(value) in str(answer)


@given(st.integers(), st.integers())
def test_a_whole_number_is_returned_if_it_is_large_enough(value, minimum):
    if value >= minimum:
        assert whole_number("it", value, minimum=minimum) == value
    else:
        with pytest.raises(ValueError, match=f"at least {minimum}"):
            whole_number("it", value, minimum=minimum)


@pytest.mark.parametrize("value", [True, 1.0, "1", None, Decimal(1)])
def test_what_is_no_int_is_no_whole_number(value):
    with pytest.raises(TypeError, match="it must be a whole number"):
        whole_number("it", value, minimum=0)


@given(st.floats(min_value=0, allow_infinity=False) | st.integers(0, 10**9))
def test_seconds_are_returned_as_a_float(value):
    found = seconds("it", value)
    assert type(found) is float
    assert found == value


@pytest.mark.parametrize("value", [None, math.inf, pytest.param(10**400, id="huge")])
def test_endless_seconds_are_no_limit(value):
    assert seconds("it", value) is None


@pytest.mark.parametrize("value", [-1, -0.001, -math.inf, math.nan])
def test_negative_seconds_are_refused(value):
    with pytest.raises(ValueError, match="zero or more seconds"):
        seconds("it", value)


@pytest.mark.parametrize("value", [True, "1", Decimal(1), [1]])
def test_seconds_are_numbers(value):
    with pytest.raises(TypeError, match="a number of seconds"):
        seconds("it", value)


@pytest.mark.parametrize(
    ("value", "expected"), [(None, None), (math.inf, None), (3, 3.0), (-2.5, -2.5)]
)
def test_a_moment_may_lie_in_the_past_and_infinity_is_never(value, expected):
    assert moment("it", value) == expected


@pytest.mark.parametrize(("value", "kind"), [(math.nan, ValueError), ("1", TypeError),
                                             (True, TypeError)])  # fmt: skip
def test_what_is_no_moment_is_refused(value, kind):
    with pytest.raises(kind, match="a moment of the clock"):
        moment("it", value)


@pytest.mark.parametrize("value", [None, print, int])
def test_a_callable_or_none_passes(value):
    optional_callable("it", value)


def test_what_cannot_be_called_is_refused():
    with pytest.raises(TypeError, match="it must be callable or None, not 1"):
        optional_callable("it", 1)


@pytest.mark.parametrize("value", [None, OSError, (OSError, KeyboardInterrupt), (), callable])
def test_exceptions_are_types_or_a_predicate(value):
    exceptions_or_predicate("it", value)


@pytest.mark.parametrize(("value", "named"), [(int, int), ((OSError, 3), 3), ("OSError",) * 2])
def test_what_is_no_exception_and_no_predicate_is_named(value, named):
    with pytest.raises(TypeError, match="it must be") as caught:
        exceptions_or_predicate("it", value)
    assert repr(named) in str(caught.value)


# -- numbers of subclasses: their arithmetic is users' code --------------------------------


class _Whole(int):
    def _never(self, *_: object) -> Any:
        raise AssertionError("a number's own arithmetic was asked")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = _never
    __floordiv__ = __neg__ = _never


class _Real(float):
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = _Whole._never
    __rtruediv__ = __pow__ = __neg__ = as_integer_ratio = _Whole._never


@pytest.mark.parametrize(
    "made",
    [
        Backoff(_Real(1), _Real(2), _Real(3), _Real(0.5), _Whole(4)),
        PanicRecovery(max_restarts=_Whole(3), within=_Real(9)),
        Drain(_Real(3)),
        Close(_Whole(3)),
        Resize(_Whole(3)),
        CoDel(_Real(1), _Real(10)),
        TaskOptions(
            timeout=_Real(3), ttl=_Real(2), priority=_Whole(4), retry_on_worker_death=_Whole(2)
        ),
        ChildSpec(print, "c", shutdown=_Real(3)),
        Rate(_Whole(3), _Real(2)),
        Limit(Rate(1), _Whole(3)),
        HeaderBounds(_Real(1), _Real(2), _Whole(3), _Whole(4), _Whole(5)),
        FailureRate(_Real(0.5), calls=_Whole(9), minimum=_Whole(3)),
        FailureRate(_Real(0.5), seconds=_Real(9)),
        BreakerRules(_Whole(3), _Real(2), _Whole(3), _Whole(2), _Real(4)),
    ],
    ids=lambda made: type(made).__name__,
)
def test_what_is_kept_is_no_number_of_a_subclass(made):
    for field in dataclasses.fields(made):
        value = getattr(made, field.name)
        assert not isinstance(value, _Whole | _Real), field.name


@pytest.mark.parametrize("make", [TokenBucket, LeakyBucket])
def test_no_arithmetic_of_users_numbers_runs_under_the_lock_of_a_limiter(make):
    limiter = make(per_second(_Whole(10)), _Whole(10), jitter=_Real(0.5))
    assert limiter.allow(_Whole(2))
    limiter.wait(_Whole(2), timeout=_Real(5))
    asyncio.run(limiter.awaits(_Whole(2), timeout=_Whole(5)))
    assert not limiter.allow(_Whole(9))
    limiter.set_temporary_limit(per_second(_Real(20)), _Whole(20), _Real(5))
    getattr(limiter, "drain_to" if make is TokenBucket else "fill_to")(_Whole(2))


def test_nor_under_that_of_a_limiter_with_tiers():
    limiter = MultiTierLimiter(bucket_ttl=_Real(9), max_buckets=_Whole(2), jitter=_Real(0.5))
    request = limiter.for_(route="GET /", resource="one")
    assert request.allow(_Whole(2))
    request.wait(_Whole(2), timeout=_Real(5))
    request.set_temporary_limit(per_second(_Whole(9)), _Whole(9), _Whole(5))
    limiter.pause_for(_Real(0))
    for n in range(4):
        assert limiter.for_(resource=n).allow()
