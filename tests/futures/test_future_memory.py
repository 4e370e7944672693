"""What a future holds on to, and who is told of an exception that nobody read."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import sys
import threading
import tracemalloc
import weakref

import pykka
import pytest

from ion_actors import Future

pytestmark = pytest.mark.usefixtures("without_gc")

needs_refcounts = pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(),
    reason="without the GIL, reference counts are settled later",
)


class Thing:
    pass


def fail(*_):
    raise ValueError("nobody reads me")


def an_error():
    """With a traceback, as a task's has, and none of this thread's frames in it."""

    def work():
        try:
            fail()
        except ValueError as error:
            found.append(error)

    found = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return found.pop()


def failed():
    future = Future()
    future.set_exception(an_error())
    return future


# The frames of the readers are in the traceback, so they must not hold the future: it is in a box,
# and they take it out.


def read_result(box):
    box.pop().result()


def read_get(box):
    box.pop().get()


def read_exception(box):
    box.pop().exception()


def read_await(box):
    async def main():
        await box.pop()

    asyncio.run(main())


def read_wrapped(box):
    async def main():
        await asyncio.wrap_future(box.pop())

    asyncio.run(main())


def read_get_all(box):
    pykka.get_all([box.pop()])


def read(reader, future):
    box = [future]
    del future
    with contextlib.suppress(ValueError):
        reader(box)


every_reader = pytest.mark.parametrize(
    "reader", [read_result, read_get, read_exception, read_await, read_wrapped, read_get_all]
)


def test_an_exception_that_nobody_read_is_logged_when_the_future_goes(caplog):
    future = failed()
    assert caplog.text == ""
    del future
    gc.collect()
    [record] = caplog.records
    assert (record.name, record.levelno) == ("ion_actors", logging.ERROR)
    assert record.getMessage() == "the exception of a Future was never read"
    assert str(record.exc_info[1]) == "nobody reads me"


@every_reader
def test_an_exception_that_was_read_is_not_logged(reader, caplog):
    read(reader, failed())
    gc.collect()
    assert caplog.text == ""


def test_an_exception_that_passed_to_a_derived_future_is_logged_once_for_that(caplog):
    future = failed()
    derived = future.map(len)
    del future, derived
    gc.collect()
    assert [record.getMessage() for record in caplog.records] == [
        "the exception of a Future was never read"
    ]


def test_values_and_cancellations_are_not_logged(caplog):
    done, cancelled = Future(), Future()
    done.set(1)
    cancelled.cancel()
    del done, cancelled
    gc.collect()
    assert caplog.text == ""


@needs_refcounts
@pytest.mark.parametrize("reader", [read_result, read_get, read_exception])
def test_a_future_with_an_exception_is_freed_without_the_collector(reader):
    future = failed()
    gone = weakref.ref(future)
    box = [future]
    del future
    with contextlib.suppress(ValueError):
        reader(box)
    assert gone() is None


@needs_refcounts
def test_an_exception_that_holds_its_frames_does_not_hold_the_future():
    box = [failed()]
    gone = weakref.ref(box[0])
    try:
        read_result(box)
    except ValueError as error:
        kept = error
    assert gone() is None
    assert kept.__traceback__ is not None


@needs_refcounts
@pytest.mark.parametrize(
    "derive",
    [
        lambda future: future.map(fail),
        lambda future: future.filter(fail),
        lambda future: future.reduce(fail),
        lambda future: future.join(failed()),
        lambda future: failed().map(len).join(future),
    ],
)
def test_derived_futures_with_an_exception_are_freed_without_the_collector(derive):
    source = Future()
    derived = derive(source)
    source.set([1, 2])
    gone = [weakref.ref(source), weakref.ref(derived)]
    box = [derived]
    del source, derived
    with contextlib.suppress(ValueError):
        read_result(box)
    assert [one() for one in gone] == [None, None]


@needs_refcounts
def test_a_future_with_a_hook_that_fails_is_freed_without_the_collector():
    future = Future()
    future.set_get_hook(fail)
    mapped = future.map(len)
    gone = [weakref.ref(future), weakref.ref(mapped)]
    box = [mapped, future]
    del future, mapped
    for _ in range(2):
        with contextlib.suppress(ValueError):
            read_get(box)
    assert [one() for one in gone] == [None, None]


@needs_refcounts
def test_a_settled_future_keeps_no_callback():
    thing, future = Thing(), Future()
    gone = weakref.ref(thing)
    future.add_done_callback(lambda _, thing=thing: None)
    del thing
    future.set(1)
    assert gone() is None


@needs_refcounts
def test_a_derived_future_keeps_nothing_of_its_source_once_it_is_done():
    source, thing = Future(), Thing()
    gone = [weakref.ref(source), weakref.ref(thing)]
    derived = source.map(lambda value, thing=thing: value)
    source.set(1)
    del source, thing
    assert [one() for one in gone] == [None, None]
    assert derived.get() == 1


@needs_refcounts
def test_a_pending_future_that_is_dropped_is_freed():
    future = Future()
    derived = future.map(len)
    gone = [weakref.ref(future), weakref.ref(derived)]
    del future, derived
    assert [one() for one in gone] == [None, None]


def test_a_future_is_small():
    tracemalloc.start()
    try:
        kept = [Future() for _ in range(1000)]
        for future in kept:
            future.set(1)
            assert future.result() == 1
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 800 * len(kept)  # conditions, which nobody needs here, would be a kilobyte more
