"""What is told of the end, and the names of tasks."""

from __future__ import annotations

import copy
import functools
import pickle
from unittest import mock

import pytest

from ion_actors import DrainReport, TaskState, UnfinishedTask
from ion_actors.naming import describe
from ion_actors.workerpool.chunk import Chunk


def through_pickle(thing):
    return pickle.loads(pickle.dumps(thing))


class Callable:
    def __call__(self): ...
    def method(self): ...


class Liar:
    """Answers to every attribute, with nonsense."""

    def __getattr__(self, name):
        return [name]


class Bomb:
    def __getattr__(self, name):
        raise ValueError(name)


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (print, "print"),
        (describe, "describe"),
        (Callable, "Callable"),
        (Callable(), "Callable"),
        (Callable().method, "Callable.method"),
        (functools.partial(functools.partial(print, 1), 2), "print"),
        (functools.partial(Callable()), "Callable"),
        (Liar(), "Liar"),
        (Bomb(), "Bomb"),
    ],
    ids=lambda one: one if isinstance(one, str) else type(one).__name__,
)
def test_a_task_is_called_after_its_function(fn, expected):
    assert describe(fn) == expected


def test_a_mock_as_a_function_has_a_name():
    # It has every attribute, `func` as well: looking for the innermost one never ended.
    assert describe(mock.Mock()) == "Mock"


def test_a_chunk_of_a_map_is_called_after_the_function_it_calls():
    assert describe(Chunk(functools.partial(print), [])) == "print"


def test_a_given_name_counts_first():
    assert describe(print, "the name") == "the name"


def unfinished(**changes):
    facts = {"fn": print, "args": (1,), "kwargs": {"end": ""}, "state": TaskState.QUEUED}
    return UnfinishedTask(**facts | changes)


def test_an_unfinished_task_can_be_run_elsewhere():
    task = unfinished(fn=dict, args=([("a", 1)],), kwargs={"b": 2})
    assert task.fn(*task.args, **task.kwargs) == {"a": 1, "b": 2}


def test_an_unfinished_task_pickles_without_its_function_and_keeps_its_facts():
    task = unfinished(
        fn=lambda: None, args=(object(),), given_name="job", worker="w-1", age=2.0, stack="here"
    )
    again = pickle.loads(pickle.dumps(task))
    assert again == (None, (), {}, TaskState.QUEUED, "job", "w-1", 2.0, "here", None)
    assert again.name == "job"


def test_an_unfinished_task_without_a_name_keeps_its_functions_name_when_pickled():
    assert pickle.loads(pickle.dumps(unfinished())).name == "print"


def report(**changes):
    facts = {"completed": 5, "failed": 1, "panicked": 2, "elapsed": 1.5}
    return DrainReport(**{"cancelled": (), "running": ()} | facts | changes)


def test_the_unfinished_are_the_cancelled_and_the_running():
    queued, running = unfinished(), unfinished(state=TaskState.RUNNING)
    assert report(cancelled=(queued,), running=(running,)).unfinished == (queued, running)


def test_a_report_reads_as_a_sentence_that_names_the_stuck():
    stuck = unfinished(given_name="stuck", worker="pool-1-0", state=TaskState.RUNNING)
    assert str(report(running=(stuck,))) == (
        "5 completed, 1 failed, 2 panicked, 0 cancelled, 1 still running: stuck (pool-1-0) "
        "after 1.500 s"
    )
    assert str(report()).endswith("0 still running after 1.500 s")


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, through_pickle])
def test_a_report_can_be_copied_and_pickled(again):
    assert again(report()) == report()


def test_a_report_is_frozen():
    with pytest.raises(AttributeError):
        report().completed = 6
