"""What somebody at the dashboard may ask for, and how it is refused."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ion_actors import Cancelled, Pool, current_context
from ion_actors.dashboard.commands import CommandRefused, command
from ion_actors.dashboard.letters import letters_kept
from ion_actors.futures import Future

Occupy = Callable[[Pool], list[Future[Any]]]
Until = Callable[[Callable[[], object]], None]


def refused(status: int, text: str, pool: str, verb: str, body: dict[str, Any]) -> None:
    with pytest.raises(CommandRefused, match=text) as caught:
        command(pool, verb, body)
    assert caught.value.status == status


def test_resize(until: Until) -> None:
    with Pool(1, name="one") as pool:
        assert command("one", "resize", {"size": 3}) == {"size": 3}
        until(lambda: pool.size == 3)


@pytest.mark.parametrize("size", [None, 0, -1, 1.5, "3", True, [3]])
def test_no_size(size: object) -> None:
    with Pool(1, name="one") as pool:
        refused(400, "size must be", "one", "resize", {"size": size})
        refused(400, "size must be", "one", "resize", {})
        assert pool.size == 1


def test_pause_and_resume() -> None:
    with Pool(1, name="one") as pool:
        assert command("one", "pause", {}) == {"paused": True}
        assert pool.is_paused
        assert command("one", "resume", {}) == {"paused": False}
        assert not pool.is_paused


def test_cancel_what_waits_and_what_runs(occupy: Occupy, gate: threading.Event) -> None:
    with Pool(1, name="one") as pool:
        (runs,) = occupy(pool)
        waits = pool.submit(int)
        found = pool.snapshot()
        task = {"task": found.waiting_tasks[0].id}
        assert command("one", "cancel", task) == {"cancelled": True}
        assert waits.cancelled()
        refused(404, "has ended", "one", "cancel", task)
        running = {"task": found.workers[0].task_id}
        assert command("one", "cancel", running) == {"cancelled": False}
        assert not runs.done()
        gate.set()


@pytest.mark.parametrize("task", [None, 5, True, ["1"]])
def test_no_task(task: object) -> None:
    with Pool(1, name="one"):
        refused(400, "task must be a text", "one", "cancel", {"task": task})
        refused(404, "has ended", "one", "cancel", {"task": "x" * 1000})


def test_replay(until: Until) -> None:
    ran = threading.Event()
    with letters_kept(), Pool(1, name="one") as pool:
        pool.pause()
        pool.submit(ran.set)
        pool.purge()
        until(lambda: pool.snapshot().dead_letters)
        letter = {"letter": pool.snapshot().dead_letters[0].id}
        assert command("one", "replay", letter) == {"replayed": True}
        refused(404, "there is no dead letter", "one", "replay", letter)
        pool.resume()
        until(ran.is_set)


def test_a_replay_without_room(until: Until, occupy: Occupy, gate: threading.Event) -> None:
    with letters_kept(), Pool(1, 1, name="one") as pool:
        occupy(pool)
        pool.submit(int)
        pool.purge()
        pool.submit(int)
        until(lambda: pool.snapshot().dead_letters)
        letter = {"letter": pool.snapshot().dead_letters[0].id}
        refused(409, "full", "one", "replay", letter)
        gate.set()


def test_drain(until: Until) -> None:
    pool = Pool(1, name="one")
    assert command("one", "drain", {"timeout": 20}) == {"draining": True}
    until(lambda: pool.is_closed)
    refused(404, "there is no pool 'one'", "one", "resize", {"size": 2})


def test_a_pool_that_drains_is_left_alone(occupy: Occupy, gate: threading.Event) -> None:
    pool = Pool(1, name="one")
    occupy(pool)
    command("one", "drain", {})
    for verb in ("resize", "pause", "resume", "replay"):
        refused(409, "accepts nothing any more", "one", verb, {"size": 2})
    gate.set()
    pool.drain()


def test_a_drain_that_takes_too_long_can_be_helped(until: Until) -> None:
    pool = Pool(1, name="one")
    entered = threading.Event()

    def listens() -> None:
        entered.set()
        current_context().sleep(60)

    task = pool.submit(listens)
    assert entered.wait(30)
    command("one", "drain", {})
    assert command("one", "drain", {"timeout": 50}) == {"draining": True}
    assert command("one", "cancel", {"task": pool.snapshot().workers[0].task_id})
    until(lambda: pool.is_closed)
    assert isinstance(task.exception(), Cancelled)


@pytest.mark.parametrize("timeout", [-1, "soon", float("nan")])
def test_no_timeout(timeout: object) -> None:
    with Pool(1, name="one") as pool:
        refused(400, "timeout must be", "one", "drain", {"timeout": timeout})
        assert not pool.is_draining


def test_several_of_one_name(until: Until) -> None:
    with Pool(1, name="one") as first, Pool(1, name="one"):
        refused(404, "several pools have the name 'one'", "one", "resize", {"size": 2})
        own = {"pool": first.snapshot().id}
        command("one", "resize", {"size": 2, **own})
        until(lambda: first.size == 2)


def test_what_there_is_not() -> None:
    refused(404, "there is no pool 'none'", "none", "pause", {})
    refused(404, re.escape(r"there is no action '\x1b'"), "none", "\x1b", {})
    refused(400, "pool must be a text", "none", "pause", {"pool": 5})


def test_the_log_says_what_somebody_did(caplog: pytest.LogCaptureFixture, until: Until) -> None:
    with Pool(1, name="one") as pool:
        command("one", "resize", {"size": 2, "pool": pool.snapshot().id})
        command("one", "pause", {"note": "\n2026 forged"})
    records = [one for one in caplog.records if one.name == "ion_actors.dashboard"]
    texts = [one.getMessage() for one in records]
    assert texts[0] == "somebody at the dashboard asked pool 'one' to resize (size 2)"
    assert "\n" not in texts[1]
