"""The library's threads begin without context variables, also where Python has them inherited."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable

import pytest

from tests.house.code import read

# What free-threaded builds do by default.
INHERIT = ["-X", "thread_inherit_context=1"] if sys.version_info >= (3, 14) else []

# Remembers of each thread whether it began without variables and under no context.
_WATCH = """
import contextvars
from ion_actors import background, current_context

VAR = contextvars.ContextVar("var", default=None)
began = {}
begin = threading.Thread.run

def run(thread):
    if "_do_shutdown" not in thread.name:  # asyncio's
        began[thread.name] = VAR.get() is None and current_context() is background()
    begin(thread)

threading.Thread.run = run

def in_thread(work):
    # Not in the main thread: the library starts threads in another way there.
    with Context(timeout=600):
        VAR.set("inherited")
        variables = contextvars.copy_context()
    worker = threading.Thread(target=variables.run, args=(work,), name="in_thread")
    worker.start()
    worker.join()
"""

# One of each kind of the library's threads, started by a thread that has variables.
_ALL_KINDS = """
import asyncio, queue, signal
from ion_actors.delivery import FINALIZERS, run_elsewhere
from ion_actors.logs import Logger, flush
from ion_actors.supervision import Supervisor, child

done = queue.SimpleQueue()
heard = lambda *_: done.put(None)
@in_thread
def all_kinds():
    run_elsewhere(heard)
    FINALIZERS.post(heard)
    Logger("ion_actors", later=True).warning("hello")
    Context(timeout=0.01).add_callback(heard)
    for _ in range(3):
        done.get(timeout=30)
    assert flush(30)

    hooked = Future()
    hooked.set_get_hook(lambda timeout: 5)
    async def awaited():
        return await hooked
    assert asyncio.run(awaited()) == 5

    pool = Pool(1, name="pool")
    async def blocking():
        return await asyncio.to_thread(VAR.get)
    assert pool.submit(blocking).result() == "inherited"
    try:
        pool.submit(sys.exit).result()
    except TaskPanicked:
        pass
    assert pool.submit(VAR.get).result() == "inherited"
    pool.dead_letters.subscribe(heard)
    pool.pause()
    pool.submit(pow, 2, 3)
    Supervisor([child(Pool, id="a", args=(1,))], name="tree").start().close()
    pool.close()
    done.get(timeout=30)


signal.signal(signal.SIGTERM, lambda *_: None)
drained = Pool(1, name="drained")
drained.drain_on_signal(signal.SIGTERM)
signal.raise_signal(signal.SIGTERM)
drained.drain()
say(*(name for name, found in began.items() if not found and name != 'in_thread'))
say(*sorted(began))
"""

#: The threads of the table in docs/explanation/architecture.md.
_KINDS = {
    "drained-supervisor", "ion_actors-SIGTERM", "ion_actors-callbacks", "ion_actors-finalizers",
    "ion_actors-hook", "ion_actors-log", "ion_actors-timer", "pool-0", "pool-0-loop-1",
    "pool-dead-letters", "pool-supervisor", "tree-starts-a", "tree-supervisor",
}  # fmt: skip


def test_every_thread_of_the_library_begins_without_variables(
    run: Callable[..., tuple[int, list[str], str]],
) -> None:
    code, said, complaints = run(_WATCH + _ALL_KINDS, *INHERIT)
    assert code == 0, complaints
    assert said[0] == "", "these began with variables"
    assert set(said[1].split()) >= _KINDS


@pytest.mark.parametrize("options", [[], INHERIT] if INHERIT else [[]])
def test_a_pool_does_not_live_in_the_context_in_which_it_was_made(
    options: list[str], run: Callable[..., tuple[int, list[str], str]]
) -> None:
    program = """
        import contextvars, gc, weakref
        class Value: ...
        VAR = contextvars.ContextVar("var")
        made = []
        def make():
            value = Value()
            VAR.set(value)
            with Context() as context:
                made.append(Pool(1))
                made.append(weakref.ref(value))
            context.cancel()
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        del thread
        pool, ref = made
        for _ in range(2):
            try:
                pool.submit(sys.exit).result()
            except TaskPanicked:
                say("replaced")
            say(pool.submit(pow, 2, 3).result())
        gc.collect()
        say(ref() is None)
        pool.close()
    """
    code, said, _ = run(program, *options)
    assert (code, said) == (0, ["replaced", "8", "replaced", "8", "True"])


def test_no_thread_is_made_in_another_way() -> None:
    made = {
        f"{module.name}:{node.lineno}"
        for module in read().values()
        if module.name != "ion_actors.own_variables"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "Thread"
    }
    assert made == set(), "use daemon_thread"
