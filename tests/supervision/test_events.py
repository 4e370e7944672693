"""Who is told what, where, and what happens if they fail."""

from __future__ import annotations

import logging
import pickle
import threading

import pytest

from ion_actors.supervision import Lifecycle, Supervisor, child
from tests.supervision.helpers import PATIENCE, Diary, Echo, eventually


def test_a_subscription_hears_a_life_in_order():
    tree = Supervisor([child(Echo, id="a"), child(Echo, id="b")], name="app")
    diary = Diary(tree)
    with tree:
        tree["a"].tell(ValueError("broken"))
        diary.await_(Lifecycle.RESTARTED, "a")
    assert diary.words() == [
        "a started", "b started", "a panicked", "a restarted", "b stopped", "a stopped",
    ]  # fmt: skip
    assert str(diary.events[2]) == "app/a panicked: ValueError('broken')"
    assert [one.restarts for one in diary.events] == [0, 0, 0, 1, 0, 1]


def test_a_subscription_below_hears_what_is_below():
    def inner():
        return Supervisor([Echo], name="inner")

    with Supervisor([child(inner, id="io")], name="app", max_restarts=3) as tree:
        above, below = Diary(tree), Diary(tree["io"])
        tree["io"]["Echo"].tell(ValueError("broken"))
        above.await_(Lifecycle.RESTARTED, "Echo")
        below.await_(Lifecycle.RESTARTED, "Echo")
        assert [one.path for one in above.events] == [("app", "io", "Echo")] * 2
        assert [one.path for one in below.events] == [("inner", "Echo")] * 2


def test_a_subscriber_runs_on_a_thread_of_its_own_and_may_block():
    hold, threads = threading.Event(), []

    def slow(event):
        threads.append(threading.current_thread().name)
        assert hold.wait(PATIENCE)

    with Supervisor([Echo], name="app") as tree:
        tree.subscribe(slow)
        first = tree["Echo"]
        first.tell(ValueError("broken"))
        eventually(lambda: tree.which_children()[0].restarts == 1)
        hold.set()
    assert set(threads) == {"app-events"}


@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit(1)], ids=["error", "exit"])
def test_what_a_subscriber_raises_is_logged_and_harms_nobody(error, caplog):
    def bad(event):
        raise error

    with Supervisor([Echo]) as tree:
        tree.subscribe(bad)
        diary = Diary(tree)
        with caplog.at_level(logging.ERROR, "ion_actors"):
            tree["Echo"].tell(ValueError("broken"))
            diary.await_(Lifecycle.RESTARTED, "Echo")
    assert [one for one in caplog.records if "a subscriber failed on" in one.getMessage()]


def test_who_unsubscribes_hears_no_more():
    with Supervisor([Echo], max_restarts=3) as tree:
        heard, other = Diary(tree), Diary(tree)
        tree["Echo"].tell(ValueError("broken"))
        other.await_(Lifecycle.RESTARTED, "Echo")
        heard.await_(Lifecycle.RESTARTED, "Echo")
        heard.subscription.remove()
        heard.subscription.remove()
        tree["Echo"].tell(ValueError("broken"))
        other.await_(Lifecycle.RESTARTED, "Echo", 2)
    assert len(heard.events) == 2


def test_who_is_unsubscribed_by_another_subscriber_hears_no_more():
    heard = []
    tree = Supervisor([Echo])
    tree.subscribe(lambda _: second.remove())
    second = tree.subscribe(heard.append)
    with tree:
        pass
    assert heard == []


def test_a_subscriber_may_stop_the_tree():
    tree = Supervisor([Echo], max_restarts=0)

    def stop(event):
        if event.kind is Lifecycle.ENDED:
            tree.drain()

    tree = Supervisor([child(Echo, restart="transient")])
    tree.subscribe(stop)
    tree.start()
    tree["Echo"].tell("stop")
    assert tree.wait(PATIENCE) is True
    tree.close()


def test_an_event_can_be_pickled():
    with Supervisor([Echo]) as tree:
        diary = Diary(tree)
    event = diary.await_(Lifecycle.STOPPED, "Echo")
    assert pickle.loads(pickle.dumps(event)) == event
