"""A snapshot shows what there is, as JSON can hold it, and never a task's arguments."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ion_actors
from ion_actors import Context, Pool, QueueFull, background
from ion_actors.adaptive import AdaptiveLimit
from ion_actors.circuit import CircuitBreaker
from ion_actors.dashboard import actions
from ion_actors.dashboard.letters import letters_kept
from ion_actors.futures import Future
from ion_actors.ratelimit import MultiTierLimiter, TokenBucket, per_second
from ion_actors.semaphore import WeightedSemaphore
from ion_actors.supervision import Supervisor, child
from ion_actors.testing import VirtualClock

PATIENCE = 30.0
Occupy = Callable[[Pool], list[Future[Any]]]
Until = Callable[[Callable[[], object]], None]


def in_json(snapshot: Any) -> dict[str, Any]:
    """As a reader elsewhere gets it."""
    found = snapshot.as_dict()
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text) == found
    assert isinstance(found, dict)
    return found


def named(name: str) -> dict[str, Any]:
    """The pool of that name, in a snapshot of the process."""
    pools = in_json(ion_actors.snapshot())["pools"]
    (found,) = [one for one in pools if one["name"] == name]
    assert isinstance(found, dict)
    return found


# -- one pool ------------------------------------------------------------------------------


def test_a_pool_shows_who_works_and_who_waits(clock: VirtualClock, occupy: Occupy) -> None:
    pool = Pool(2, name="shown", stuck_after=5.0, context=Context(background(), clock=clock))
    with pool:
        occupy(pool)
        pool.options(name="next", key="customer-7", priority=2).submit(print)
        clock.advance(4.0)
        found = in_json(pool.snapshot())
        assert [one["state"] for one in found["workers"]] == ["busy", "busy"]
        assert found["stuck"] == []
        clock.advance(2.0)
        found = in_json(pool.snapshot())
        assert (found["size"], found["running"], found["queued"]) == (2, 2, 1)
        assert (found["queue_time"], found["run_time"]) == (6.0, 6.0)
        assert [one["state"] for one in found["workers"]] == ["stuck", "stuck"]
        assert all("in hold" in one["stack"] for one in found["workers"])
        (waiting,) = found["waiting_tasks"]
        assert waiting["name"] == "next"
        assert (waiting["key"], waiting["priority"], waiting["age"]) == ("'customer-7'", 2, 6.0)
        assert [one["age"] for one in found["stuck"]] == [6.0, 6.0]
        assert {one["task_id"] for one in found["stuck"]} == {
            one["task_id"] for one in found["workers"]
        }
        pool.close(0)


def test_an_idle_pool(occupy: Occupy) -> None:
    with Pool(1, name="idle", queue_size=3) as pool:
        assert pool.submit(lambda: 1).result(PATIENCE) == 1
        found = in_json(pool.snapshot())
    assert found["completed"] == 1
    assert [one["state"] for one in found["workers"]] == ["idle"]
    assert found["workers"][0]["stack"] == ""
    assert (found["queue_time"], found["run_time"]) == (None, None)
    assert found["queue_size"] == 3
    assert in_json(pool.snapshot())["state"] == "closed"


def test_numbers_are_those_of_the_metrics(occupy: Occupy) -> None:
    with Pool(1, queue_size=1) as pool:
        occupy(pool)
        pool.submit(print)
        with pytest.raises(QueueFull):
            pool.try_submit(print)
        found, metrics = in_json(pool.snapshot()), dataclasses.asdict(pool.metrics())
        for name in ("size", "queued", "running", "submitted", "rejected", "delayed", "paused"):
            assert found[name] == metrics[name], name
        assert found["rejected"] == 1
        pool.close(0)


def test_it_can_not_be_changed() -> None:
    with Pool(1) as pool:
        found = pool.snapshot()
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.size = 2  # type: ignore[misc]
    assert not hasattr(found, "__dict__")


@pytest.mark.parametrize("wrong", [None, 1, "yes"])
def test_a_senseless_argument_is_refused(wrong: Any) -> None:
    with Pool(1) as pool, pytest.raises(TypeError, match="stacks must be True or False"):
        pool.snapshot(stacks=wrong)
    with pytest.raises(TypeError, match="stacks must be True or False"):
        ion_actors.snapshot(stacks=wrong)


def test_no_stacks_unless_they_are_wanted(occupy: Occupy) -> None:
    with Pool(1, name="without") as pool:
        occupy(pool)
        assert in_json(pool.snapshot(stacks=False))["workers"][0]["stack"] == ""
        assert in_json(pool.snapshot())["workers"][0]["stack"] != ""
        pool.close(0)


def test_of_a_long_queue_the_oldest_are_shown(occupy: Occupy) -> None:
    with Pool(1) as pool:
        occupy(pool)
        for number in range(200):
            pool.options(name=f"task {number}").submit(print)
        found = in_json(pool.snapshot())
        assert found["queued"] == 200
        assert [one["name"] for one in found["waiting_tasks"]] == [
            f"task {number}" for number in range(50)
        ]
        pool.close(0)


def test_a_task_keeps_its_id(occupy: Occupy) -> None:
    with Pool(1) as pool:
        occupy(pool)
        pool.submit(print)
        before, after = in_json(pool.snapshot()), in_json(pool.snapshot())
        assert before["waiting_tasks"][0]["id"] == after["waiting_tasks"][0]["id"]
        assert before["workers"][0]["task_id"] == after["workers"][0]["task_id"]
        assert before["workers"][0]["task_id"] != after["waiting_tasks"][0]["id"]
        pool.close(0)


# -- whatever users call things ------------------------------------------------------------


class Hostile:
    """Its representation is the user's code, which nobody may run."""

    def __repr__(self) -> str:
        raise AssertionError("it was asked for its repr")

    __str__ = __repr__


class Name(str):
    """A text whose methods are the user's code."""

    __slots__ = ()

    def __str__(self) -> str:
        raise AssertionError("it was asked for its str")

    def isprintable(self) -> bool:
        raise AssertionError("it was asked what it is made of")


SECRET = "the-password-of-somebody"


@given(name=st.text(alphabet=st.characters(), max_size=400), plain=st.booleans())
def test_any_name_makes_json_in_a_line(name: str, plain: bool) -> None:
    gate, began = threading.Event(), threading.Event()

    def wait(*_: Any, **__: Any) -> None:
        began.set()
        gate.wait(PATIENCE)

    given_name = name if plain else Name(name)
    with Pool(1) as pool:
        options = pool.options(name=given_name, key=Hostile())
        options.submit(wait, SECRET, key=Hostile())
        began.wait(PATIENCE)
        options.submit(wait, [SECRET], secret=SECRET)
        found = in_json(ion_actors.snapshot())
        mine = in_json(pool.snapshot())
        gate.set()
    assert SECRET not in json.dumps(found)
    shown = [mine["workers"][0]["task"], mine["waiting_tasks"][0]["name"]]
    assert shown[0] == shown[1]
    assert shown[0].isprintable()
    assert mine["waiting_tasks"][0]["key"] == "<Hostile>"
    if len(name) <= 300 and name.isprintable():
        assert shown[0] == name


# -- all of the process --------------------------------------------------------------------


def test_all_that_there_is_is_found() -> None:
    semaphore = WeightedSemaphore(3, name="cpu")
    semaphore.acquire(2)
    breaker = CircuitBreaker("database", failure_threshold=1)
    breaker.trip(float("inf"))
    bucket = TokenBucket(per_second(5), 2, name="api")
    tiers = MultiTierLimiter(name="tiers")
    tiers.pause_for(60.0)
    limit = AdaptiveLimit(name="adaptive")
    with limit.hold():
        found = in_json(ion_actors.snapshot())

    def of(kind: str, name: str) -> dict[str, Any]:
        (one,) = [one for one in found[kind] if one["name"] == name]
        assert isinstance(one, dict)
        return one

    assert of("semaphores", "cpu") == {"name": "cpu", "limit": 3, "available": 1, "waiting": 0}
    assert of("breakers", "database")["state"] == "open"
    assert of("breakers", "database")["retry_after"] is None
    assert of("limiters", "api")["rate"] == "5/s"
    assert of("limiters", "api")["tokens"] == 2.0
    assert of("limiters", "tiers")["paused"] is True
    assert of("adaptive", "adaptive")["in_flight"] == 1
    assert (found["pid"], found["version"]) == (os.getpid(), ion_actors.__version__)
    assert found["since"] <= found["time"]
    assert bucket.waiting == 0


def test_what_nobody_refers_to_is_not_shown() -> None:
    WeightedSemaphore(1, name="forgotten")
    gc.collect()
    assert "forgotten" not in json.dumps(ion_actors.snapshot().as_dict())


def test_a_pool_that_has_ended_is_not_shown_unless_it_is_broken() -> None:
    def fail() -> None:
        raise SystemExit("no more")

    with Pool(1, name="gone") as gone:
        pass
    ended = Pool(1, name="given up", panic_recovery=ion_actors.PanicRecovery(max_restarts=0))
    assert isinstance(ended.submit(fail).exception(PATIENCE), ion_actors.TaskPanicked)
    ended.close()
    shown = {one["name"]: one for one in in_json(ion_actors.snapshot())["pools"]}
    assert gone.name not in shown
    assert shown["given up"]["state"] == "closed"
    assert shown["given up"]["broken"].startswith("BrokenPool: ")


def test_a_tree_shows_its_children() -> None:
    inner = child(
        lambda: Supervisor([child(lambda: Pool(1, name="leaf"), id="leaf")], name="inner"),
        id="branch",
    )
    with Supervisor([inner], name="outer", strategy="rest_for_one"):
        found = in_json(ion_actors.snapshot())
        (tree,) = [one for one in found["supervisors"] if one["name"] == "outer"]
        assert (tree["state"], tree["strategy"]) == ("running", "rest_for_one")
        (branch,) = tree["children"]
        assert (branch["id"], branch["kind"]) == ("branch", "supervisor")
        assert branch["supervisor"]["name"] == "inner"
        (leaf,) = branch["supervisor"]["children"]
        assert (leaf["kind"], leaf["pool"], leaf["state"]) == ("pool", "leaf", "running")
        assert named("leaf")["size"] == 1
        assert "inner" not in [one["name"] for one in found["supervisors"]]
    assert "outer" not in json.dumps(ion_actors.snapshot().as_dict())


def test_a_class_that_its_user_has_broken_hides_nothing_else() -> None:
    class Broken(WeightedSemaphore):
        @property
        def name(self) -> str:
            raise RuntimeError("no name today")

    broken, sound = Broken(1), WeightedSemaphore(1, name="sound")
    shown = [one["name"] for one in in_json(ion_actors.snapshot())["semaphores"]]
    assert "sound" in shown
    assert sound.available == broken.available == 1


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_forked_child_does_not_show_the_pools_of_its_parent() -> None:
    def fail() -> None:
        raise SystemExit("no more")

    semaphore = WeightedSemaphore(2, name="copied")
    broken = Pool(1, panic_recovery=ion_actors.PanicRecovery(max_restarts=0))
    broken.submit(fail).exception(PATIENCE)
    broken.close()
    with Pool(1, name="parent's") as pool:
        reader, writer = os.pipe()
        child_pid = os.fork()
        if child_pid == 0:
            try:
                found = ion_actors.snapshot()
                state = pool.snapshot().state
                names = [one.name for one in found.semaphores]
                told = json.dumps([len(found.pools), found.pid == os.getpid(), state, names])
                os.write(writer, told.encode())
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            pools, own_pid, state, names = json.loads(pipe.read())
        os.waitpid(child_pid, 0)
        assert (pools, own_pid, state) == (0, True, "closed")
        assert semaphore.name in names


# -- what may be done ----------------------------------------------------------------------


def test_a_waiting_task_is_cancelled_by_its_id(occupy: Occupy) -> None:
    with Pool(1, name="to cancel") as pool:
        occupy(pool)
        first, second = pool.submit(print, 1), pool.submit(print, 2)
        found = named("to cancel")
        task_id = found["waiting_tasks"][1]["id"]
        core = actions.find_pool("to cancel")
        assert actions.cancel(core, task_id) is True
        assert second.cancelled()
        assert not first.done()
        with pytest.raises(LookupError, match="has ended"):
            actions.cancel(core, task_id)
        pool.close(0)


def test_a_running_task_is_asked_to_stop() -> None:
    began = threading.Event()

    def listen() -> bool:
        began.set()
        return ion_actors.current_context().wait(timeout=PATIENCE)

    with Pool(1, name="to ask") as pool:
        task = pool.submit(listen)
        began.wait(PATIENCE)
        (worker,) = named("to ask")["workers"]
        assert actions.cancel(actions.find_pool("to ask"), worker["task_id"]) is False
        assert task.exception(PATIENCE) is None or task.cancelled()


@pytest.mark.parametrize("wrong", ["0", "x", "-1", "", "99999999999"])
def test_what_is_not_there_is_said_so(wrong: str) -> None:
    with Pool(1, name="empty"):
        core = actions.find_pool("empty")
        with pytest.raises(LookupError):
            actions.cancel(core, wrong)
        with pytest.raises(LookupError):
            actions.replay(core, wrong)
    with pytest.raises(LookupError, match="there is no pool 'empty'"):
        actions.find_pool("empty")


def test_of_two_pools_of_a_name_the_id_decides() -> None:
    with Pool(1, name="twin") as one, Pool(1, name="twin"):
        with pytest.raises(LookupError, match="several pools have the name 'twin'"):
            actions.find_pool("twin")
        found = one.snapshot()
        assert actions.find_pool(found.id) is actions.find_pool(found.id)
        actions.resize(actions.find_pool(found.id), 3).result(PATIENCE)
        assert one.size == 3


def test_a_pool_is_paused_resumed_and_drained() -> None:
    with Pool(1, name="obedient") as pool:
        core = actions.find_pool("obedient")
        actions.pause(core)
        task = pool.submit(lambda: "done")
        assert named("obedient")["paused"] is True
        actions.resume(core)
        assert task.result(PATIENCE) == "done"
        actions.drain(core).result(PATIENCE)
        assert pool.is_closed
        with pytest.raises(ion_actors.PoolClosed):
            actions.resize(core, 2)


# -- dead letters --------------------------------------------------------------------------


def test_dead_letters_are_kept_while_somebody_may_look_and_can_be_replayed(
    occupy: Occupy, gate: threading.Event, until: Until
) -> None:
    ran: list[str] = []
    with Pool(1, name="letters") as pool:
        occupy(pool)
        with letters_kept():
            pool.options(name="lost").submit(ran.append, SECRET)
            pool.purge()
            until(lambda: named("letters")["dead_letters"])
            (letter,) = named("letters")["dead_letters"]
            assert (letter["name"], letter["reason"]) == ("lost", "purged")
            assert "was purged" in letter["error"]
            assert SECRET not in json.dumps(ion_actors.snapshot().as_dict())
            core = actions.find_pool("letters")
            task = actions.replay(core, letter["id"])
            assert named("letters")["dead_letters"] == []
            with pytest.raises(LookupError, match="was it put back"):
                actions.replay(core, letter["id"])
            gate.set()
            task.result(PATIENCE)
            assert ran == [SECRET]
        pool.purge()
        assert named("letters")["dead_letters"] == []
        assert named("letters")["dropped"] == {"purged": 1}


def test_a_pool_that_is_made_later_keeps_its_letters_too(occupy: Occupy, until: Until) -> None:
    with letters_kept(), letters_kept(), Pool(1, name="later", queue_size=1) as pool:
        occupy(pool)
        pool.submit(print)
        pool.purge()
        until(lambda: named("later")["dead_letters"])
        pool.submit(print)  # there is no room any more
        (letter,) = named("later")["dead_letters"]
        with pytest.raises(QueueFull):
            actions.replay(actions.find_pool("later"), letter["id"])
        assert named("later")["dead_letters"] == [letter | {"age": pytest.approx(0, abs=PATIENCE)}]
        pool.close(0)


def test_only_the_latest_letters_are_kept(occupy: Occupy, until: Until) -> None:
    with letters_kept(), Pool(1, name="many") as pool:
        occupy(pool)
        for number in range(150):
            pool.options(name=str(number)).submit(print)
        pool.purge()
        assert pool.dead_letters.join(PATIENCE)
        found = named("many")["dead_letters"]
        assert [one["name"] for one in found] == [str(number) for number in range(50, 150)]
        pool.close(0)
