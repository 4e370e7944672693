"""The end of the interpreter, and of pools that nobody ended."""

from __future__ import annotations

from collections.abc import Callable

from tests import needs_threads_at_exit

Run = Callable[..., tuple[int, list[str], str]]


def test_a_small_program_runs_without_any_warning(run: Run) -> None:
    code, lines, errors = run(
        """
        import asyncio

        async def coroutine():
            await asyncio.sleep(0)
            return "coroutine"

        async def main():
            async with Pool(2) as pool:
                return await (await pool.asubmit(str, "awaited"))

        with Pool(2) as pool:
            say(pool.submit(str, "plain").result(), pool.submit(coroutine).result())
            say(list(pool.map(str, range(3))), type(pool.submit(int, "x").exception()).__name__)
        say(asyncio.run(main()))
        pool = Pool(1)
        pool.options(timeout=60).submit(str).result()
        pool.close()
        """,
        "-X",
        "dev",
        "-W",
        "error",
    )
    assert errors == ""
    assert lines == ["plain coroutine", "['0', '1', '2'] ValueError", "awaited"]
    assert code == 0


# -- at exit ---


@needs_threads_at_exit
def test_an_unclosed_pool_finishes_its_accepted_work_at_exit_and_warns(run: Run) -> None:
    code, lines, errors = run(
        """
        pool = Pool(2, name="forgetful")
        for number in range(500):
            pool.submit(say, number)
        """,
        "-W",
        "default",
    )
    assert sorted(map(int, lines)) == list(range(500))
    assert "ResourceWarning: pool 'forgetful' was not closed before the interpreter exits" in errors
    assert code == 0


def test_a_stream_that_the_main_thread_has_not_read_to_its_end_keeps_nobody(run: Run) -> None:
    code, lines, _errors = run(
        """
        def numbers(name):
            try:
                yield from range(1000)
            finally:
                say(name, "closed")

        def read(stream):
            next(stream)
            begun.set()
            say(sum(stream))

        begun = threading.Event()
        pool = Pool(2, drain_timeout=None)
        left, read_elsewhere = pool.stream(numbers, "left"), pool.stream(numbers, "read")
        say(next(left))
        threading.Thread(target=read, args=[read_elsewhere]).start()
        begun.wait()
        if os.fork() == 0:
            sys.exit()  # a fork has no such streams
        os.wait()
        """
    )
    assert sorted(lines) == sorted(["0", "left closed", "read closed", str(sum(range(1000)))])
    assert code == 0


def test_dead_letters_are_told_before_the_interpreter_goes(run: Run) -> None:
    code, lines, errors = run(
        """
        from ion_actors.workerpool import exit_hooks

        def tell(letter):
            assert exit_hooks._exiting.wait(20)
            say(letter.task, letter.args)

        gate = threading.Event()
        pool = Pool(1)
        pool.dead_letters.subscribe(tell)
        pool.submit(gate.wait)
        pool.submit(divmod, 7, 2)
        pool.submit(divmod, 9, 2)
        pool.shutdown(wait=False, cancel_futures=True)
        gate.set()
        pool.close()
        del pool
        """
    )
    assert errors == ""
    assert lines == ["divmod (7, 2)", "divmod (9, 2)"]
    assert code == 0


@needs_threads_at_exit
def test_the_warning_at_exit_may_be_an_error_and_the_work_is_finished_all_the_same(
    run: Run,
) -> None:
    code, lines, _ = run(
        """
        pool = Pool(1)
        for number in range(100):
            pool.submit(say, number)
        """,
        "-W",
        "error",
    )
    assert lines == [str(number) for number in range(100)]
    assert code == 0


def test_a_stuck_task_cannot_keep_the_interpreter(run: Run) -> None:
    code, lines, errors = run(
        """
        pool = Pool(1, drain_timeout=0.2)
        started = threading.Event()
        def stuck():
            started.set()
            threading.Event().wait()
        stuck = pool.options(name="stuck one").submit(stuck)
        queued = pool.submit(say, "never")
        stuck.add_done_callback(lambda one: say(type(one.exception()).__name__))
        queued.add_done_callback(lambda one: say("cancelled", one.cancelled()))
        started.wait()
        """,
        "-W",
        "ignore",
    )
    assert sorted(lines) == ["TaskAbandoned", "cancelled True"], errors
    assert "task 'stuck one' is abandoned" in errors
    assert code == 0


def test_a_stuck_task_cannot_keep_a_program_that_fails(run: Run) -> None:
    code, _, errors = run(
        """
        started = threading.Event()
        def stuck():
            started.set()
            threading.Event().wait()
        with Pool(1, drain_timeout=0.1) as pool:
            pool.submit(stuck)
            started.wait()
            raise LookupError("the actual error")
        """
    )
    assert code == 1
    assert "LookupError: the actual error" in errors


@needs_threads_at_exit
def test_no_task_and_no_pool_begins_once_the_interpreter_exits(run: Run) -> None:
    code, lines, errors = run(
        """
        pool = Pool(1)
        def late():
            while not pool.is_draining:
                time.sleep(0.001)
            for call in (lambda: pool.submit(print), lambda: Pool(1)):
                try:
                    call()
                except RuntimeError as error:
                    say(type(error).__name__)
        pool.submit(late)
        """,
        "-W",
        "ignore",
    )
    assert lines == ["PoolClosed", "RuntimeError"], errors
    assert code == 0


@needs_threads_at_exit
def test_a_pool_that_is_draining_at_exit_is_waited_for(run: Run) -> None:
    code, lines, errors = run(
        """
        pool = Pool(1)
        for number in range(100):
            pool.submit(say, number)
        pool.shutdown(wait=False)
        """,
        "-W",
        "error",
    )
    assert lines == [str(number) for number in range(100)]
    assert errors == ""
    assert code == 0


def test_many_pools_at_exit_share_the_time(run: Run) -> None:
    code, lines, errors = run(
        """
        pools = [Pool(1, drain_timeout=1) for _ in range(30)]  # 30 s, if it were one by one
        for pool in pools:
            pool.submit(threading.Event().wait)
        say("done")
        """,
        "-W",
        "ignore",
    )
    assert lines == ["done"], errors
    assert code == 0


# -- stuck tasks ---


def test_a_stuck_task_is_named_with_its_age_and_stack_and_its_result_is_fenced(run: Run) -> None:
    code, lines, errors = run(
        """
        gate, started, returned = threading.Event(), threading.Event(), threading.Event()

        def where_it_hangs():
            started.set()
            gate.wait()
            return "too late"

        pool = Pool(1)
        stuck = pool.options(name="import").submit(where_it_hangs)
        started.wait()
        (worker,) = [one for one in threading.enumerate() if one.name == f"{pool.name}-0"]
        try:
            pool.drain(0.1)
        except DrainTimeout as error:
            say([(task.name, task.state.value) for task in error.report.running])
        error = stuck.exception(0)
        say(type(error).__name__, error.task, error.age > 0.05, "where_it_hangs" in error.stack)
        before = pool.metrics()
        gate.set()
        worker.join()
        say(stuck.exception(0) is error, pool.metrics() == before)
        """,
        "-W",
        "error",
    )
    assert lines == [
        "[('import', 'running')]",
        "TaskAbandoned import True True",
        "True True",
    ], errors
    assert code == 0


def test_a_stuck_task_cannot_keep_close(run: Run) -> None:
    code, lines, errors = run(
        """
        started = threading.Barrier(3)
        def stuck():
            started.wait()
            threading.Event().wait()
        pool = Pool(2)
        for _ in range(2):
            pool.submit(stuck)
        started.wait()
        say(len(pool.close(0.1).running), pool.is_closed)
        """,
        "-W",
        "error",
    )
    assert lines == ["2 True"], errors
    assert code == 0


def test_a_stuck_done_callback_cannot_keep_close_nor_the_interpreter(run: Run) -> None:
    code, lines, errors = run(
        """
        pool = Pool(1, drain_timeout=0.1)
        inside = threading.Event()
        def callback(_):
            inside.set()
            threading.Event().wait()
        pool.submit(time.sleep, 0.01).add_done_callback(callback)
        inside.wait()
        pool.close()
        say("closed", pool.is_closed)
        """,
        "-W",
        "error",
    )
    assert lines == ["closed True"], errors
    assert code == 0


# -- forgotten pools ---


def test_a_forgotten_pool_stops_its_threads_and_warns_and_loses_no_work(run: Run) -> None:
    code, lines, errors = run(
        """
        import gc
        before = set(threading.enumerate())
        gate = threading.Event()
        done = []

        pool = Pool(2, name="forgotten")
        held = [pool.submit(gate.wait) for _ in range(2)]
        queued = [pool.submit(done.append, number) for number in range(1000)]
        threads = set(threading.enumerate()) - before
        del pool
        gc.collect()
        gate.set()
        for thread in threads:
            thread.join()
        say(all(one.done() for one in held + queued), sorted(done) == list(range(1000)))
        """,
        "-W",
        "default",
    )
    assert lines == ["True True"]
    assert "ResourceWarning: pool 'forgotten' was never closed" in errors
    assert "before the interpreter exits" not in errors
    assert code == 0


def test_a_forgotten_pool_in_a_reference_cycle_is_collected(run: Run) -> None:
    code, lines, errors = run(
        """
        import gc

        class App:
            def __init__(self):
                self.pool = Pool(1, initializer=self.setup)
                self.future = self.pool.submit(self.work)
            def setup(self):
                pass
            def work(self):
                return 1

        app = App()
        app.future.result()
        threads = [one for one in threading.enumerate() if one.name.startswith(app.pool.name)]
        pool_name = app.pool.name
        # The initializer belongs to the pool, so the App lives as long as its pool: cut that.
        pool, app.pool = app.pool, None
        del app, pool
        gc.collect()
        for thread in threads:
            thread.join()
        say(len(threads))
        """,
        "-W",
        "ignore",
    )
    assert lines == ["2"], errors
    assert code == 0
