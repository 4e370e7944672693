"""``os.fork``: a child has the parent's pools, but not their threads."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.programs.conftest import forking_program

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

Run = Callable[..., tuple[int, list[str], str]]

Source = Callable[[str], str]

IGNORE = ("-W", "ignore")


# Each is called in a child of its own. All are children of one program.
HANGING = [
    "pool.submit(str)",
    "pool.try_submit(str)",
    "pool.options(name='x').submit(str)",
    "list(pool.map(str, [1]))",
    "pool.drain()",
    "pool.close()",
    "pool.shutdown()",
    "running.result()",
    "running.exception() and running.result()",
    "queued.result()",
    "queued.get()",
]


def test_what_would_hang_in_the_child_is_an_error(program: Source, run: Run) -> None:
    code, lines, errors = run(
        program(
            f"""
            gate, started = threading.Event(), threading.Event()
            with Pool(1) as pool:
                running = pool.submit(lambda: (started.set(), gate.wait(60)))
                queued = pool.submit(str)
                started.wait()
                for call in {HANGING}:
                    say(call)
                    in_child(lambda: eval(call))
                gate.set()
            say(running.result()[1], queued.result() == "")
            """
        ),
        *IGNORE,
    )
    told = [line for call in HANGING for line in (call, "child: PoolForked", "exit 1")]
    assert lines == [*told, "True True"], errors
    assert code == 0


def test_waiting_for_the_parents_futures_ends_in_the_child(program: Source, run: Run) -> None:
    code, lines, errors = run(
        program(
            """
            import concurrent.futures
            gate = threading.Event()
            with Pool(1) as pool:
                futures = [pool.submit(gate.wait, 60), pool.submit(str), pool.submit(str)]
                def child():
                    say(len(concurrent.futures.wait(futures, 20).done))
                    say([type(one.exception()).__name__ for one in futures])
                    say(futures[1].cancel(), pool.state.value, pool.is_closed)
                in_child(child)
                gate.set()
            """
        ),
        *IGNORE,
    )
    assert lines == [
        "3",
        "['PoolForked', 'PoolForked', 'PoolForked']",
        "False closed True",
        "exit 0",
    ], errors
    assert code == 0


def test_workers_without_a_thread_are_no_use_to_the_child_and_of_use_to_the_parent(
    program: Source, run: Run
) -> None:
    code, lines, errors = run(
        program(
            """
            from ion_actors.workerpool.worker.worker import PoolWorker
            real, asked, forked = PoolWorker.start_thread, threading.Event(), threading.Event()
            def start_thread(worker):
                asked.set()
                forked.wait()
                real(worker)
            PoolWorker.start_thread = start_thread
            with Pool(4) as idle, Pool(4) as pool:
                handed = pool.submit(str, 1)
                asked.wait()
                def child():
                    say(type(handed.exception(20)).__name__)
                    for one in idle, pool:
                        try:
                            one.submit(str)
                        except PoolForked:
                            say("forked")
                in_child(child)
                forked.set()
                say(handed.result(), idle.submit(str, 2).result())
            """
        ),
        *IGNORE,
    )
    assert lines == ["PoolForked", "forked", "forked", "exit 0", "1 2"], errors
    assert code == 0


def test_what_was_done_before_the_fork_is_done_in_the_child(program: Source, run: Run) -> None:
    code, lines, errors = run(
        program(
            """
            with Pool(1) as pool:
                done = pool.submit(str, 1)
                done.result()
                in_child(lambda: say(done.result()))
            """
        ),
        *IGNORE,
    )
    assert lines == ["1", "exit 0"], errors
    assert code == 0


def test_the_child_can_make_its_own_pool(program: Source, run: Run) -> None:
    code, lines, errors = run(
        program(
            """
            parent = Pool(2)
            parent.submit(str).result()
            def child():
                with Pool(2, drain_timeout=10) as pool:
                    timed = pool.options(timeout=9).submit(str, 7)
                    say(list(pool.map(str, range(5))), timed.result())
            in_child(child)
            say(parent.submit(str, "still here").result())
            parent.close()
            """
        ),
        *IGNORE,
    )
    assert lines == ["['0', '1', '2', '3', '4'] 7", "exit 0", "still here"], errors
    assert code == 0


def test_a_child_that_ends_like_any_program_ends_cleanly(program: Source, run: Run) -> None:
    code, lines, errors = run(
        program("""
        gate = threading.Event()
        pool = Pool(1)
        running = pool.submit(gate.wait, 60)
        sys.stdout.flush()
        child = fork()
        if child == 0:
            del pool, running
            sys.exit(7)  # through the exit hooks
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        gate.set()
        pool.close()
        say(code)
        """),
        "-W",
        "error",
        "-W",
        "ignore:This process:DeprecationWarning",
    )
    assert lines == ["7"]
    assert "ResourceWarning" not in errors
    assert code == 0


def test_multiprocessing_children_exit_cleanly_with_a_pool_in_the_parent(run: Run) -> None:
    code, lines, errors = run(
        """
        import multiprocessing

        def child(number):
            with Pool(1) as own:
                say(own.submit(str, number).result())

        context = multiprocessing.get_context("fork")
        pool = Pool(2)
        gate = threading.Event()
        pool.submit(gate.wait, 60)
        for number in range(5):
            process = context.Process(target=child, args=(number,))
            process.start()
            process.join(20)
            say("exit", process.exitcode)
        gate.set()
        pool.close()
        """,
        *IGNORE,
    )
    assert lines == [line for n in range(5) for line in (str(n), "exit 0")], errors
    assert code == 0


def test_multiprocessing_can_be_started_by_a_task(run: Run) -> None:
    code, lines, errors = run(
        """
        import multiprocessing
        context = multiprocessing.get_context("fork")

        def child():
            with Pool(1) as own:
                own.submit(say, "in the child").result()

        def task():
            process = context.Process(target=child)
            process.start()
            process.join(20)
            return process.exitcode

        with Pool(2) as pool:
            say(pool.submit(task).result())
        """,
        *IGNORE,
    )
    assert lines == ["in the child", "0"], errors
    assert code == 0


def test_a_fork_in_the_middle_of_heavy_use_does_not_hang_the_child(run: Run) -> None:
    code, lines, errors = run(
        forking_program(
            """
            stop = threading.Event()
            pool = Pool(4, 64)
            def flood():
                while not stop.is_set():
                    pool.submit(str).cancel()
            flooding = [threading.Thread(target=flood) for _ in range(2)]
            for one in flooding:
                one.start()
            def child():
                pool.metrics()
                with Pool(2) as own:
                    own.submit(str).result()
                try:
                    pool.submit(str)
                except PoolForked:
                    return
                raise AssertionError
            for _ in range(10):
                in_child(child)
            stop.set()
            for one in flooding:
                one.join()
            pool.close()
            """
        ),
        *IGNORE,
    )
    assert lines == ["exit 0"] * 10, errors
    assert code == 0


@pytest.mark.parametrize("ask", ["pykka.ActorRegistry.stop_all()", "ref.ask(GetState())"])
def test_the_supervisor_that_stayed_in_the_parent_is_dead_in_the_child(
    ask: str, program: Source, run: Run
) -> None:
    code, lines, errors = run(
        program(
            f"""
            import pykka
            with Pool(1) as pool:
                ref = pool.actor_ref
                pool.submit(str).result()
                def child():
                    try:
                        {ask}
                    except pykka.ActorDeadError:
                        pass
                    say("answered")
                in_child(child)
                say(pool.submit(str, 1).result())
            """
        ),
        *IGNORE,
    )
    assert lines == ["answered", "exit 0", "1"], errors
    assert code == 0


def test_nothing_is_forked_while_a_helper_is_started(run: Run) -> None:
    """The fork would keep the pipe open whose end ``subprocess.Popen`` waits for."""
    source = """
    import subprocess
    real, order = subprocess.Popen, []
    def popen(*args, **kwargs):
        about, forked = threading.Event(), threading.Event()
        def fork():
            about.set()
            child = os.fork()
            if not child:
                os._exit(0)
            order.append("forked")
            forked.set()
            os.waitpid(child, 0)
        thread = threading.Thread(target=fork)
        thread.start()
        about.wait()
        forked.wait(0.2)
        order.append("started")
        threads.append(thread)
        return real(*args, **kwargs)
    threads = []
    subprocess.Popen = popen
    with Pool(1, backend="process") as pool:
        say(pool.submit(pow, 2, 3).result())
    for thread in threads:
        thread.join()
    say(order[0], order.count("started") == order.count("forked"))
    """
    code, lines, errors = run(forking_program(source), "-W", "ignore")
    assert (code, lines) == (0, ["8", "started True"]), errors
