"""The policy for panics: what is one, how many are too many, how long to wait."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ion_actors import Backoff, Directive, PanicRecovery
from ion_actors.workerpool.model.recovery import RestartWindow

backoffs = st.builds(
    Backoff,
    initial=st.floats(0, 10),
    factor=st.one_of(st.integers(1, 10**6), st.floats(1, 1e300)),
    maximum=st.floats(0, 100),
    jitter=st.floats(0, 1),
    retries=st.integers(0, 10_000),
)


class Stray(BaseException):
    """Neither an Exception nor one of Python's own."""


@given(backoffs, st.integers(1, 20_000), st.floats(0, 1))
def test_a_wait_is_between_zero_and_the_maximum(backoff, failures, chance):
    delay = backoff.delay(failures, lambda: chance)
    if failures > backoff.retries:
        assert delay is None
    else:
        assert 0 <= delay <= backoff.maximum


@given(backoffs, st.integers(1, 5000))
def test_without_chance_no_wait_is_shorter_than_the_one_before(backoff, failures):
    now, later = (backoff.delay(n, lambda: 0.0) for n in (failures, failures + 1))
    if later is not None:
        assert now <= later


@given(backoffs, st.integers(1, 5000))
def test_jitter_shortens_a_wait_by_at_most_its_part(backoff, failures):
    full, least = (backoff.delay(failures, lambda chance=chance: chance) for chance in (0, 1))
    if full is not None:
        assert least == pytest.approx(full * (1 - backoff.jitter))


def test_waits_grow_by_the_factor_up_to_the_maximum():
    backoff = Backoff(initial=1, factor=3, maximum=20, jitter=0, retries=4)
    assert [backoff.delay(n) for n in range(1, 6)] == [1, 3, 9, 20, None]


def test_a_huge_factor_reaches_the_maximum_at_the_second_failure():
    assert Backoff(factor=1e9, maximum=7, jitter=0).delay(2) == 7


def test_the_default_gives_up_within_two_seconds():
    backoff, total, failures = Backoff(), 0.0, 1
    while (delay := backoff.delay(failures, lambda: 0.0)) is not None:
        total += delay
        failures += 1
    assert total == pytest.approx(1.55)


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"initial": -1}, ValueError),
        ({"initial": math.nan}, ValueError),
        ({"initial": None}, TypeError),
        ({"maximum": math.inf}, ValueError),
        ({"maximum": "1"}, TypeError),
        ({"factor": 0.5}, ValueError),
        ({"factor": math.inf}, ValueError),
        ({"factor": math.nan}, ValueError),
        ({"factor": "2"}, TypeError),
        ({"jitter": 1.1}, ValueError),
        ({"jitter": True}, TypeError),
        ({"retries": -1}, ValueError),
        ({"retries": 1.0}, TypeError),
    ],
)
def test_a_senseless_backoff_is_refused_by_name_and_value(wrong, kind):
    [(name, value)] = wrong.items()
    with pytest.raises(kind, match=name) as caught:
        Backoff(**wrong)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"handler": 1}, TypeError),
        ({"max_restarts": -1}, ValueError),
        ({"max_restarts": True}, TypeError),
        ({"within": 0}, ValueError),
        ({"within": math.inf}, ValueError),
        ({"within": None}, ValueError),
        ({"within": "60"}, TypeError),
        ({"backoff": 1.0}, TypeError),
        ({"is_panic": 1}, TypeError),
        ({"is_panic": int}, TypeError),
        ({"is_panic": (OSError, 1)}, TypeError),
        ({"is_panic": (OSError, len)}, TypeError),
        ({"decide": 1}, TypeError),
        ({"decide": {OSError: "stop"}}, TypeError),
        ({"decide": {int: Directive.STOP}}, TypeError),
        ({"decide": {"OSError": Directive.STOP}}, TypeError),
    ],
)
def test_a_senseless_policy_is_refused_by_name(wrong, kind):
    [name] = wrong
    with pytest.raises(kind, match=name):
        PanicRecovery(**wrong)


@pytest.mark.parametrize("error", [SystemExit(), KeyboardInterrupt(), GeneratorExit(), Stray()])
@pytest.mark.parametrize("is_panic", [None, (), OSError, lambda error: False])
def test_what_is_no_exception_is_always_a_panic(error, is_panic):
    assert PanicRecovery(is_panic=is_panic).calls_it_panic(error)


@pytest.mark.parametrize(
    ("is_panic", "expected"),
    [
        (None, False),
        ((), False),
        (OSError, True),
        (ValueError, False),
        ((ValueError, OSError), True),
        (lambda error: error.args == ("boom",), True),
        (lambda error: 0, False),
    ],
)
def test_is_panic_widens_what_counts(is_panic, expected):
    assert PanicRecovery(is_panic=is_panic).calls_it_panic(FileNotFoundError("boom")) is expected


def test_a_predicate_that_fails_is_the_callers_business():
    with pytest.raises(ZeroDivisionError):
        PanicRecovery(is_panic=lambda error: 1 / 0).calls_it_panic(ValueError())


FAMILY = [BaseException, Exception, OSError, ConnectionError, ConnectionResetError, ValueError]


@given(
    st.dictionaries(st.sampled_from([*FAMILY, SystemExit]), st.sampled_from(Directive)),
    st.sampled_from([*FAMILY, SystemExit, Stray]),
    st.sampled_from([None, (), OSError]),
)
def test_the_closest_rule_counts_and_else_the_default(rules, kind, is_panic):
    directive = PanicRecovery(decide=rules, is_panic=is_panic).directive(kind())
    matching = [one for one in rules if issubclass(kind, one)]
    if matching:
        closest = max(matching, key=lambda one: len(one.__mro__))
        assert directive is rules[closest]
    elif PanicRecovery(is_panic=is_panic).calls_it_panic(kind()):
        assert directive is Directive.RESTART
    else:
        assert directive is Directive.RESUME


@given(st.sampled_from(Directive), st.sampled_from([*FAMILY, Stray]))
def test_a_callable_decides_unless_it_has_no_answer(directive, kind):
    assert PanicRecovery(decide=lambda error: directive).directive(kind()) is directive
    undecided = PanicRecovery(decide=lambda error: None)
    assert undecided.directive(kind()) is PanicRecovery().directive(kind())


def test_a_callable_that_answers_something_else_is_the_callers_business():
    with pytest.raises(TypeError, match="'stop'"):
        PanicRecovery(decide=lambda error: "stop").directive(ValueError())


def test_the_rules_of_a_policy_do_not_change_and_it_can_be_hashed():
    rules = {OSError: Directive.STOP}
    policy = PanicRecovery(decide=rules)
    rules[OSError] = Directive.ESCALATE
    assert policy.directive(OSError()) is Directive.STOP
    assert hash(policy) == hash(PanicRecovery(decide=rules))
    assert policy != PanicRecovery(decide=rules)


def restarts_allowed(policy, moments):
    window, answers = RestartWindow(), []
    for now in moments:
        window, allowed = window.allow(policy, now)
        answers.append(allowed)
    return answers, window


def test_any_number_of_restarts_is_allowed_by_default():
    answers, window = restarts_allowed(PanicRecovery(), range(1000))
    assert all(answers)
    assert window.recent == ()  # and none is remembered


def test_no_restart_is_allowed_with_a_maximum_of_zero():
    assert restarts_allowed(PanicRecovery(max_restarts=0), [0])[0] == [False]


def test_restarts_that_are_long_past_do_not_count():
    policy = PanicRecovery(max_restarts=2, within=10)
    assert restarts_allowed(policy, [0, 1, 10.5, 11.5, 12])[0] == [True, True, True, True, False]


@given(
    st.lists(st.floats(0, 5), max_size=50),
    st.integers(0, 5),
    st.floats(0.1, 20),
)
def test_more_than_the_maximum_within_the_window_is_never_allowed(gaps, most, within):
    policy = PanicRecovery(max_restarts=most, within=within)
    now, window, times = 0.0, RestartWindow(), []
    for gap in gaps:
        now += gap
        window, allowed = window.allow(policy, now)
        times.append(now)
        recent = [at for at in times if at > now - within]
        assert allowed is (len(recent) <= most)
        assert len(window.recent) == len(recent)  # and it remembers no more than it must
