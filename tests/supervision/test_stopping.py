"""The end of a tree: order, deadlines, whoever asks, whenever."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings

import pytest

from ion_actors import Cancelled, Context, Pool, SupervisorFailed
from ion_actors.supervision import ChildState, Lifecycle, Supervisor, SupervisorState, child
from tests.inside import core_of
from tests.supervision.helpers import PATIENCE, Diary, Echo, Flaky, Log, Slow, Tender, eventually


def in_thread(call):
    found = []
    thread = threading.Thread(target=lambda: found.append(call()), name="test-helper")
    thread.start()

    def result():
        thread.join(PATIENCE)
        assert found, "it has not returned"
        return found[0]

    return result


def refused(call):
    with pytest.raises(Cancelled) as caught:
        call()
    return caught.value


# -- deadlines ----------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["drain", "close"])
def test_a_child_that_does_not_stop_in_its_time_is_abandoned_and_the_rest_is_stopped(clock, verb):
    hold, log = threading.Event(), Log()
    children = [
        child(Echo, id="a", args=("a", log)),
        child(Echo, id="b", args=("b", log, hold), shutdown=7.0),
        child(Echo, id="c", args=("c", log)),
    ]
    tree = Supervisor(children, context=Context(clock=clock)).start()
    diary = Diary(tree)
    stopping = in_thread(getattr(tree, verb))
    diary.await_(Lifecycle.STOPPED, "c")
    clock.wait_for_timers(1, patience=PATIENCE)
    clock.advance(6.9)
    assert tree.state is SupervisorState.STOPPING
    assert not tree.wait(0)
    clock.advance(0.1)
    report = stopping()
    assert report.abandoned == ("b",)
    assert [(end.id, end.abandoned, end.elapsed) for end in report.children] == [
        ("c", False, 0.0), ("b", True, 7.0), ("a", False, 0.0),
    ]  # fmt: skip
    assert report.elapsed == 7.0
    assert log.lines[-2:] == ["-c", "-a"]
    assert len(diary.all(Lifecycle.ABANDONED, "b")) == 1
    hold.set()


def test_the_default_is_five_seconds(clock):
    hold = threading.Event()
    tree = Supervisor([child(Echo, kwargs={"hold": hold})], context=Context(clock=clock)).start()
    stopping = in_thread(tree.drain)
    clock.wait_for_timers(1, patience=PATIENCE)
    assert clock.advance_to_next() == 5.0
    assert stopping().abandoned == ("Echo",)
    hold.set()


def test_without_a_deadline_it_waits(clock):
    hold = threading.Event()
    tree = Supervisor(
        [child(Echo, kwargs={"hold": hold}, shutdown=None)], context=Context(clock=clock)
    ).start()
    stopping = in_thread(tree.drain)
    assert tree.wait(0) is False
    assert clock.timers == 0
    hold.set()
    assert stopping().abandoned == ()


def test_a_timeout_is_for_all_together(clock):
    hold = threading.Event()
    children = [child(Echo, id=name, kwargs={"hold": hold}) for name in "abc"]
    tree = Supervisor(children, context=Context(clock=clock)).start()
    stopping = in_thread(lambda: tree.drain(6.0))
    clock.wait_for_timers(1, patience=PATIENCE)
    assert clock.advance_to_next() == 5.0
    clock.wait_for_timers(1, patience=PATIENCE)
    assert clock.advance_to_next() == 1.0
    report = stopping()
    assert [(end.id, end.elapsed) for end in report.children] == [("c", 5.0), ("b", 1.0), ("a", 0)]
    assert report.abandoned == ("c", "b", "a")
    hold.set()


def test_a_second_request_can_only_bring_the_end_forward(clock):
    hold = threading.Event()
    tree = Supervisor([child(Echo, kwargs={"hold": hold}, shutdown=50.0)],
                      context=Context(clock=clock)).start()  # fmt: skip
    first = in_thread(tree.drain)
    clock.wait_for_timers(1, patience=PATIENCE)
    second = in_thread(lambda: tree.close(2.0))
    third = in_thread(lambda: tree.close(20.0))
    eventually(lambda: clock.timers == 1 and clock.moments[0] <= 2.0)  # the second was heard
    clock.advance(2.0)
    assert first() == second() == third()
    assert first().abandoned == ("Echo",)
    hold.set()


def test_a_stuck_pool_is_abandoned_by_its_own_report():
    hold, entered = threading.Event(), threading.Event()

    def stuck():
        entered.set()
        hold.wait(PATIENCE)

    tree = Supervisor([child(Pool, args=(1,), shutdown=0.05)]).start()
    tree["Pool"].submit(stuck)
    assert entered.wait(PATIENCE)
    (end,) = tree.drain().children
    assert not end.abandoned  # the pool itself has ended, and says what it left behind
    assert [task.name for task in end.report.running] == [stuck.__qualname__]
    hold.set()


@pytest.mark.parametrize(("verb", "finished"), [("drain", 3), ("close", 0)])
def test_drain_finishes_what_pools_have_accepted_and_close_cancels_it(verb, finished):
    hold, entered = threading.Event(), threading.Event()

    def busy():
        entered.set()
        hold.wait(PATIENCE)

    tree = Supervisor([child(Pool, args=(1,), shutdown=None)]).start()
    gate = tree["Pool"].submit(busy)
    assert entered.wait(PATIENCE)
    futures = [tree["Pool"].submit(str, one) for one in range(3)]
    stopping = in_thread(getattr(tree, verb))
    eventually(lambda: tree.state is SupervisorState.STOPPING)
    if verb == "close":
        for future in futures:
            assert isinstance(refused(lambda: future.result(PATIENCE)), Cancelled)
    hold.set()
    report = stopping()
    assert gate.done()
    assert sum(not future.cancelled() for future in futures) == finished
    assert report.children[0].report is not None


def test_a_nested_stop_reports_by_path(clock):
    hold = threading.Event()

    def inner():
        return Supervisor([child(Echo, id="socket", kwargs={"hold": hold})])

    tree = Supervisor([child(inner, id="io")], context=Context(clock=clock)).start()
    stopping = in_thread(tree.drain)
    clock.wait_for_timers(1, patience=PATIENCE)
    assert clock.advance_to_next() == 5.0
    assert stopping().abandoned == ("io/socket",)
    hold.set()


# -- at any time ----------------------------------------------------------------------------------


def test_a_stop_during_a_start_that_hangs(clock):
    slow, log = Slow(), Log()
    tree = Supervisor([child(Echo, args=("a", log)), child(slow)], context=Context(clock=clock))
    failed = in_thread(lambda: refused(tree.start))
    assert slow.begun.wait(PATIENCE)
    stopping = in_thread(tree.drain)
    clock.wait_for_timers(1, patience=PATIENCE)
    assert clock.advance_to_next() == 5.0
    assert stopping().abandoned == ("slow",)
    assert "stopped before it had started" in str(failed())
    assert log.lines == ["+a", "-a"]
    slow.finish()


def test_what_starts_after_it_was_abandoned_is_closed_while_others_still_stop(clock):
    slow, hold = Slow(), threading.Event()
    children = [child(Echo, kwargs={"hold": hold}, shutdown=None), child(slow, shutdown=1.0)]
    tree = Supervisor(children, context=Context(clock=clock))
    failed = in_thread(lambda: refused(tree.start))
    assert slow.begun.wait(PATIENCE)
    stopping = in_thread(tree.drain)
    clock.wait_for_timers(1, patience=PATIENCE)
    clock.advance(1.0)
    eventually(lambda: tree.which_children()[0].state is ChildState.STOPPING)
    slow.finish()
    assert not tree.wait(0)
    hold.set()
    assert stopping().abandoned == ("slow",)
    assert failed()


def test_a_stop_during_an_on_start_that_ends_in_time():
    begun, hold = threading.Event(), threading.Event()

    def check():
        begun.set()
        assert hold.wait(PATIENCE)

    start = Flaky()
    start.check = check
    tree = Supervisor([child(Tender, args=(start,))])
    diary = Diary(tree)
    failed = in_thread(lambda: refused(tree.start))
    assert begun.wait(PATIENCE)
    stopping = in_thread(tree.drain)
    eventually(lambda: tree.state is SupervisorState.STOPPING)
    hold.set()
    assert stopping().abandoned == ()
    assert failed()
    assert diary.words() == ["Tender stopped"]


def test_a_stop_during_a_restart_restarts_nothing_more():
    hold, log = threading.Event(), Log()
    children = [
        child(Echo, id="a", args=("a", log)),
        child(Echo, id="b", args=("b", log)),
        child(Echo, id="c", args=("c", log, hold)),
    ]
    tree = Supervisor(children, strategy="one_for_all").start()
    log.lines.clear()
    tree["a"].tell(ValueError("broken"))
    eventually(lambda: tree.which_children()[2].state is ChildState.STOPPING)
    stopping = in_thread(tree.drain)
    eventually(lambda: tree.state is SupervisorState.STOPPING)
    hold.set()
    assert stopping().abandoned == ()
    assert log.lines == ["-c", "-b"]


def test_a_stop_while_a_retry_is_due(clock):
    from ion_actors import Backoff

    start = Flaky(None, OSError("down"))
    tree = Supervisor([child(Tender, args=(start,)), Echo], context=Context(clock=clock),
                      backoff=Backoff(initial=100.0, maximum=100.0)).start()  # fmt: skip
    tree["Tender"].tell(ValueError("broken"))
    clock.wait_for_timers(1, patience=PATIENCE)
    report = tree.drain()
    assert [end.id for end in report.children] == ["Echo"]
    assert clock.timers == 0


def test_a_failure_while_it_stops_does_not_matter():
    log = Log()
    children = [
        child(Echo, id="a", args=("a", log)),
        child(Tender, kwargs={"stop": Flaky(OSError())}),
    ]
    with Supervisor(children, max_restarts=0) as tree:
        pass
    report = tree.drain()
    assert [(end.id, type(end.error)) for end in report.children] == [
        ("Tender", OSError), ("a", type(None)),
    ]  # fmt: skip
    assert tree.failure is None


def test_draining_again_tells_the_same():
    with Supervisor([Echo]) as tree:
        pass
    assert tree.drain() is tree.close() is tree.drain(0)


def test_a_tree_that_never_started_can_be_stopped():
    tree = Supervisor([Echo])
    assert tree.drain().children == ()
    assert tree.state is SupervisorState.STOPPED
    with pytest.raises(RuntimeError):
        tree.start()


def test_leaving_the_block_by_an_exception_closes():
    hold = threading.Event()
    with pytest.raises(ZeroDivisionError), Supervisor([child(Pool, args=(1,))]) as tree:
        tree["Pool"].submit(hold.wait, 0.2)
        waiting = tree["Pool"].submit(str, 1)
        raise ZeroDivisionError
    assert waiting.cancelled()
    assert tree.state is SupervisorState.STOPPED


def test_the_end_of_its_context_closes_the_tree():
    context = Context()
    tree = Supervisor([Echo], context=context).start()
    context.cancel("enough")
    assert tree.wait(PATIENCE) is True
    tree.close()


@pytest.mark.parametrize("where", ["actor", "pool", "nested"])
def test_a_child_can_ask_for_the_end_and_is_not_kept_waiting(where):
    class Quitter(Echo):
        def on_receive(self, message):
            return tree.drain().children

    def inner():
        return Supervisor([Quitter])

    tree = Supervisor([Quitter, child(Pool, args=(1,)), child(inner, id="io")]).start()
    if where == "pool":
        seen = tree["Pool"].submit(lambda: tree.drain().children).result(PATIENCE)
    else:
        quitter = tree["Quitter"] if where == "actor" else tree["io"]["Quitter"]
        seen = quitter.ask("quit", timeout=PATIENCE)
    assert seen == ()
    assert tree.wait(PATIENCE) is True
    assert tree.drain().abandoned == ()


# -- without blocking a loop ----------------------------------------------------------------------


def test_the_same_for_coroutines():
    async def main():
        async with Supervisor([Echo, child(Pool, args=(1,))]) as tree:
            assert await tree["Pool"].submit(pow, 2, 5) == 32
            assert await tree.await_(0.0) is False
        assert await tree.await_() is True
        assert [end.id for end in (await tree.adrain()).children] == ["Pool", "Echo"]
        assert await tree.aclose() is tree.drain()

    asyncio.run(main())


def test_a_coroutine_that_is_cancelled_leaves_a_tree_that_ends():
    slow, trees = Slow(), []

    async def main():
        trees.append(Supervisor([Echo, child(slow)]))
        task = asyncio.ensure_future(trees[0].astart())
        while trees[0].state is not SupervisorState.STARTING:  # noqa: ASYNC110
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    slow.hold.set()
    assert trees[0].wait(PATIENCE) is True
    trees[0].close()
    slow.finish()


def test_an_async_block_of_a_tree_that_gave_up_says_so():
    async def main():
        async with Supervisor([Echo], max_restarts=0) as tree:
            tree["Echo"].tell(ValueError("broken"))
            with pytest.raises(SupervisorFailed):
                await tree.await_(PATIENCE)

    with pytest.raises(SupervisorFailed):
        asyncio.run(main())


# -- forgotten ------------------------------------------------------------------------------------


def test_a_forgotten_tree_warns_and_drains():
    log = Log()
    tree = Supervisor([child(Echo, args=("a", log))], name="forgotten").start()
    ended = core_of(tree).ended
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del tree
        gc.collect()
    assert ended.result(PATIENCE).abandoned == ()
    assert log.lines == ["+a", "-a"]
    assert ["'forgotten' was never stopped" in str(one.message) for one in caught] == [True]


@pytest.mark.usefixtures("without_gc")
def test_an_ended_tree_is_freed_without_the_collector():
    import weakref

    with Supervisor([Echo, child(Pool, args=(1,))]) as tree:
        pass
    gone = weakref.ref(tree)
    del tree
    assert gone() is None
