"""Messages that make no sense are refused when they are made, not when they arrive."""

from __future__ import annotations

import math

import pytest

from ion_actors import Close, Drain, Submit, TrySubmit


@pytest.mark.parametrize("message", [Drain, Close])
@pytest.mark.parametrize("timeout", [None, 0, 1, 0.5, math.inf])
def test_a_timeout_in_seconds_is_taken(message, timeout):
    assert message(timeout).timeout == timeout


@pytest.mark.parametrize("message", [Drain, Close])
@pytest.mark.parametrize("timeout", ["1", True, -1, math.nan, [1]])
def test_a_senseless_timeout_is_refused(message, timeout):
    with pytest.raises((TypeError, ValueError), match="timeout"):
        message(timeout)


def test_messages_are_frozen():
    with pytest.raises(AttributeError):
        Drain().timeout = 1


def test_no_two_submissions_share_their_keywords():
    assert Submit(print).kwargs is not Submit(print).kwargs


def test_a_try_submit_is_a_submit_for_those_who_only_look():
    assert isinstance(TrySubmit(print), Submit)
