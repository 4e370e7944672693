"""Tests use the public face. Where they use an underscore name of the library, it stands here."""

from __future__ import annotations

import ast
import concurrent.futures
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pykka
from hypothesis import given
from hypothesis import strategies as st

from tests import slow_first
from tests.house.code import LIBRARY, ROOT

TESTS = ROOT / "tests"
INSIDE = "tests/inside.py"  # where tests look inside on behalf of all, with the reasons

_OVERRIDDEN = "something happens at this point, as if a finalizer or another thread came in between"
_LET_GO = "what is over must not be kept, and nothing else tells"
_BROKEN = "a state that only a fault brings about is set by hand"

#: Underscore names of the library, and why the tests of a file use them. May get shorter.
TOUCHES: dict[str, dict[str, str]] = {
    "tests/conformance/pykka_plugin.py": {"_create_future": "pykka's own way to give it a future"},
    "tests/context/test_context_races.py": {"_keep": _OVERRIDDEN},
    "tests/observe/test_prometheus.py": {"_pools": _LET_GO},
    "tests/ratelimit/test_shared_security.py": {
        "_store": "closes the connection to a server, which the library leaves open",
    },
    "tests/semaphore/test_line.py": {"_next": _OVERRIDDEN},
    "tests/test_clock_interrupts.py": {"_running": _BROKEN, "_started_at": _BROKEN},
    "tests/test_delivery.py": {"_entries": "that a second flush has not even posted its end"},
    "tests/test_keys.py": {"_buckets": _LET_GO},
    "tests/testing/test_clock.py": {"_next_due": _OVERRIDDEN},
    "tests/workerpool/mailbox/test_dead_letters.py": {
        "_bus": "what is noted before anybody is told",
        "_queue": "the same",
    },
    "tests/workerpool/mailbox/test_keys_and_workers.py": {"_room": _BROKEN},
    "tests/workerpool/mailbox/test_priority_queue.py": {"_keys": _LET_GO, "_turns": _LET_GO},
    "tests/workerpool/supervisor/test_panics.py": {"_asleep": _OVERRIDDEN},
    "tests/workerpool/test_executor_clients.py": {"_accepted": _OVERRIDDEN},
    "tests/workerpool/test_pains.py": {"_requests": "that the supervisor has heard three drains"},
}

#: What leaves a test out, and whether its first argument may be the reason.
_SKIPS = {
    "pytest.skip": True,
    "pytest.xfail": True,
    "pytest.mark.skip": True,
    "pytest.mark.skipif": False,
    "pytest.mark.xfail": False,
}

#: How often, all in all, :data:`INSIDE` included. May be lowered and never raised.
MOST_TOUCHES = 38


def _of_others() -> set[str]:
    """Names that Python, its executors and pykka have: ours have them for their clients."""
    pool, future = concurrent.futures.ThreadPoolExecutor(1), concurrent.futures.Future[int]()
    processes = concurrent.futures.ProcessPoolExecutor(1)
    things = [
        pool,
        processes,
        future,
        pykka.ActorRef,
        os,
        sys,
        threading,
        threading.Semaphore(),
        threading.Thread,
    ]
    names = {name for one in things for name in dir(one) if name.startswith("_")}
    pool.shutdown()
    processes.shutdown()
    return names | {"_actor_weakref", "_extra_reducers", "_repr_html_"}


def _names_of_the_library() -> set[str]:
    nodes = [node for path in LIBRARY.rglob("*.py") for node in ast.walk(_parsed(path))]
    names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    names |= {node.name for node in nodes if isinstance(node, kinds)}
    return names | {node.id for node in nodes if isinstance(node, ast.Name)}


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _touched(path: Path) -> Iterator[str]:
    """The underscore names of others that a file uses."""
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if owner not in ("self", "cls") and not node.attr.startswith("__"):
                yield node.attr


def test_tests_look_behind_the_public_face_only_where_it_is_listed() -> None:
    names = _names_of_the_library() - _of_others()
    found: dict[str, Counter[str]] = {}
    for path in TESTS.rglob("*.py"):
        if touched := Counter(name for name in _touched(path) if name in names):
            found[path.relative_to(ROOT).as_posix()] = touched
    number = sum(touched.total() for touched in found.values())
    inside = found.pop(INSIDE)
    assert {file: set(touched) for file, touched in found.items()} == {
        file: set(reasons) for file, reasons in TOUCHES.items()
    }
    assert number <= MOST_TOUCHES
    assert inside["_core"] == 1


def test_each_look_inside_has_its_reason() -> None:
    looks = [one for one in _parsed(ROOT / INSIDE).body if isinstance(one, ast.FunctionDef)]
    looks = [one for one in looks if not one.decorator_list]  # no overloads
    assert looks
    assert [one.name for one in looks if not ast.get_docstring(one)] == []


def test_each_test_that_is_skipped_says_why() -> None:
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in TESTS.rglob("*.py")
        for node in ast.walk(_parsed(path))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in _SKIPS
        and not any(one.arg == "reason" for one in node.keywords)
        and not (_SKIPS[ast.unparse(node.func)] and node.args)
    ]
    assert silent == []


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 8))
def test_each_process_begins_with_its_share_of_the_slow_tests(
    slow: list[bool], processes: int
) -> None:
    order = list(slow_first(slow, processes))
    assert sorted(order) == list(range(len(slow)))
    left, begin = len(slow), 0
    for number in range(processes):
        size = left // (processes - number)
        share = len(range(number, sum(slow), processes))
        if share <= size:
            part = [slow[one] for one in order[begin : begin + size]]
            assert part == sorted(part, reverse=True)
            assert sum(part) == share
        else:
            return  # more are slow than there is room for: which process gets them is chance
        left, begin = left - size, begin + size
