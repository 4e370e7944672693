"""Exceptions on their way from a child process."""

from __future__ import annotations

import contextvars
import pickle
import sys
import threading
import traceback

import pytest

from ion_actors import QueueFull, RateLimited, RemoteError, RemotePanic
from ion_actors.backends.process.transport import remote_errors
from ion_actors.backends.process.transport.remote_errors import (
    RemoteTraceback,
    pack_error,
    unpack_error,
)
from ion_actors.raised import add_note


def crossed(error, process=""):
    return unpack_error(pack_error(error, process))


def raised(error, cause=None):
    try:
        if cause is None:
            raise error
        raise error from cause
    except BaseException as caught:
        return caught


def notes(error):
    """The notes of its own."""
    return [one for one in error.__notes__ if not isinstance(one, RemoteTraceback)]


def remote_text(error):
    (text,) = [one for one in error.__notes__ if isinstance(one, RemoteTraceback)]
    return text


class TwoArguments(ValueError):
    """Pickles by default, and cannot be rebuilt: the classic."""

    def __init__(self, code, why="unknown"):
        super().__init__(f"{code}: {why}")
        self.code = code


class Exhausted(SystemExit):
    """What its base makes of the arguments is neither there nor in the attributes."""

    def __init__(self, one, two):
        super().__init__(one + two)


class Slotted(Exception):
    """What it knows is in no ``__dict__``; its constructor can make it anew."""

    __slots__ = ("code",)

    def __init__(self, code):
        super().__init__(code)
        self.code = code


class Incurable(Exception):
    def __reduce__(self):
        return TwoArguments, ()


class Abort(BaseException):
    """Not an ``Exception``, and cannot be pickled."""

    def __init__(self):
        super().__init__("enough")
        self.lock = threading.Lock()


class Hostile(Exception):
    def __setattr__(self, name, value):
        raise RuntimeError("not with me")

    def add_note(self, note):
        raise RuntimeError("nor that")


class WithLock(RuntimeError):
    def __init__(self, message):
        super().__init__(message)
        self.lock = threading.Lock()


class Impostor(Exception):
    def __reduce__(self):
        return str, ("not an exception",)


class Exits(Exception):
    def __reduce__(self):
        return sys.exit, (3,)


class Unspeakable(WithLock):
    def __str__(self):
        raise SystemExit


class Knows(Exception):
    """Refers to another exception of its chain, beside ``__cause__``."""

    def __init__(self, other=None):
        super().__init__()
        self.other = other


class Empty(Exception):
    def __len__(self):
        return 0


class Group(ExceptionGroup):
    def derive(self, excs):
        return Group(self.message, excs)


def test_it_is_of_the_same_class_with_the_same_facts():
    error = QueueFull("thumbs", 64)
    error.colour = "red"
    error.add_note("by the way")
    found = crossed(raised(error))
    assert type(found) is QueueFull
    assert str(found) == str(error)
    assert (found.pool, found.queue_size, found.colour) == ("thumbs", 64, "red")
    assert notes(found) == ["by the way"]


def test_one_that_counts_as_false_is_an_exception_as_any_other():
    found = crossed(raised(Empty("nothing in it"), cause=Empty("nor in this")))
    assert type(found) is type(found.__cause__) is Empty
    assert (str(found), str(found.__cause__)) == ("nothing in it", "nor in this")


def test_the_traceback_is_shown_and_the_chain_is_untouched():
    found = crossed(raised(ValueError("no")), "thumbs-1")
    assert found.__cause__ is None
    assert found.__context__ is None
    assert found.__traceback__ is None
    text = "".join(traceback.format_exception(found))
    assert "in the process thumbs-1" in text
    assert 'test_remote_errors.py", line' in text
    assert "in raised" in text


def test_frames_of_this_library_that_lead_to_the_task_are_not_shown():
    # Code that calls itself a part of it.
    names = {"__name__": "ion_actors.backends.process.child.main"}
    exec("def call(fn):\n    fn()", names)
    try:
        names["call"](lambda: 1 / 0)
    except ZeroDivisionError as error:
        text = remote_text(crossed(error.with_traceback(error.__traceback__.tb_next)))
    assert "in <lambda>" in text
    assert "in call" not in text


def test_causes_and_contexts_come_along():
    cause = raised(KeyError("k"), OSError(2, "no such file"))
    try:
        try:
            raise LookupError("first")
        except LookupError:
            raise ValueError("then") from cause
    except ValueError as error:
        found = crossed(error)
    assert repr(found.__cause__) == "KeyError('k')"
    assert isinstance(found.__cause__.__cause__, FileNotFoundError)
    assert found.__cause__.__cause__.errno == 2
    assert repr(found.__context__) == "LookupError('first')"
    assert found.__suppress_context__


def test_what_was_raised_from_none_stays_so():
    try:
        try:
            raise LookupError
        except LookupError:
            raise ValueError from None
    except ValueError as error:
        found = crossed(error)
    assert found.__suppress_context__
    assert found.__cause__ is None


def test_what_was_raised_in_the_midst_of_another_stays_so():
    try:
        try:
            raise LookupError
        except LookupError:
            raise ValueError  # noqa: B904
    except ValueError as error:
        found = crossed(error)
    assert not found.__suppress_context__
    assert type(found.__context__) is LookupError


@pytest.mark.parametrize("why", ["gone", "not found"])
def test_a_constructor_that_passes_something_else_on_is_not_called_again(why):
    found = crossed(raised(TwoArguments(404, why)))
    assert type(found) is TwoArguments
    assert (str(found), found.args, found.code) == (f"404: {why}", (f"404: {why}",), 404)


def test_what_a_builtin_class_makes_of_its_arguments_is_made_again():
    found = crossed(raised(Exhausted(3, 4)))
    assert type(found) is Exhausted
    assert found.code == 7
    assert crossed(UnicodeDecodeError("ascii", b"x", 0, 1, "no")).start == 0


class Code(SystemExit):
    def __init__(self, message):
        super().__init__(message)
        self.code = 3


class Line(SyntaxError):
    def __init__(self, message):
        super().__init__(message)
        self.lineno = 7


class Shadowed(Exception):
    """What it calls its ``args`` are not those."""

    args = None


class Guarded(Exception):
    """Lets nothing be set before its constructor has begun."""

    def __init__(self, code):
        super().__init__(code)
        self.__dict__["allowed"] = True
        self.code = code

    def __setattr__(self, name, value):
        assert self.__dict__["allowed"]
        super().__setattr__(name, value)


def test_what_a_constructor_makes_beside_the_attributes_is_made_again():
    assert crossed(Code("m")).code == 3
    assert crossed(Line("m")).lineno == 7
    assert crossed(Guarded(5)).code == 5
    shadowed = crossed(Shadowed("m"))
    assert type(shadowed) is Shadowed
    assert str(shadowed) == "m"


def test_what_is_in_slots_is_made_again_by_the_constructor():
    assert crossed(Slotted(5)).code == 5


def test_what_is_no_exception_is_replaced_by_what_is_none_either():
    found = crossed(raised(Abort()))
    assert type(found) is RemotePanic
    assert not isinstance(found, Exception)
    assert (found.type_name, found.message) == (f"{__name__}.Abort", "enough")
    again = pickle.loads(pickle.dumps(found))
    assert (again.type_name, again.message, str(again)) == (
        f"{__name__}.Abort",
        "enough",
        str(found),
    )


def test_one_that_resents_its_attributes_crosses_all_the_same():
    found = crossed(raised(Hostile("x"), KeyError("k")))
    assert type(found) is Hostile
    assert repr(found.__cause__) == "KeyError('k')"


def test_notes_that_are_no_list_give_way():
    class Odd(Exception):
        __notes__ = 7

    error = Odd("x")
    add_note(error, "a note")
    add_note(error, "another")
    assert error.__notes__ == ["a note", "another"]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (WithLock("404: gone"), "cannot be pickled: TypeError: cannot pickle '_thread.lock'"),
        (Incurable("404: gone"), "cannot be rebuilt here: TypeError: "),
        (Impostor("404: gone"), "is unpickled as an object of str"),
    ],
)
def test_one_that_cannot_be_rebuilt_is_replaced_and_shown(bad, why):
    bad.add_note("by the way")
    found = crossed(raised(bad, KeyError("k")), "w")
    assert type(found) is RemoteError
    assert found.type_name == f"{__name__}.{type(bad).__name__}"
    assert found.message == "404: gone"
    first, reason = notes(found)
    assert first == "by the way"
    assert reason.startswith(f"It replaces a {found.type_name}, which {why}")
    assert repr(found.__cause__) == "KeyError('k')"
    assert "in raised" in remote_text(found)


def test_whatever_its_pickle_does_it_is_only_replaced():
    assert type(crossed(Exits())) is RemoteError


def test_one_that_cannot_even_say_what_it_is():
    found = crossed(Unspeakable("x"))
    assert type(found) is RemoteError
    assert found.type_name.endswith("Unspeakable")


def test_a_cause_that_cannot_be_rebuilt_harms_nobody_else():
    found = crossed(raised(ValueError("fine"), WithLock("bad")))
    assert repr(found) == "ValueError('fine')"
    assert type(found.__cause__) is RemoteError


def test_members_of_a_group_are_likewise():
    inner = raised(KeyError("k"), IndexError("i"))
    group = ExceptionGroup("two", [inner, WithLock("bad"), ExceptionGroup("in", [OSError("o")])])
    found = crossed(raised(group))
    assert type(found) is ExceptionGroup
    one, two, three = found.exceptions
    assert repr(one) == "KeyError('k')"
    assert repr(one.__cause__) == "IndexError('i')"
    assert type(two) is RemoteError
    assert repr(three.exceptions[0]) == "OSError('o')"


def test_a_group_of_a_users_own():
    found = crossed(raised(Group("g", [ValueError(1)])))
    assert type(found) is Group
    assert repr(found.exceptions) == "(ValueError(1),)"


def test_a_group_that_cannot_be_pickled_keeps_its_members():
    group = BaseExceptionGroup("g", [KeyboardInterrupt(), ValueError(1)])
    group.lock = threading.Lock()
    found = crossed(raised(group))
    assert type(found) is BaseExceptionGroup
    assert [type(one) for one in found.exceptions] == [KeyboardInterrupt, ValueError]


def test_one_exception_is_one_afterwards_too():
    cause = ValueError("the same")
    found = crossed(raised(Knows(cause), cause))
    assert found.other is found.__cause__


def test_circles_do_no_harm():
    one, two = ValueError(1), ValueError(2)
    one.__context__, two.__context__ = two, one
    assert repr(crossed(one).__context__) == "ValueError(2)"
    me = Knows()
    me.other = me
    found = crossed(me)
    assert found.other is found


def test_an_endless_chain_is_cut():
    error = None
    for number in range(5000):
        try:
            raise ValueError(number)
        except ValueError as new:
            new.__context__, error = error, new
    found = crossed(error)
    length = 0
    while found is not None:
        length, found = length + 1, found.__context__
    assert 10 < length <= remote_errors.LONGEST + 1


def test_an_error_of_too_deep_a_recursion_crosses():
    def deep():
        deep()

    try:
        deep()
    except RecursionError as error:
        found = crossed(error)
    assert type(found) is RecursionError
    assert "previous line repeated" in remote_text(found).lower()


def test_panics_cross_as_panics():
    assert crossed(raised(SystemExit(3))).code == 3
    assert type(crossed(raised(KeyboardInterrupt()))) is KeyboardInterrupt


def test_what_crosses_twice_shows_both_processes():
    found = crossed(raised(crossed(raised(ValueError("x")), "inner")), "outer")
    text = "\n".join(found.__notes__)
    assert "in the process inner" in text
    assert "in the process outer" in text


def test_it_can_be_pickled_again_and_logged():
    found = crossed(raised(ValueError("x")), "w")
    again = pickle.loads(pickle.dumps(found))
    assert "in the process w" in again.__notes__[0]


def test_the_main_module_of_a_child_is_called_what_it_is_called_here(monkeypatch):
    monkeypatch.setattr(WithLock, "__module__", "__mp_main__")
    assert crossed(WithLock("x")).type_name == "__main__.WithLock"


def test_packing_cannot_fail(monkeypatch):
    def fail(*args):
        raise MemoryError

    monkeypatch.setattr(remote_errors, "_links", fail)
    found = crossed(ValueError("x"))
    assert type(found) is RemoteError
    assert found.type_name == "ValueError"


def test_a_class_that_nobody_can_import_crosses():
    pytest.importorskip("cloudpickle")

    class Local(Exception):
        pass

    found = crossed(raised(Local("x")))
    assert type(found).__name__ == "Local"
    assert str(found) == "x"


def test_an_attribute_that_is_an_exception_of_no_chain_crosses():
    found = crossed(Knows(ValueError("apart")))
    assert repr(found.other) == "ValueError('apart')"


def test_keyword_constructors_of_this_library_cross():
    found = crossed(RateLimited("it", limiter="api", retry_after=1.5))
    assert (found.limiter, found.retry_after) == ("api", 1.5)


def test_it_does_not_keep_what_it_was_made_from():
    import gc
    import weakref

    class Big:
        pass

    def fail():
        big = Big()
        refs.append(weakref.ref(big))
        raise ValueError("x")

    refs = []
    gc.disable()
    try:
        try:
            fail()
        except ValueError as error:
            packed = pack_error(error)
        assert refs[0]() is None
    finally:
        gc.enable()
    contextvars.Context().run(unpack_error, packed)
