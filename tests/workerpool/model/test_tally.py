"""Counting how tasks end."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ion_actors import PoolMetrics
from ion_actors.workerpool.model.metrics import Tally
from ion_actors.workerpool.model.outcomes import Outcome

outcomes = st.lists(st.sampled_from(Outcome))


def counts(tally):
    return {outcome: getattr(tally, outcome.value) for outcome in Outcome}


def tally_of(ended):
    tally = Tally()
    for outcome in ended:
        tally.count(outcome)
    return tally


@given(outcomes)
def test_every_outcome_has_a_count_of_its_own(ended):
    assert counts(tally_of(ended)) == {outcome: ended.count(outcome) for outcome in Outcome}


@given(outcomes, outcomes)
def test_adding_a_tally_is_as_good_as_counting_on(before, after):
    total = tally_of(before)
    total.add(tally_of(after))
    assert counts(total) == counts(tally_of(before + after))


def test_every_outcome_has_its_word_for_metrics():
    words = {outcome.name: outcome.status for outcome in Outcome}
    assert words == {
        "COMPLETED": "success",
        "FAILED": "error",
        "PANICKED": "panic",
        "CANCELLED": "cancelled",
    }


def test_the_snapshot_is_frozen_and_has_what_is_promised():
    fields = [field.name for field in dataclasses.fields(PoolMetrics)]
    promised = (
        "size, queue_size, queued, running, submitted, completed, failed, panicked, cancelled, "
        "rejected, restarts, dropped, delayed, retries, paused"
    )
    assert fields == re.split(", ", promised)
    with pytest.raises(dataclasses.FrozenInstanceError):
        PoolMetrics(*range(11)).size = 2
