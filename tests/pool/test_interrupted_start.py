"""Ctrl-C while a pool is being made: at every point of it."""

from __future__ import annotations

import gc
import threading

import pykka
import pytest
from interrupts import every_point, interrupt

from ion_actors import Pool

from .helpers import eventually


@pytest.mark.filterwarnings("ignore:pool .* was never closed:ResourceWarning")
def test_a_pool_whose_making_was_interrupted_leaves_nothing() -> None:
    threads = set(threading.enumerate())

    def make(point: int) -> str:
        where, outcome = interrupt(point, lambda: Pool(2))
        if isinstance(outcome, Pool):
            outcome.close()
        del outcome
        gc.collect()
        eventually(lambda: set(threading.enumerate()) <= threads)
        assert pykka.ActorRegistry.get_all() == [], where
        return where

    assert len(every_point(make)) > 50
