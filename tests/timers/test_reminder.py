"""Messages to actors that are sent later: ``tell_after``."""

from __future__ import annotations

import functools
import gc
import os
import queue
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pykka
import pytest

from ion_actors import Context, Drain, Pool, PoolState, Submit, Worker, tell_after
from ion_actors.clock import system_clock
from ion_actors.delivery import CALLBACK_THREADS
from ion_actors.testing import VirtualClock
from tests.workerpool.helpers import PATIENCE, Gate, eventually


class Notes(pykka.ThreadingActor):
    """Keeps what it is told."""

    use_daemon_thread = True

    def __init__(self) -> None:
        super().__init__()
        self.got: list[Any] = []
        self.come = threading.Semaphore(0)

    def on_receive(self, message: Any) -> Any:
        if message == "got?":
            return list(self.got)
        self.got.append(message)
        self.come.release()
        return None


@pytest.fixture
def notes() -> Iterator[pykka.ActorRef[Notes]]:
    ref = Notes.start()
    yield ref
    ref.stop()


def test_it_is_sent_after_so_many_seconds(
    clock: VirtualClock, notes: pykka.ActorRef[Notes]
) -> None:
    with Context(clock=clock):
        later, soon = tell_after(notes, 5, "later"), tell_after(notes, 2, "soon")
    assert later.pending
    clock.advance(1.5)
    assert notes.ask("got?") == []
    clock.advance(0.5)
    assert notes.ask("got?") == ["soon"]
    assert (soon.pending, later.pending) == (False, True)
    clock.advance(3)
    assert notes.ask("got?") == ["soon", "later"]
    assert clock.timers == 0


def test_by_the_real_clock_too(notes: pykka.ActorRef[Notes]) -> None:
    began = system_clock.monotonic()
    tell_after(notes, 0.05, "hello")
    eventually(lambda: notes.ask("got?"))
    assert system_clock.monotonic() - began >= 0.05
    tell_after(notes, 0, "at once")
    eventually(lambda: notes.ask("got?") == ["hello", "at once"])


def test_a_clock_may_be_given(clock: VirtualClock, notes: pykka.ActorRef[Notes]) -> None:
    tell_after(notes, 1, None, clock=clock)
    clock.advance(1)
    assert notes.ask("got?") == [None]


def test_it_can_be_called_off(clock: VirtualClock, notes: pykka.ActorRef[Notes]) -> None:
    reminder = tell_after(notes, 1, "never", clock=clock)
    assert reminder.cancel()
    assert not reminder.cancel()
    assert not reminder.pending
    assert clock.timers == 0
    clock.advance(1)
    sent = tell_after(notes, 1, "sent", clock=clock)
    clock.advance(1)
    assert not sent.cancel()
    assert notes.ask("got?") == ["sent"]


def test_what_is_called_off_is_let_go(clock: VirtualClock, notes: pykka.ActorRef[Notes]) -> None:
    class Thing:
        pass

    thing = Thing()
    gone = weakref.ref(thing)
    reminder = tell_after(notes, 1, thing, clock=clock)
    del thing
    gc.collect()
    assert gone() is not None
    reminder.cancel()
    gc.collect()
    assert gone() is None


def test_an_actor_that_has_stopped_is_told_nothing_and_nobody_hears_of_it(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    plain, own = Notes.start(), Pool(1)
    for ref in (plain, own.actor_ref):
        tell_after(ref, 1, Drain(1), clock=clock)
    plain.stop()
    own.close()
    clock.advance(1)
    CALLBACK_THREADS.flush(PATIENCE)
    assert not [one for one in caplog.records if one.levelname in ("WARNING", "ERROR")]
    assert not plain.actor_inbox.qsize()  # type: ignore[attr-defined]


def test_it_keeps_no_actor_alive(clock: VirtualClock) -> None:
    ref = Notes.start()
    actor = ref._actor_weakref
    reminder = tell_after(ref, 3600, "still there?", clock=clock)
    ref.stop()
    del ref

    def gone() -> bool:
        gc.collect()
        return actor() is None

    eventually(gone)
    assert reminder.pending
    reminder.cancel()


def test_a_pool_that_is_to_be_told_something_can_be_forgotten(clock: VirtualClock) -> None:
    pools = [Pool(1)]
    reminder = tell_after(pools[0].actor_ref, 3600, Drain(1), clock=clock)
    with pytest.warns(ResourceWarning, match="was never closed"):
        _forget(pools)
    reminder.cancel()


def _forget(things: list[Any]) -> None:
    things.clear()
    gc.collect()


def test_a_pool_can_be_told(clock: VirtualClock) -> None:
    done = threading.Event()
    pool = Pool(1, 0)
    tell_after(pool.actor_ref, 1, Submit(done.set), clock=clock)
    tell_after(pool.actor_ref, 2, Drain(PATIENCE), clock=clock)
    clock.advance(1)
    assert done.wait(PATIENCE)
    clock.advance(1)
    eventually(lambda: pool.state is PoolState.CLOSED)


def test_the_clock_does_not_wait_for_a_full_pool(
    clock: VirtualClock, notes: pykka.ActorRef[Notes]
) -> None:
    gate = Gate()
    with Pool(1, 0) as pool:
        pool.submit(gate)
        gate.await_entered()
        tell_after(pool.actor_ref, 1, Submit(pow, (2, 2)), clock=clock)
        tell_after(notes, 1, "hello", clock=clock)
        clock.advance(1)
        assert notes.ask("got?") == ["hello"]
        eventually(lambda: pool.dump().waiting == 1)
        gate.open()


def test_a_bounded_inbox_does_not_hold_up_the_clock(
    clock: VirtualClock, notes: pykka.ActorRef[Notes]
) -> None:
    class Bounded(Notes):
        @staticmethod
        def _create_actor_inbox() -> queue.Queue[Any]:
            return queue.Queue(maxsize=1)

        def on_receive(self, message: Any) -> Any:
            if isinstance(message, Gate):
                return message()
            return super().on_receive(message)

    gate = Gate()
    bounded = Bounded.start()
    try:
        bounded.tell(gate)
        gate.await_entered()
        bounded.tell("fills the inbox")
        tell_after(bounded, 1, "waits", clock=clock)
        tell_after(notes, 1, "hello", clock=clock)
        clock.advance(1)
        assert notes.ask("got?") == ["hello"]
        gate.open()
        eventually(lambda: bounded.ask("got?") == ["fills the inbox", "waits"])
    finally:
        gate.open()
        bounded.stop()


def test_what_cannot_be_sent_is_logged(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    with Pool(1) as pool:
        tell_after(pool.actor_ref, 1, "gibberish", clock=clock)
        clock.advance(1)
        eventually(lambda: "could not be sent" in caplog.text)


class Ticker(Worker):
    """Reminds itself."""

    def __init__(self, told: list[str]) -> None:
        super().__init__()
        self.told = told

    def begin(self) -> None:
        tell_after(self.actor_ref, 1, "tick")

    def on_receive(self, message: str) -> None:
        self.told.append(f"{message} on {threading.current_thread().name}")


def test_a_worker_reminds_itself_by_the_clock_of_its_pool(clock: VirtualClock) -> None:
    told: list[str] = []
    with Pool(
        1, name="p", worker=functools.partial(Ticker, told), context=Context(clock=clock)
    ) as pool:
        pool.call(Ticker.begin).result(PATIENCE)
        clock.advance(1)
        eventually(lambda: told)
    assert told == ["tick on p-0"]


@pytest.mark.parametrize(
    ("seconds", "error"),
    [(-1, ValueError), (float("nan"), ValueError), (float("inf"), ValueError), ("1", TypeError),
     (None, TypeError), (True, TypeError)],
)  # fmt: skip
def test_what_is_no_number_of_seconds_is_refused(
    notes: pykka.ActorRef[Notes], seconds: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="seconds must"):
        tell_after(notes, seconds, "never")


def test_what_is_no_ref_is_refused(notes: pykka.ActorRef[Notes]) -> None:
    with pytest.raises(TypeError, match="actor_ref"):
        tell_after(notes.proxy(), 1, "never")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="ref must be an ActorRef, not a str"):
        tell_after("notes", 1, "never")  # type: ignore[arg-type]


def test_the_exit_of_the_interpreter_is_not_delayed() -> None:
    program = """
import pykka
from ion_actors import tell_after

class Actor(pykka.ThreadingActor):
    use_daemon_thread = True

tell_after(Actor.start(), 3600, "never")
print("over")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "over\n"
    assert done.stderr == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_process_sends_nothing_of_its_parents_and_can_send_its_own() -> None:
    program = """
import os, pykka, threading
from ion_actors import tell_after

class Actor(pykka.ThreadingActor):
    use_daemon_thread = True
    def on_receive(self, message):
        print(os.getpid() == parent, message, flush=True)
        come.set()

parent = os.getpid()
come = threading.Event()
tell_after(Actor.start(), 0.3, "the parent's")
if (child := os.fork()) == 0:
    tell_after(Actor.start(), 0.5, "the child's")
    come.wait(30)
    os._exit(0)
os.waitpid(child, 0)
come.wait(30)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert sorted(done.stdout.splitlines()) == ["False the child's", "True the parent's"]
