"""Ctrl-C while a pool is being made: at every point of it."""

from __future__ import annotations

import gc
import threading

import pykka
import pytest

from ion_actors import Pool
from tests import collect_garbage
from tests.interrupts import every_point, interrupt
from tests.workerpool.helpers import eventually


@pytest.mark.timeout(600)  # without the GIL, each collection looks through everything
@pytest.mark.filterwarnings("ignore:pool .* was never closed:ResourceWarning")
def test_a_pool_whose_making_was_interrupted_leaves_nothing() -> None:
    collect_garbage()
    threads = set(threading.enumerate())

    def make(point: int) -> str:
        where, outcome = interrupt(point, lambda: Pool(1))
        if isinstance(outcome, Pool):
            outcome.close()
        del outcome
        gc.collect()
        eventually(lambda: set(threading.enumerate()) <= threads, where)
        assert pykka.ActorRegistry.get_all() == [], where
        return where

    assert len(every_point(make)) > 50
