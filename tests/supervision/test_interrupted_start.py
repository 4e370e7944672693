"""A tree whose start was interrupted, or found no thread, can be ended by everybody."""

from __future__ import annotations

import logging
import threading

import pytest

from ion_actors.actors import ActorThread
from ion_actors.supervision import Supervisor, SupervisorState, child
from tests.interrupts import every_point, interrupt
from tests.supervision.helpers import Echo

PATIENCE = 30.0


def ends(tree: Supervisor) -> bool:
    closer = threading.Thread(target=tree.close, args=(PATIENCE,), daemon=True)
    closer.start()
    closer.join(PATIENCE)
    return not closer.is_alive() and tree.state is SupervisorState.STOPPED


def test_a_start_that_is_interrupted_at_any_point_leaves_a_tree_that_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL + 1)

    def at(point: int) -> str:
        tree = Supervisor([child(Echo, id="echo")])
        where, _ = interrupt(point, tree.start, spared=())
        assert ends(tree), where
        return where

    points = every_point(at)
    assert any("_ion_start_thread" in point for point in points)


@pytest.mark.filterwarnings("ignore")
def test_a_tree_for_which_there_is_no_thread_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise RuntimeError("can't start new thread")

    tree = Supervisor([child(Echo, id="echo")])
    with monkeypatch.context() as patch:
        patch.setattr(ActorThread, "start", full)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            tree.start()
    assert ends(tree)
    assert tree.wait(timeout=PATIENCE)
