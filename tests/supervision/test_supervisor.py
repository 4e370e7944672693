"""A tree as its users see it: starting, looking, restarting, escalating."""

from __future__ import annotations

import contextvars
import threading

import pykka
import pytest

from ion_actors import (
    Backoff,
    BrokenPool,
    Cancelled,
    ChildStartFailed,
    ChildUnavailable,
    Context,
    PanicRecovery,
    Pool,
    SupervisorFailed,
    current_context,
)
from ion_actors.supervision import (
    ChildKind,
    ChildState,
    Lifecycle,
    Restart,
    Strategy,
    Supervisor,
    SupervisorState,
    child,
    child_table,
)
from ion_actors.testing import RecordingMetrics, VirtualClock
from tests.supervision.helpers import PATIENCE, Diary, Echo, Flaky, Log, Slow, Tender

RESTARTED, PANICKED, STARTED = Lifecycle.RESTARTED, Lifecycle.PANICKED, Lifecycle.STARTED
EXITS = [SystemExit, KeyboardInterrupt, GeneratorExit]


# -- starting and looking ------------------------------------------------------------------------


def test_children_start_in_order_and_stop_in_reverse():
    log = Log()
    children = [child(Echo, id=name, args=(name, log)) for name in "abc"]
    with Supervisor(children) as tree:
        assert log.lines == ["+a", "+b", "+c"]
        assert list(tree) == ["a", "b", "c"]
    assert log.lines == ["+a", "+b", "+c", "-c", "-b", "-a"]


def test_pools_actors_and_supervisors_can_be_children():
    def io():
        return Supervisor([child(Echo, id="mail")], name="io")

    with Supervisor([child(Pool, id="images", args=(2,)), Echo, child(io)], name="app") as tree:
        assert tree["images"].submit(pow, 2, 5).result(PATIENCE) == 32
        assert tree["Echo"].ask("hi", timeout=PATIENCE) == "hi"
        assert tree["io"]["mail"].ask("ho", timeout=PATIENCE) == "ho"
        kinds = [info.kind for info in tree.which_children()]
        assert kinds == [ChildKind.POOL, ChildKind.ACTOR, ChildKind.SUPERVISOR]
        for info in tree.which_children():
            assert info.state is ChildState.RUNNING
            assert info.restart is Restart.PERMANENT
            assert (info.restarts, info.error) == (0, None)
            assert info.child is tree[info.id]
        assert str(tree).splitlines() == [
            "app  supervisor  running  one_for_one, at most 1 restarts in 5 s",
            "├── images  pool        running",
            "├── Echo    actor       running",
            "└── io      supervisor  running  one_for_one, at most 1 restarts in 5 s",
            "    └── mail  actor  running",
        ]


def test_a_tree_without_children_is_a_tree():
    with Supervisor([]) as tree:
        assert tree.state is SupervisorState.RUNNING
        assert tree.which_children() == ()
    assert tree.state is SupervisorState.STOPPED


def test_looking_for_a_child():
    tree = Supervisor([child(Echo, id="a")], name="app")
    with pytest.raises(ChildUnavailable, match="'a' of supervisor 'app' is not running") as caught:
        tree["a"]
    assert caught.value.state is ChildState.WAITING
    with pytest.raises(KeyError):
        tree["b"]
    with tree:
        assert isinstance(tree["a"], pykka.ActorRef)
        with pytest.raises(KeyError):
            tree["b"]
    with pytest.raises(ChildUnavailable):
        tree["a"]


def test_a_start_runs_in_the_variables_of_who_made_the_tree():
    variable = contextvars.ContextVar("variable", default="nobody's")
    seen = []

    def make():
        seen.append((variable.get(), current_context().clock))
        return Pool(1)

    clock = VirtualClock()
    variable.set("mine")
    with Supervisor([child(make)], context=Context(clock=clock)):
        assert seen == [("mine", clock)]


def test_a_tree_starts_once():
    with Supervisor([]) as tree, pytest.raises(RuntimeError, match="only once"):
        tree.start()
    with pytest.raises(RuntimeError, match="only once"):
        tree.start()


def test_an_actor_class_stays_what_it_is():
    with Supervisor([Echo]) as tree:
        ref = tree["Echo"]
        assert issubclass(ref.actor_class, Echo)
        assert ref.actor_class.__name__ == "Echo"
        assert pykka.ActorRegistry.get_by_class(Echo) == [ref]
        assert ref.proxy().name.get(timeout=PATIENCE) == "echo"
    assert Echo.use_daemon_thread is False


# -- what cannot be -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (lambda: child(3), TypeError, "start must be a callable"),
        (lambda: child(lambda: None), ValueError, "give it an id"),
        (lambda: child(Echo, id=""), ValueError, "id must be"),
        (lambda: child(Echo, restart="often"), ValueError, "restart must be one of 'permanent'"),
        (lambda: child(Echo, shutdown=-1), ValueError, "shutdown must be zero or more"),
        (lambda: child(Echo, shutdown="soon"), TypeError, "shutdown"),
        (lambda: child(Echo, args="abc"), TypeError, "args must be a tuple"),
        (lambda: child(Echo, significant=True), ValueError, "cannot be significant"),
        (lambda: Supervisor(Echo), TypeError, "children must be a list"),
        (lambda: Supervisor([Echo, Echo]), ValueError, "two children have the id 'Echo'"),
        (lambda: Supervisor([], strategy="all"), ValueError, "strategy must be one of"),
        (lambda: Supervisor([], max_restarts=-1), ValueError, "max_restarts"),
        (lambda: Supervisor([], within=0), ValueError, "within"),
        (lambda: Supervisor([], backoff=3), TypeError, "backoff"),
        (lambda: Supervisor([], name=3), TypeError, "name"),
        (lambda: Supervisor([], context=3), TypeError, "context"),
        (lambda: Supervisor([], metrics=3), TypeError, "metrics"),
        (lambda: Supervisor([], logger=3), TypeError, "logger"),
        (lambda: Supervisor([]).subscribe(3), TypeError, "callback"),
        (
            lambda: Supervisor([child(Echo, restart="temporary", significant=True)]),
            ValueError,
            "auto_shutdown is never",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(wrong, error, words):
    with pytest.raises(error, match=words):
        wrong()


@pytest.mark.parametrize(
    ("make", "words"),
    [(lambda: 3, "not 3"), (Echo.start, "give its class as the start")],
    ids=["a number", "a started actor"],
)
def test_a_start_must_return_what_can_be_a_child(make, words):
    tree = Supervisor([child(make, id="x")])
    with pytest.raises(ChildStartFailed, match=words) as caught:
        tree.start()
    assert isinstance(caught.value.__cause__, TypeError)


# -- a start that fails ---------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError("down"), SystemExit(1)], ids=["error", "exit"])
def test_a_first_start_that_fails_stops_those_before_it(error):
    log = Log()
    tree = Supervisor(
        [
            child(Echo, id="a", args=("a", log)),
            child(Echo, id="b", args=("b", log)),
            child(Tender, id="c", args=(Flaky(error),)),
            child(Echo, id="d", args=("d", log)),
        ],
        name="app",
    )
    with pytest.raises(ChildStartFailed, match="'app' could not start its child 'c'") as caught:
        tree.start()
    assert caught.value.child == "c"
    assert caught.value.__cause__ is error
    assert log.lines == ["+a", "+b", "-b", "-a"]
    assert tree.state is SupervisorState.STOPPED
    assert tree.failure is caught.value
    assert tree.drain().failure is caught.value
    with pytest.raises(ChildStartFailed):
        tree.wait()


def test_a_nested_start_that_fails_is_the_failure_of_all():
    def inner():
        return Supervisor([child(Tender, args=(Flaky(OSError("down")),))], name="inner")

    tree = Supervisor([child(inner, id="io")], name="app")
    with pytest.raises(ChildStartFailed) as caught, tree:
        pass
    assert caught.value.child == "io"
    assert caught.value.__cause__.child == "Tender"
    assert isinstance(caught.value.__cause__.__cause__, OSError)


def test_who_waits_for_a_start_can_be_called_off():
    slow = Slow()
    tree = Supervisor([child(Echo), child(slow, shutdown=0.01)])
    context = Context()
    stopper = threading.Thread(
        target=lambda: slow.begun.wait(PATIENCE) and context.cancel("enough")
    )
    stopper.start()
    with context, pytest.raises(Cancelled, match="enough"):
        tree.start()
    stopper.join()
    assert tree.state is SupervisorState.STOPPED
    assert tree.drain().abandoned == ("slow",)
    slow.finish()


# -- restarts -----------------------------------------------------------------------------------


def test_an_actor_that_fails_under_tell_is_restarted():
    with Supervisor([Echo, child(Echo, id="other")]) as tree:
        diary = Diary(tree)
        first, other = tree["Echo"], tree["other"]
        first.tell(ValueError("broken"))
        event = diary.await_(RESTARTED, "Echo")
        assert event.restarts == 1
        assert tree["Echo"] is not first
        assert tree["Echo"].ask("hi", timeout=PATIENCE) == "hi"
        assert tree["other"] is other
        (info, _) = tree.which_children()
        assert info.restarts == 1
        assert repr(info.error) == "ValueError('broken')"
        assert "restarts: 1, last: ValueError('broken')" in str(tree)
    assert diary.words()[:2] == ["Echo panicked", "Echo restarted"]


def test_an_error_under_ask_is_the_askers():
    with Supervisor([Echo]) as tree:
        ref = tree["Echo"]
        with pytest.raises(ValueError, match="broken"):
            ref.ask(ValueError("broken"), timeout=PATIENCE)
        assert ref.ask("hi", timeout=PATIENCE) == "hi"
        assert tree["Echo"] is ref


@pytest.mark.parametrize("how", ["tell", "ask"])
@pytest.mark.parametrize("error", EXITS)
def test_an_exit_in_an_actor_is_the_end_of_nobody_else(error, how):
    bystander = Echo.start()
    failures = Flaky()
    with Supervisor([child(Tender, kwargs={"failure": failures})]) as tree:
        diary = Diary(tree)
        ref = tree["Tender"]
        failures.outcomes = [None, None]
        if how == "ask":
            with pytest.raises(pykka.ActorDeadError):
                ref.ask(error("out"), timeout=PATIENCE)
        else:
            ref.tell(error("out"))
        assert isinstance(diary.await_(PANICKED, "Tender").error, error)
        diary.await_(RESTARTED, "Tender")
        assert not ref.is_alive()
        assert failures.outcomes == [None], "on_failure is called once"
        assert bystander.ask("hi", timeout=PATIENCE) == "hi"
    bystander.stop()


@pytest.mark.parametrize("error", [OSError("down"), SystemExit(1)], ids=["error", "exit"])
def test_an_actor_that_fails_in_on_failure_is_restarted(error):
    hook = Flaky(error)
    with Supervisor([child(Tender, kwargs={"failure": hook})]) as tree:
        diary = Diary(tree)
        tree["Tender"].tell(ValueError("first"))
        diary.await_(RESTARTED, "Tender")
        assert isinstance(diary.all(PANICKED)[0].error, ValueError)


class Falsy(Exception):
    def __bool__(self):
        return False


@pytest.mark.parametrize(
    "error", [OSError("down"), SystemExit(1), Falsy()], ids=["error", "exit", "falsy"]
)
def test_an_actor_that_fails_in_on_stop_has_failed(error):
    hook = Flaky(error)
    with Supervisor([child(Tender, kwargs={"stop": hook}, restart="transient")]) as tree:
        diary = Diary(tree)
        tree["Tender"].stop(block=False)
        assert diary.await_(PANICKED, "Tender").error is error
        diary.await_(RESTARTED, "Tender")


@pytest.mark.parametrize("error", [OSError("down"), SystemExit(1)], ids=["error", "exit"])
def test_a_restart_that_fails_is_tried_again_and_counts(error):
    start = Flaky(None, error, error)
    tree = Supervisor([child(Tender, args=(start,))], max_restarts=3, name="app").start()
    diary = Diary(tree)
    tree["Tender"].tell(ValueError("broken"))
    assert diary.await_(RESTARTED, "Tender").restarts == 3
    assert [one.error for one in diary.all(Lifecycle.START_FAILED)] == [error, error]
    last_straw = ValueError("once too often")
    tree["Tender"].tell(last_straw)
    with pytest.raises(SupervisorFailed, match="more than 3 times in 5 s") as caught:
        tree.wait(PATIENCE)
    assert (caught.value.supervisor, caught.value.child) == ("app", "Tender")
    assert caught.value.__cause__ is last_straw
    assert diary.await_(Lifecycle.GAVE_UP, "app").because == "Tender"
    assert tree.drain().failure is caught.value


def test_leaving_the_block_of_a_tree_that_gave_up_says_so():
    with pytest.raises(SupervisorFailed), Supervisor([Echo], max_restarts=0) as tree:
        tree["Echo"].tell(ValueError("broken"))
        with pytest.raises(SupervisorFailed):
            tree.wait(PATIENCE)


def test_backoff_pauses_between_tries_on_the_tree_s_clock(clock):
    start = Flaky(None, OSError(1), OSError(2))
    backoff = Backoff(initial=1.0, factor=2.0, jitter=0.0, maximum=60.0)
    with Supervisor(
        [child(Tender, args=(start,)), Echo],
        max_restarts=None, backoff=backoff, context=Context(clock=clock),
    ) as tree:  # fmt: skip
        diary = Diary(tree)
        tree["Tender"].tell(ValueError("broken"))
        for tries, pause in ((1, 1.0), (2, 2.0)):
            diary.await_(Lifecycle.START_FAILED, "Tender", tries)
            clock.wait_for_timers(1, patience=PATIENCE)
            assert clock.advance_to_next() == pause
        assert diary.await_(RESTARTED, "Tender").at == 3.0


def test_backoff_gives_up_after_its_retries(clock):
    start = Flaky(None, *[OSError("down")] * 5)
    tree = Supervisor(
        [child(Tender, args=(start,))], max_restarts=None, backoff=Backoff(retries=2),
        context=Context(clock=clock),
    ).start()  # fmt: skip
    tree["Tender"].tell(ValueError("broken"))
    for _ in range(2):
        clock.wait_for_timers(1, patience=PATIENCE)
        clock.advance_to_next()
    with pytest.raises(SupervisorFailed, match="after 2 retries") as caught:
        tree.wait(PATIENCE)
    assert isinstance(caught.value.__cause__, OSError)
    tree.close()


# -- pools that break -----------------------------------------------------------------------------


def test_a_pool_whose_initializer_fails_is_restarted():
    works = Flaky(None, OSError("down"))  # the first worker starts, its replacement does not

    def make():
        policy = PanicRecovery(backoff=Backoff(retries=0))
        return Pool(1, initializer=works.check, panic_recovery=policy)

    with Supervisor([child(make, id="pool")]) as tree:
        diary = Diary(tree)
        first = tree["pool"]
        assert first.submit(str, 1).result(PATIENCE) == "1"
        first.submit(Echo.on_receive, None, SystemExit()).exception(PATIENCE)
        diary.await_(RESTARTED, "pool")
        assert isinstance(diary.all(PANICKED, "pool")[0].error, BrokenPool)
        assert tree["pool"] is not first
        assert tree["pool"].submit(str, 2).result(PATIENCE) == "2"
        assert first.is_closed


def test_a_pool_that_breaks_by_its_restart_intensity_is_restarted():
    def make():
        return Pool(1, panic_recovery=PanicRecovery(max_restarts=0))

    with Supervisor([child(make, id="pool")]) as tree:
        diary = Diary(tree)
        tree["pool"].submit(Echo.on_receive, None, SystemExit()).exception(PATIENCE)
        diary.await_(RESTARTED, "pool")
        assert tree["pool"].submit(str, 2).result(PATIENCE) == "2"


def test_a_broken_pool_with_a_stuck_task_is_replaced_within_the_child_s_time():
    hold, entered = threading.Event(), threading.Event()

    def stuck():
        entered.set()
        hold.wait(PATIENCE)

    def make():
        policy = PanicRecovery(max_restarts=0)
        return Pool(2, panic_recovery=policy, drain_timeout=None)

    with Supervisor([child(make, id="pool", shutdown=0.01)]) as tree:
        diary = Diary(tree)
        pool = tree["pool"]
        pool.submit(stuck)
        assert entered.wait(PATIENCE)
        pool.submit(Echo.on_receive, None, SystemExit()).exception(PATIENCE)
        diary.await_(RESTARTED, "pool")
        assert tree["pool"].submit(str, 2).result(PATIENCE) == "2"
        hold.set()


@pytest.mark.parametrize("restart", Restart)
@pytest.mark.parametrize("verb", ["drain", "close"])
def test_a_pool_that_somebody_else_ends_has_not_failed(restart, verb):
    with Supervisor([child(Pool, args=(1,), restart=restart), Echo]) as tree:
        diary = Diary(tree)
        getattr(tree["Pool"], verb)()
        diary.await_(Lifecycle.ENDED, "Pool")
        if restart is Restart.PERMANENT:
            diary.await_(RESTARTED, "Pool")
            assert tree["Pool"].submit(str, 1).result(PATIENCE) == "1"
            return
        with pytest.raises(ChildUnavailable):
            tree["Pool"]
        left = {info.id: info.state for info in tree.which_children()}
        expected = {Restart.TRANSIENT: {"Pool": ChildState.ENDED}, Restart.TEMPORARY: {}}[restart]
        assert left == {**expected, "Echo": ChildState.RUNNING}


# -- strategies ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "lines"),
    [
        (Strategy.ONE_FOR_ONE, ["+b"]),
        (Strategy.ONE_FOR_ALL, ["-c", "-a", "+a", "+b", "+c"]),
        (Strategy.REST_FOR_ONE, ["-c", "+b", "+c"]),
        ("rest_for_one", ["-c", "+b", "+c"]),
    ],
)
def test_who_is_restarted_with_whom(strategy, lines):
    log = Log()
    children = [child(Echo, id=name, args=(name, log)) for name in "abc"]
    with Supervisor(children, strategy=strategy) as tree:
        diary = Diary(tree)
        log.lines.clear()
        tree["b"].tell(ValueError("broken"))
        diary.await_(RESTARTED, lines[-1][1])
        assert log.lines == lines
        for event in diary.all(RESTARTED) + diary.all(Lifecycle.STOPPED):
            assert event.because == (None if event.child == "b" else "b")


def test_a_transient_child_is_restarted_only_if_it_failed():
    children = [child(Echo, id="a", restart="transient"), child(Echo, id="b", restart="transient")]
    with Supervisor(children) as tree:
        diary = Diary(tree)
        tree["a"].tell(ValueError("broken"))
        diary.await_(RESTARTED, "a")
        tree["b"].tell("stop")
        assert diary.await_(Lifecycle.ENDED, "b").error is None
        assert [info.state for info in tree.which_children()] == [
            ChildState.RUNNING, ChildState.ENDED,
        ]  # fmt: skip


def test_a_temporary_child_is_forgotten():
    with Supervisor([child(Echo, restart="temporary")]) as tree:
        diary = Diary(tree)
        tree["Echo"].tell(ValueError("broken"))
        diary.await_(PANICKED, "Echo")
        assert tree.which_children() == ()
        with pytest.raises(ChildUnavailable, match="it is ended"):
            tree["Echo"]


@pytest.mark.parametrize("auto", ["any_significant", "all_significant"])
def test_significant_children_can_end_the_tree(auto):
    job = {"restart": "temporary", "significant": True}
    tree = Supervisor([Echo, child(Echo, id="x", **job), child(Echo, id="y", **job)],
                      auto_shutdown=auto).start()  # fmt: skip
    diary = Diary(tree)
    tree["x"].tell("stop")
    if auto == "all_significant":
        diary.await_(Lifecycle.ENDED, "x")
        assert tree.state is SupervisorState.RUNNING
        tree["y"].tell("stop")
    assert tree.wait(PATIENCE) is True
    assert tree.failure is None


# -- escalation ---------------------------------------------------------------------------------


def family(log, top=1):
    """app ▸ mid ▸ low ▸ leaf: neither mid nor low forgives anything."""

    def low():
        return Supervisor([child(Echo, id="leaf", args=("leaf", log))], name="l", max_restarts=0)

    def mid():
        children = [child(Echo, id="b", args=("b", log)), child(low)]
        return Supervisor(children, name="m", max_restarts=0)

    children = [child(Echo, id="a", args=("a", log)), child(mid)]
    return Supervisor(children, name="app", max_restarts=top)


def test_failures_escalate_two_levels_until_somebody_restarts():
    log = Log()
    with family(log) as tree:
        diary = Diary(tree)
        first = tree["mid"]
        log.lines.clear()
        tree["mid"]["low"]["leaf"].tell(ValueError("broken"))
        diary.await_(RESTARTED, "mid")
        assert tree["mid"] is not first
        assert tree["mid"]["low"]["leaf"].ask("hi", timeout=PATIENCE) == "hi"
        assert log.lines == ["-b", "+b", "+leaf"]
        assert tree["a"].is_alive()
        error = diary.all(PANICKED, "mid")[0].error
        assert (error.supervisor, error.__cause__.supervisor) == ("m", "l")
        assert repr(error.__cause__.__cause__) == "ValueError('broken')"
    heard = [line for line in diary.words() if "stopped" not in line]
    assert heard[:5] == [
        "mid/low/leaf panicked",
        "mid/low gave up",  # in the words of the tree: app/mid/low
        "mid/low panicked",
        "mid gave up",
        "mid panicked",
    ]
    # In new supervisors, for the first time. Each tells of its own children, in its own thread.
    assert [one for one in heard[5:8] if "leaf" not in one] == ["mid/b started", "mid/low started"]
    assert "mid/low/leaf started" in heard[5:7]
    assert heard[8] == "mid restarted"


def test_failures_escalate_to_the_top_and_end_it():
    log = Log()
    tree = family(log, top=0).start()
    tree["mid"]["low"]["leaf"].tell(ValueError("broken"))
    with pytest.raises(SupervisorFailed, match="supervisor 'app' gave up") as caught:
        tree.wait(PATIENCE)
    assert caught.value.__cause__.supervisor == "m"
    assert log.lines == ["+a", "+b", "+leaf", "-b", "-a"]
    tree.close()


def test_a_transient_supervisor_that_gives_up_has_failed():
    """Here OTP differs: it calls this a normal end."""

    def inner():
        return Supervisor([Echo], max_restarts=0)

    with Supervisor([child(inner, restart="transient")]) as tree:
        diary = Diary(tree)
        tree["inner"]["Echo"].tell(ValueError("broken"))
        diary.await_(RESTARTED, "inner")
        assert tree["inner"]["Echo"].ask("hi", timeout=PATIENCE) == "hi"


def test_a_nested_supervisor_goes_by_its_parent_s_clock(clock):
    def inner():
        return Supervisor([Echo], max_restarts=1, within=5.0)

    with Supervisor([child(inner)], context=Context(clock=clock)) as tree:
        diary = Diary(tree)
        for times in (1, 2, 3):
            tree["inner"]["Echo"].tell(ValueError("broken"))
            assert diary.await_(RESTARTED, "Echo", times).at == clock.monotonic()
            clock.advance(5.0)
        assert diary.all(Lifecycle.GAVE_UP) == []


# -- at its worst -------------------------------------------------------------------------------


def test_a_storm_of_failures_ends_in_a_giving_up_and_not_in_a_loop():
    class Stillborn(pykka.ThreadingActor):
        def on_start(self):
            self.actor_ref.tell("die")

        def on_receive(self, message):
            raise ValueError(message)

    tree = Supervisor([Stillborn, Echo], max_restarts=50, within=60.0)
    diary = Diary(tree)
    tree.start()
    with pytest.raises(SupervisorFailed):
        tree.wait(PATIENCE)
    tree.close()
    assert len(diary.all(PANICKED, "Stillborn")) == 51
    assert len(diary.all(RESTARTED, "Stillborn")) == 50


def test_children_that_fail_all_at_once_are_all_restarted():
    names = [f"c{index}" for index in range(8)]
    with Supervisor([child(Echo, id=name) for name in names], max_restarts=None) as tree:
        diary = Diary(tree)
        for times in (1, 2, 3):
            for name in names:
                tree[name].tell(ValueError("broken"))
            for name in names:
                diary.await_(RESTARTED, name, times)
        assert [tree[name].ask(name, timeout=PATIENCE) for name in names] == names


def test_stopping_all_actors_of_the_process_stops_the_tree():
    tree = Supervisor([Echo, child(Pool, args=(1,))], max_restarts=None).start()
    pykka.ActorRegistry.stop_all(timeout=PATIENCE)
    assert tree.wait(PATIENCE) is True
    tree.close()


def test_a_child_that_ends_before_the_word_of_its_start_is_seen_to(monkeypatch):
    ended = threading.Event()

    class Hasty:
        kind, handle, shutdown, margin = ChildKind.ACTOR, object(), 5.0, 0.0

        def wait_ready(self):
            assert ended.wait(PATIENCE)

        def watch(self, on_end):
            on_end(ValueError("already"), None)
            ended.set()

    children = iter([Hasty()])

    def hasty_once(spec, core):
        return next(children, None) or open_child(spec, core)

    open_child = child_table.open_child
    monkeypatch.setattr(child_table, "open_child", hasty_once)
    tree = Supervisor([Echo])
    diary = Diary(tree)
    with tree:
        diary.await_(RESTARTED, "Echo")
        assert tree["Echo"].ask("hi", timeout=PATIENCE) == "hi"
    assert diary.words()[:3] == ["Echo started", "Echo panicked", "Echo restarted"]


def test_metrics_count_what_happens():
    metrics = RecordingMetrics()
    with Supervisor([Echo], name="app", metrics=metrics) as tree:
        diary = Diary(tree)
        tree["Echo"].tell(ValueError("broken"))
        diary.await_(RESTARTED, "Echo")
    for event in ("started", "panicked", "restarted", "stopped"):
        name, labels = "ion_supervision_events_total", {"supervisor": "app", "child": "Echo"}
        assert metrics.count(name, **labels, event=event) == 1
