"""Forks, and what helps a pool: the clock, contexts, buses, trees, child processes, hooks."""

from __future__ import annotations

import os

import pytest

from tests.programs.test_fork import IGNORE, Run, Source

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

BUSY = """
import asyncio, concurrent.futures
gate, started = threading.Event(), threading.Event()
pool = Pool(1)
running = pool.submit(lambda: (started.set(), gate.wait(60)))
queued = pool.submit(str)
started.wait()
async def wait_for(future):
    return await future
async def wrapped(future):
    return await asyncio.wrap_future(future)
def poll(future):
    while not future.done():
        pass
    return future.cancelled()
"""


def busy(program: Source, source: str) -> str:
    return BUSY + program(source)


# Each is called in a child of its own, which says so. All are children of one program.
CALLS = [
    ("len(concurrent.futures.wait([running, queued], 20).done)", "2"),
    ("len(list(concurrent.futures.as_completed([running, queued], 20)))", "2"),
    ("asyncio.run(wait_for(running))", "child: PoolForked"),
    ("asyncio.run(wrapped(queued))", "child: PoolForked"),
    ("running.add_done_callback(lambda one: say(type(one.exception()).__name__))", "None"),
    ("queued.cancel()", "False"),
    ("poll(running)", "False"),
    ("background().wait(running)", "True"),
    ("(pool.metrics().running, pool.metrics().queued)", "(0, 0)"),
    (
        "(pool.dump().state.value, pool.state.value, pool.is_closed)",
        "('closed', 'closed', True)",
    ),
    ("asyncio.run(pool.asubmit(str))", "child: PoolForked"),
    ("pool.resize(2)", "child: PoolForked"),
    ("pool.dead_letters.subscribe(say) and None", "None"),
]


def test_whoever_waits_or_asks_in_the_child_is_told(program: Source, run: Run) -> None:
    source = f"""
        from ion_actors.context import background
        for call in {[call for call, _ in CALLS]}:
            in_child(lambda: say(eval(call)))
            say("--")
        gate.set()
        pool.close()
    """
    code, lines, errors = run(busy(program, source), *IGNORE)
    assert code == 0, errors
    told = "\n".join(lines).split("--")
    for (call, said), one in zip(CALLS, told, strict=False):
        assert said in one.splitlines(), (call, one, errors)
        assert one.endswith("exit 1\n" if said.startswith("child") else "exit 0\n"), (call, one)
    assert len(told) == len(CALLS) + 1


def test_the_first_threads_of_the_child_come_all_at_once(program: Source, run: Run) -> None:
    code, lines, errors = run(
        busy(
            program,
            """
            def child():
                barrier, seen = threading.Barrier(8), []
                def ask():
                    barrier.wait()
                    try:
                        pool.submit(str)
                    except PoolForked as error:
                        seen.append(type(error))
                threads = [threading.Thread(target=ask) for _ in range(8)]
                for one in threads:
                    one.start()
                for one in threads:
                    one.join()
                say(len(seen))
            in_child(child)
            gate.set()
            pool.close()
            """,
        ),
        *IGNORE,
    )
    assert lines == ["8", "exit 0"], errors
    assert code == 0


def test_the_hooks_run_once_in_each_process(program: Source, run: Run) -> None:
    code, lines, errors = run(
        program(
            """
            from ion_actors import forking
            forking.on_fork(lambda: say("hook", os.getpid() == me()))
            me = os.getpid
            def grandchild():
                Pool(1).close()
                say("grandchild")
            def child():
                Pool(1).close()
                Pool(1).close()
                say("child")
                in_child(grandchild)
            Pool(1).close()
            in_child(child)
            """
        ),
        *IGNORE,
    )
    assert lines == ["hook True", "child", "hook True", "grandchild", "exit 0", "exit 0"], errors
    assert code == 0


def test_a_hook_that_fails_keeps_no_other_from_running(run: Run, program: Source) -> None:
    code, lines, errors = run(
        program(
            """
            from ion_actors import forking
            forking.on_fork(lambda: 1 / 0)
            forking.on_fork(lambda: say("hook"))
            def child():
                try:
                    Pool(1).close()
                except ExceptionGroup as error:
                    print(error.exceptions[0], file=sys.stderr)
                Pool(1).close()
            in_child(child)
            """
        ),
        *IGNORE,
    )
    assert lines == ["hook", "exit 0"], errors
    assert "division by zero" in errors
    assert code == 0


def test_time_goes_on_in_the_child(program: Source, run: Run) -> None:
    code, lines, errors = run(
        program(
            """
            from ion_actors.clock import system_clock
            fired = []
            system_clock.call_at(time.monotonic() + 3600, lambda: fired.append("the parent's"))
            outer = Context(timeout=3600)
            outer.add_callback(str)
            def child():
                ended = threading.Event()
                with Context(timeout=0.01) as context:
                    context.add_callback(ended.set)
                    say(ended.wait(20), system_clock.timers, fired)
                say(outer.cancel(), outer.cancelled)
            in_child(child)
            say(outer.cancelled, system_clock.timers)
            """
        ),
        *IGNORE,
    )
    assert lines == ["True 0 []", "True True", "exit 0", "False 2"], errors
    assert code == 0


@pytest.mark.parametrize("kind", ["lock", "context"])
def test_a_lock_that_is_held_in_the_parent_is_in_nobodys_way(
    kind: str, program: Source, run: Run
) -> None:
    hold = {
        "lock": "system_clock._changed",
        "context": "tree._LOCKS[id(context) >> 6 & 63]",
    }[kind]
    use = {
        "lock": "system_clock.call_at(time.monotonic() + 9, str).cancel()",
        "context": "context.cancel()",
    }[kind]
    code, lines, errors = run(
        program(
            f"""
            from ion_actors.clock import system_clock
            from ion_actors.context import tree
            context = Context()
            held, over = threading.Event(), threading.Event()
            def holder():
                with {hold}:
                    held.set()
                    over.wait()
            thread = threading.Thread(target=holder)
            thread.start()
            held.wait()
            in_child(lambda: say({use}))
            over.set()
            thread.join()
            """
        ),
        *IGNORE,
    )
    assert lines[-1] == "exit 0", errors
    assert code == 0


def test_a_bus_tells_those_who_subscribe_in_the_child(program: Source, run: Run) -> None:
    code, lines, errors = run(
        program(
            """
            from ion_actors.observe.bus import Bus
            bus, inside, over = Bus("bus"), threading.Event(), threading.Event()
            subscription = bus.add(lambda event: (inside.set(), over.wait()))
            bus.publish("the parent's")
            inside.wait()
            def child():
                subscription.remove()
                bus.add(say)
                bus.publish("the child's")
                say(bus.join(20))
            in_child(child)
            over.set()
            """
        ),
        *IGNORE,
    )
    assert lines == ["the child's", "True", "exit 0"], errors
    assert code == 0


ON_A_TREE = [
    "tree.drain()",
    "tree.close()",
    "tree.wait()",
    "tree['pool']",
    "asyncio.run(tree.adrain())",
]


def test_a_tree_of_the_parent_says_so(program: Source, run: Run) -> None:
    code, lines, errors = run(
        program(
            f"""
            import asyncio
            from ion_actors.supervision import ChildSpec, Supervisor
            tree = Supervisor([ChildSpec(lambda: Pool(1), id="pool")]).start()
            for call in {ON_A_TREE}:
                say(call)
                in_child(lambda: eval(call))
            say(tree["pool"].submit(str, 1).result())
            tree.drain()
            """
        ),
        *IGNORE,
    )
    told = [line for call in ON_A_TREE for line in (call, "child: SupervisorForked", "exit 1")]
    assert lines == [*told, "1"], errors
    assert code == 0


@pytest.mark.parametrize(
    "end",
    ["os._exit(0)", "sys.exit(0)", "pool.submit(os.getpid)", "del pool, running; gc.collect()"],
)
def test_the_parents_child_processes_are_left_alone(end: str, program: Source, run: Run) -> None:
    code, lines, errors = run(
        program(
            f"""
            import gc
            context = Context()
            pool = Pool(1, backend="process")
            before = pool.submit(os.getpid).result()
            with context:
                running = pool.submit(time.sleep, 0.5)
            sys.stdout.flush()
            child = fork()
            if child == 0:
                context.cancel()
                try:
                    {end}
                except PoolForked:
                    say("forked")
                sys.exit(0)
            say("exit", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            say(running.result(), pool.submit(os.getpid).result() == before)
            pool.close()
            """
        ),
        *IGNORE,
    )
    assert lines[-2:] == ["exit 0", "None True"], (lines, errors)
    assert ("forked" in lines) == ("submit" in end)
    assert code == 0


def test_pools_of_the_parent_are_no_matter_for_the_childs_exit(program: Source, run: Run) -> None:
    code, lines, errors = run(
        busy(
            program,
            """
            from ion_actors.supervision import ChildSpec, Supervisor
            tree = Supervisor([ChildSpec(lambda: Pool(1), id="pool")]).start()
            sys.stdout.flush()
            child = fork()
            if child == 0:
                sys.exit(7)  # through the exit hooks, and with everything still there
            say("exit", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            gate.set()
            pool.drain()
            tree.drain()
            """,
        ),
        "-W",
        "error",
        "-W",
        "ignore:This process:DeprecationWarning",
    )
    assert lines == ["exit 7"], errors
    assert errors == ""
    assert code == 0


def test_a_pool_that_is_collected_in_the_child_is_nobodys_concern(
    program: Source, run: Run
) -> None:
    code, lines, errors = run(
        program(
            """
            import gc
            kept = [Pool(1)]
            kept[0].submit(str).result()
            def child():
                kept.clear()
                gc.collect()
                say("collected")
            in_child(child)
            kept[0].close()
            """
        ),
        "-W",
        "error",
        "-W",
        "ignore:This process:DeprecationWarning",
    )
    assert lines == ["collected", "exit 0"], errors
    assert errors == ""
    assert code == 0


def test_a_signal_does_in_the_child_what_it_would_have_done(program: Source, run: Run) -> None:
    code, lines, errors = run(
        program(
            """
            pool = Pool(1)
            pool.drain_on_signal()
            def child():
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(20)
            in_child(child)
            say(pool.submit(str, 1).result())
            pool.close()
            """
        ),
        *IGNORE,
    )
    assert lines == ["exit -15", "1"], errors
    assert code == 0


def test_no_frame_of_a_thread_is_looked_at_where_the_parents_are_still_listed(
    program: Source, run: Run
) -> None:
    code, lines, errors = run(
        program(
            """
            def child():
                gate, started = threading.Event(), threading.Event()
                with Pool(1) as own:
                    own.submit(lambda: (started.set(), gate.wait()))
                    started.wait()
                    say(bool(own.dump().workers[0].stack), "_foreign_fork" in globals())
                    gate.set()
            in_child(child)
            """
        ),
        *IGNORE,
    )
    assert lines in (["True False", "exit 0"], ["False True", "exit 0"]), errors
    assert code == 0
