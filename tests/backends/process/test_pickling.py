"""What can be sent to a child process, and how that which cannot be is named."""

from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys
import threading
import weakref

import pytest

from ion_actors import TaskNotPicklable
from ion_actors.backends.process.transport import pickling
from ion_actors.backends.process.transport.pickling import (
    LARGE,
    not_rebuilt,
    pack,
    pack_call,
    pack_result,
    unpack,
)


def double(x):
    return 2 * x


class Point:
    def __init__(self, x):
        self.x = x


class Explodes:
    """Cannot be pickled, nor be shown."""

    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        raise self.error

    def __repr__(self):
        raise self.error


class ExplodesLater:
    def __reduce__(self):
        return sys.exit, (7,)


@pytest.fixture
def without_cloudpickle(monkeypatch):
    monkeypatch.setattr(pickling, "_cloud_pickler", lambda: None)


def test_a_call_comes_out_as_it_went_in():
    packed = pack_call(lambda: "t", double, (1, "two"), {"three": [3]}, ("extra",))
    assert unpack(*packed) == (double, (1, "two"), {"three": [3]}, ("extra",))
    assert unpack(*pack_call(lambda: "t", double, (), None)) == (double, (), None, None)
    assert unpack(*pack_result(lambda: "t", {"a": 1})) == ({"a": 1}, None)


def test_a_large_buffer_stays_out_of_the_pickle_and_a_small_one_in_it():
    large, small = bytearray(LARGE), bytearray(b"x" * (LARGE - 1))
    packed = pack((pickle.PickleBuffer(large), pickle.PickleBuffer(small)))
    header, buffers = packed
    assert len(buffers) == 1
    assert LARGE <= len(header) + 1 < LARGE + 1000
    one, two = unpack(*packed)
    assert bytes(one) == large
    assert bytes(two) == small


def test_a_lambda_and_a_closure_cross_with_cloudpickle():
    pytest.importorskip("cloudpickle")
    base = 40
    fn, args, _, _ = unpack(*pack_call(lambda: "t", lambda x: x + base, (2,), None))
    assert fn(*args) == 42


def test_a_connection_crosses_to_a_process_that_is_being_spawned_only(without_cloudpickle):
    # multiprocessing's own pickler is asked: its words are in the error.
    with pytest.raises(TaskNotPicklable, match="inheritance"):
        import multiprocessing

        pack_call(lambda: "t", double, (multiprocessing.get_context("spawn").Lock(),), None)


def test_without_cloudpickle_the_error_says_what_would_help(without_cloudpickle):
    with pytest.raises(TaskNotPicklable, match="cloudpickle") as caught:
        pack_call(lambda: "t", lambda: None, (), None)
    assert caught.value.what == "the function"


@pytest.mark.parametrize(
    ("args", "kwargs", "what"),
    [
        ((1, threading.Lock()), {}, "argument 2"),
        ((1,), {"k": threading.Lock()}, "argument 'k'"),
    ],
)
def test_the_error_names_the_argument(args, kwargs, what):
    with pytest.raises(TaskNotPicklable, match=r"'send'.*lock") as caught:
        pack_call(lambda: "send", double, args, kwargs)
    assert caught.value.what == what
    assert caught.value.task == "send"
    assert "lock" in caught.value.shown
    assert what in str(caught.value)
    assert isinstance(caught.value.__cause__, TypeError)


def test_the_error_names_the_result():
    with pytest.raises(TaskNotPicklable) as caught:
        pack_result(lambda: "t", threading.Lock())
    assert caught.value.what == "the result"


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
def test_whatever_is_raised_by_an_argument_is_only_the_cause(error):
    with pytest.raises(TaskNotPicklable) as caught:
        pack_call(lambda: "t", double, (Explodes(error),), None)
    assert caught.value.__cause__ is error
    assert caught.value.shown.startswith("<Explodes ")


def test_what_is_too_deep_is_an_error_and_not_the_end():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(TaskNotPicklable) as caught:
        pack_call(lambda: "t", double, (deep,), None)
    assert caught.value.what == "argument 1"
    while deep:  # not by one recursion
        deep = deep.pop()


def test_a_long_argument_is_shown_in_short():
    with pytest.raises(TaskNotPicklable) as caught:
        pack_call(lambda: "t", double, ([threading.Lock(), *range(10**6)],), None)
    assert len(caught.value.shown) < 500


def test_what_goes_wrong_at_the_other_end_can_be_told():
    with pytest.raises(SystemExit) as caught:
        unpack(*pack(ExplodesLater()))
    told = not_rebuilt("t", "the call", caught.value)
    assert isinstance(told, TaskNotPicklable)
    assert told.what == "the call"
    assert "SystemExit: 7" in str(told)
    assert told.__cause__ is caught.value


MAIN = """
import sys
from ion_actors.backends.process.transport.pickling import pack_call
def f(): return 42
class C: pass
sys.stdout.buffer.write(pack_call(lambda: "t", f, (C(),), None)[0])
"""


def test_what_no_child_could_import_crosses_by_value():
    pytest.importorskip("cloudpickle")
    run = subprocess.run([sys.executable, "-c", MAIN], check=True, capture_output=True)
    fn, args, _, _ = pickle.loads(run.stdout)
    assert fn() == 42
    assert type(args[0]).__name__ == "C"


def test_what_a_child_can_import_crosses_by_its_name(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(MAIN)
    run = subprocess.run([sys.executable, script], check=True, capture_output=True)
    assert len(run.stdout) < 100
    assert b"__main__" in run.stdout


class Weighty:
    """Can be watched, and cannot be pickled when told so."""

    def __init__(self, *, good):
        self.good = good

    def __reduce__(self):
        if not self.good:
            raise TypeError("no")
        return Weighty, ()


@pytest.mark.usefixtures("without_gc")
def test_the_error_keeps_no_argument_but_the_one_that_refused():
    good = Weighty(good=True)
    watched = weakref.ref(good)
    with pytest.raises(TaskNotPicklable) as caught:
        pack_call(lambda: "t", double, (good, Weighty(good=False)), {"k": good})
    assert caught.value.what == "argument 2"
    del good
    assert watched() is None


@pytest.mark.usefixtures("without_gc")
def test_the_error_of_a_result_keeps_it_no_longer_than_its_cause_does():
    bad = threading.Lock()
    held = Holds(bad)
    watched = weakref.ref(held)
    with pytest.raises(TaskNotPicklable) as caught:
        pack_result(lambda: "t", held)
    del held
    assert watched() is None
    assert caught.value.__cause__ is not None


class Holds:
    def __init__(self, it):
        self.it = it


def test_where_it_refused_is_told():
    with pytest.raises(TaskNotPicklable) as caught:
        pack_call(lambda: "t", double, (Weighty(good=False),), None)
    (note,) = caught.value.__cause__.__notes__
    assert "in __reduce__" in note
    assert "cloudpickle" not in note


class Buffered:
    """Its bytes are a buffer that stays in the pickle, as those of a small array do."""

    def __init__(self, data: bytearray) -> None:
        self.data = data

    def __reduce_ex__(self, protocol):
        return Buffered, (pickle.PickleBuffer(self.data),)


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("sizes", [(60_000,), (60_000, 60_000), (10,), (0,)])
def test_a_pipe_beside_buffers_is_found_wherever_it_is(place, sizes):
    here, there = multiprocessing.Pipe()
    with here, there:
        found = [Buffered(bytearray(size)) for size in sizes]
        found.insert(min(place, len(found)), here)
        _, buffers = pack(found)
        assert len(buffers) == 1  # a copy of its descriptor, and not its bare number


@pytest.mark.parametrize("place", [0, 1])
def test_a_function_of_the_main_module_beside_a_buffer_is_found(place, monkeypatch):
    asked = []
    monkeypatch.setattr(pickling, "_main_is_there", lambda: asked.append(True) or True)
    monkeypatch.setattr(double, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "double", double, raising=False)
    found = [Buffered(bytearray(60_000))]
    found.insert(place, double)
    pack(found)
    assert asked
    asked.clear()
    pack([Buffered(bytearray(30_000) + b"__main__" + bytearray(30_000))])
    assert not asked  # a word in the data is none of a name
