"""Open files, pipes and sockets in arguments, results, exceptions and variables of tasks."""

from __future__ import annotations

import contextlib
import contextvars
import copyreg
import ctypes
import gc
import logging
import multiprocessing
import os
import pickle
import resource
import socket
import warnings
from collections.abc import Iterator
from multiprocessing import forkserver, reduction, resource_sharer, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest

from ion_actors import Context, Pool, TaskNotPicklable, TaskPanicked
from ion_actors.backends.process.transport import pickling
from ion_actors.backends.process.transport.context_vars import pack_variables, unpack_variables
from ion_actors.backends.process.transport.descriptors import Descriptor, Rights
from ion_actors.backends.process.transport.pickling import pack, pickle_value, unpack
from ion_actors.backends.process.transport.reducers import reducers, starting_a_child
from ion_actors.backends.process.transport.remote_errors import pack_error, unpack_error
from ion_actors.backends.process.transport.shared_buffers import SharedBuffers
from tests.backends.process import errands
from tests.workerpool.helpers import eventually

PATIENCE = 30.0

Pipe = tuple[Connection, Connection]
Ends = tuple[SharedBuffers, SharedBuffers]


def open_here() -> dict[str, str]:
    gc.collect()
    found = {}
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # that of the list itself
            found[one.name] = str(one.readlink())
    return found


@pytest.fixture(autouse=True)
def nothing_stays_open(pool: Pool) -> Iterator[None]:
    assert not pool.is_closed  # it is there first: what serves all children is opened by it
    resource_tracker.ensure_running()
    forkserver.ensure_running()
    before = open_here()
    yield

    def new() -> list[str]:
        found = set(open_here().values()) - set(before.values())
        return [one for one in found if "/pym-" not in one]  # the shared values' own memory

    # Eventually: threads that have just ended the pool close what they had.
    eventually(lambda: not new())


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(1, backend="process") as made:
        made.submit(pow, 2, 2).result(PATIENCE)
        yield made


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    reader, writer = multiprocessing.Pipe(duplex=False)
    with reader, writer:
        yield reader, writer


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = map(Rights, socket.socketpair())
    here, there = SharedBuffers(rights=ours), SharedBuffers(rights=theirs)
    yield here, there
    here.close()
    there.close()


def crossed(ends: Ends, value: Any) -> Any:
    return unpack(*ends[1].open(ends[0].seal(pack(value))))


def is_the_other_end(end: Connection, pipe: Pipe) -> bool:
    end.send_bytes(b"hello")
    return pipe[0].poll(PATIENCE) and pipe[0].recv_bytes() == b"hello"


# -- into a child, and out of it ---------------------------------------------------------------


def test_a_pipe_as_an_argument(pool: Pool, pipe: Pipe) -> None:
    reader, writer = pipe
    pool.submit(errands.say_into, writer).result(PATIENCE)
    assert reader.recv_bytes() == b"hello"
    assert is_the_other_end(writer, pipe)  # it is still open here


def test_its_number_there_is_not_somebody_elses(pool: Pool, pipe: Pipe, tmp_path: Path) -> None:
    number = 200
    os.dup2(pipe[1].fileno(), number)
    pool.submit(errands.take_number, tmp_path / "file", number).result(PATIENCE)
    with Connection(number, readable=False) as writer:
        assert pool.submit(errands.say_into, writer).result(PATIENCE) != number
    assert pipe[0].recv_bytes() == b"hello"
    assert pool.submit(errands.number_is_of, number, tmp_path / "file").result(PATIENCE)
    assert (tmp_path / "file").read_bytes() == b""
    pool.submit(os.close, number).result(PATIENCE)


def test_pipes_deep_in_a_call(pool: Pool, pipe: Pipe) -> None:
    reader, writer = pipe
    pool.submit(errands.say_into_all, {"pipes": [writer, writer]}).result(PATIENCE)
    assert (reader.recv_bytes(), reader.recv_bytes()) == (b"hello", b"hello")
    pool.submit(lambda: writer.send_bytes(b"closure")).result(PATIENCE)
    assert reader.recv_bytes() == b"closure"
    pool.submit(pipe[1].send_bytes, b"method").result(PATIENCE)
    assert reader.recv_bytes() == b"method"


def test_a_socket_as_an_argument(pool: Pool) -> None:
    here, there = socket.socketpair()
    with here, there:
        there.settimeout(7.5)
        here.send(b"hello")
        assert pool.submit(errands.hear_from, there).result(PATIENCE) == (b"hello", 7.5)
        here.send(b"again")
        assert there.recv(100) == b"again"


def test_a_pipe_and_a_socket_as_results(pool: Pool) -> None:
    reader, writer = pool.submit(errands.give_pipe).result(PATIENCE)
    with reader, writer:
        assert reader.recv_bytes() == b"from the child"
    with pool.submit(errands.give_socket).result(PATIENCE) as found:
        assert found.recv(100) == b"from the child"
        assert not os.get_inheritable(found.fileno())


def test_no_descriptor_stays_open_in_a_child(pool: Pool, pipe: Pipe) -> None:
    before = pool.submit(errands.open_descriptors).result(PATIENCE)
    for _ in range(5):
        pool.submit(errands.say_into, pipe[1]).result(PATIENCE)
        pool.submit(errands.give_socket).result(PATIENCE).close()
        with contextlib.suppress(errands.PipeError):
            pool.submit(errands.fail_with_pipe).result(PATIENCE)
    assert pool.submit(errands.open_descriptors).result(PATIENCE) == before


def test_the_end_of_a_pipe_is_seen_when_its_last_holder_lets_go(pool: Pool) -> None:
    reader, writer = multiprocessing.Pipe(duplex=False)
    with reader:
        pool.submit(errands.say_into, writer).result(PATIENCE)
        writer.close()
        assert reader.recv_bytes() == b"hello"
        with pytest.raises(EOFError):
            reader.poll(PATIENCE) and reader.recv_bytes()


def test_an_exception_brings_a_pipe(pool: Pool) -> None:
    error = pool.submit(errands.fail_with_pipe).exception(PATIENCE)
    assert isinstance(error, errands.PipeError)
    with error.pipe:
        assert error.pipe.recv_bytes() == b"from the child"


def test_a_context_variable_brings_a_pipe(pool: Pool, pipe: Pipe) -> None:
    token = errands.handed_over.set(pipe[1])
    try:
        pool.submit(errands.say_into_variable).result(PATIENCE)
    finally:
        errands.handed_over.reset(token)
    assert pipe[0].recv_bytes() == b"hello"


def test_news_bring_no_pipe(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with caplog.at_level(logging.WARNING):
            pool.submit(errands.log_pipe, "tests.pipe").result(PATIENCE)
    (record,) = [one for one in caplog.records if one.name == "tests.pipe"]
    assert "Connection object at" in record.pipe  # type: ignore[attr-defined]  # in words
    (warning,) = [one for one in caught if "Connection object at" in str(one.message)]
    assert warning.category is errands.PipeWarning


def test_a_task_that_never_runs_leaves_no_descriptor(pipe: Pipe, tmp_path: Path) -> None:
    mark, go = tmp_path / "mark", tmp_path / "go"
    with Pool(1, backend="process") as made:
        first = made.submit(errands.await_go, mark, go)
        with Context() as context:
            late = made.submit(errands.say_into, pipe[1])
        eventually(mark.exists)
        context.cancel()
        assert late.cancelled()
        go.touch()
        assert first.result(PATIENCE) == "went"


def test_a_child_that_dies_of_a_task_leaves_no_descriptor(pipe: Pipe) -> None:
    with Pool(1, backend="process") as made:
        for _ in range(3):
            error = made.submit(errands.leave_with, pipe[1]).exception(PATIENCE)
            assert isinstance(error, TaskPanicked)
        made.submit(errands.say_into, pipe[1]).result(PATIENCE)
    assert pipe[0].recv_bytes() == b"hello"


def test_a_closed_pipe_is_an_error_that_names_it(pool: Pool) -> None:
    reader, writer = multiprocessing.Pipe()
    reader.close()
    writer.close()
    with pytest.raises(TaskNotPicklable, match=r"argument 1 of task 'echo'.*handle is closed"):
        pool.submit(errands.echo, reader).result(PATIENCE)


def test_a_result_that_finds_no_room_for_its_descriptors(pool: Pool) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    here, there = socket.socketpair()
    with here, there:
        highest = max(map(int, open_here()))
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(highest, there.fileno() + 1), limits[1]))
        try:
            fill = []
            with contextlib.suppress(OSError):
                while True:
                    fill.append(os.dup(here.fileno()))
            error = pool.submit(errands.give_pipe).exception(PATIENCE)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for one in fill:
                os.close(one)
    assert isinstance(error, TaskNotPicklable)
    assert "no more open files" in str(error)
    assert pool.submit(pow, 2, 3).result(PATIENCE) == 8


# -- what is registered ------------------------------------------------------------------------


@pytest.fixture
def registered() -> Iterator[None]:
    def reduce(found: errands.Registered) -> Any:
        return errands.rebuild_registered, (reduction.DupFd(found.number),)  # type: ignore[attr-defined]

    ForkingPickler.register(errands.Registered, reduce)
    yield
    del ForkingPickler._extra_reducers[errands.Registered]  # type: ignore[attr-defined]
    resource_sharer.stop(PATIENCE)  # it has lent a thread, and nothing must be left in there


@pytest.mark.usefixtures("registered")
def test_what_a_user_has_registered_with_multiprocessing(pool: Pool) -> None:
    reader, writer = os.pipe()
    try:
        os.write(writer, b"hello")
        os.close(writer)
        future = pool.submit(errands.registered_number, errands.Registered(reader))
        assert future.result(PATIENCE) == (errands.Registered, b"hello")
    finally:
        os.close(reader)


@pytest.mark.usefixtures("registered")
def test_what_is_registered_also_beside_what_only_cloudpickle_can(pool: Pool) -> None:
    reader, writer = os.pipe()
    try:
        os.write(writer, b"hello")
        os.close(writer)
        found = errands.Registered(reader)
        future = pool.submit(lambda: errands.registered_number(found))
        assert future.result(PATIENCE) == (errands.Registered, b"hello")
    finally:
        os.close(reader)


class Plain:
    def __init__(self, value: int) -> None:
        self.value = value


class Failure(Exception):
    pass


def made_again(kind: type, *args: Any) -> Any:
    found = kind(*args)
    found.told = "by its reducer"
    return found


@pytest.mark.parametrize("kind", [Plain, Failure])
@pytest.mark.parametrize("registry", ["multiprocessing", "copyreg", "both"])
def test_registries_are_asked_as_they_are_now(kind: type, registry: str) -> None:
    def reduce(found: Any) -> Any:
        return made_again, (type(found), 7)

    def never(found: Any) -> Any:
        raise AssertionError

    def tell(found: Any) -> str | None:
        return getattr(found, "told", None)

    def across(found: Any) -> Any:
        return unpack_error(pack_error(found)) if kind is Failure else unpack(*pack(found))

    assert tell(across(kind(1))) is None
    if registry != "copyreg":
        ForkingPickler.register(kind, reduce)
    if registry != "multiprocessing":
        copyreg.pickle(kind, reduce if registry == "copyreg" else never)
    try:
        assert tell(across(kind(1))) == "by its reducer"
        if kind is Plain:
            assert tell(unpack(*pack([lambda: 1, kind(1)]))[1]) == "by its reducer"
            assert tell(pickle.loads(pickle_value(kind(1)))) == "by its reducer"
    finally:
        ForkingPickler._extra_reducers.pop(kind, None)  # type: ignore[attr-defined]
        copyreg.dispatch_table.pop(kind, None)
    assert tell(across(kind(1))) is None


def test_who_registers_nothing_pays_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickling, "CarefulPickler", None)  # would fail if it was asked
    assert reducers.plain_is_enough()
    assert unpack(*pack([Plain, errands.echo, 1])) == [Plain, errands.echo, 1]


def test_a_class_derived_from_a_pipes(ends: Ends, pipe: Pipe) -> None:
    own = errands.NamedPipe(os.dup(pipe[1].fileno()), readable=False)
    own.label = "mine"  # type: ignore[attr-defined]
    with own:
        for value in (own, [lambda: own]):
            found = crossed(ends, value)
            found = found[0]() if isinstance(found, list) else found
            assert type(found) is errands.NamedPipe
            with found:
                assert found.label == "mine"  # type: ignore[attr-defined]
                assert found.fileno() != own.fileno()
                assert is_the_other_end(found, pipe)


def test_values_of_c_types_are_values_unless_they_are_shared() -> None:
    shared: Any = multiprocessing.get_context("spawn").RawValue(ctypes.c_int, 3)
    assert unpack(*pack(ctypes.c_int(5))).value == 5  # its type is registered now
    with pytest.raises(RuntimeError, match="through inheritance"):
        pack(shared)
    with starting_a_child():
        found = unpack(*pack(shared))
    found.value = 4
    assert shared.value == 4


# -- one message after the other ---------------------------------------------------------------


def test_descriptors_of_messages_that_were_never_opened_are_closed(ends: Ends, pipe: Pipe) -> None:
    ends[0].seal(pack(pipe[1]))
    ends[0].seal(pack([pipe[1], pipe[0]]))
    with crossed(ends, pipe[1]) as found:
        assert is_the_other_end(found, pipe)
    ends[0].seal(pack(pipe[1]))  # is in the socket when that is closed


def test_more_descriptors_than_go_at_once(ends: Ends) -> None:
    reader, writer = os.pipe()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2000:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4000), hard))
    try:
        found = crossed(ends, [Descriptor.copy_of(reader) for _ in range(600)])
        assert len({one.fd for one in found}) == 600
        assert all(os.path.sameopenfile(one.fd, reader) for one in found)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(reader)
        os.close(writer)


def test_a_descriptor_is_taken_once(pipe: Pipe) -> None:
    one = Descriptor.copy_of(pipe[1].fileno())
    os.close(one.detach())
    with pytest.raises(OSError, match="taken before"):
        one.detach()
    one.close()


def test_bytes_are_no_descriptor() -> None:
    with pytest.raises(pickle.PicklingError, match="descriptor"):
        pickle_value(multiprocessing.Pipe()[0])


def test_buffers_and_descriptors_together(ends: Ends, pipe: Pipe) -> None:
    large = pickle.PickleBuffer(bytearray(300_000))
    small = pickle.PickleBuffer(bytearray(b"small"))
    first, end, second, bytes_ = crossed(ends, [large, pipe[1], small, b"x" * 200_000])
    with end:
        assert (len(first), bytes(second), len(bytes_)) == (300_000, b"small", 200_000)
        assert is_the_other_end(end, pipe)


def test_variables_without_descriptors_are_bytes(pipe: Pipe) -> None:
    context = contextvars.Context()
    context.run(errands.handed_over.set, 1)
    assert isinstance(pack_variables(context), bytes)
    context.run(errands.handed_over.set, pipe[1])
    packed = pack_variables(context)
    assert not isinstance(packed, bytes)
    with unpack_variables(unpack(*pack(packed)))[errands.handed_over] as found:
        assert is_the_other_end(found, pipe)
