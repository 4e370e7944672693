"""Large buffers between two ends, which here are in one process."""

from __future__ import annotations

import errno
import gc
import mmap
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ion_actors.backends.process.transport import shared_buffers
from ion_actors.backends.process.transport.anonymous_file import AnonymousFile
from ion_actors.backends.process.transport.pickling import LARGE, pack, unpack
from ion_actors.backends.process.transport.shared_buffers import Receiver, Sender, SharedBuffers

DESCRIPTORS = Path("/proc/self/fd")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Ends:
    """A parent's end and its child's."""

    def __init__(self) -> None:
        there, back = AnonymousFile(), AnonymousFile()
        self.parent = SharedBuffers(there, back, private=True)
        self.child = SharedBuffers(back, there)
        self.files = there, back

    def send(self, obj):
        return unpack(*self.child.open(self.parent.seal(pack(obj))))

    def reply(self, obj=None):
        return unpack(*self.parent.open(self.child.seal(pack(obj))))

    def sizes(self):
        return [os.fstat(one.fd).st_size for one in self.files]

    def close(self):
        self.parent.close()
        self.child.close()


@pytest.fixture
def ends():
    made = Ends()
    yield made
    made.close()


def buffer(fill=b"x", size=LARGE):
    return pickle.PickleBuffer(bytearray(fill * size))


def test_a_small_message_is_its_pickle_and_nothing_else(ends):
    packed = pack((pow, (1, 2)))
    assert ends.parent.seal(packed) is packed[0]


@pytest.mark.parametrize("files", [True, False])
def test_whatever_is_sent_arrives(ends, files):
    if not files:
        ends.parent, ends.child = SharedBuffers(), SharedBuffers()
    text = "é" * LARGE
    found = ends.send((buffer(b"a"), text, buffer(b"b", 3 * LARGE + 1), buffer(b"c", 5)))
    assert found[1] == text
    assert bytes(found[0]) == b"a" * LARGE
    assert bytes(found[2]) == b"b" * (3 * LARGE + 1)
    assert bytes(found[3]) == b"ccccc"
    found[0][0] = found[3][0] = 0  # as in what was sent
    del found
    assert ends.reply(text) == text


def test_the_message_of_a_large_buffer_is_small(ends):
    assert len(ends.parent.seal(pack(buffer(size=10 * LARGE)))) < 100


def test_what_arrives_may_be_changed_and_what_was_read_only_may_not(ends):
    there = bytearray(LARGE)
    mine, fixed = ends.send((pickle.PickleBuffer(there), pickle.PickleBuffer(bytes(LARGE))))
    mine[0] = 1
    assert there[0] == 0
    with pytest.raises(TypeError):
        fixed[0] = 1


def test_a_place_is_used_again_once_the_last_view_of_it_is_gone(ends):
    found = ends.send(buffer())
    ends.reply()
    size = ends.sizes()[0]
    view = found[10:20]
    del found
    ends.reply()
    again = ends.send(buffer(b"y"))
    assert bytes(view) == b"x" * 10  # still there
    assert ends.sizes()[0] == 2 * size
    del view
    ends.reply()
    third = ends.send(buffer(b"z"))
    assert ends.sizes()[0] == 2 * size
    assert (again[0], third[0]) == (ord("y"), ord("z"))


def test_results_are_given_back_too(ends):
    found = ends.reply(buffer())
    size = ends.sizes()[1]
    del found
    ends.send(None)
    ends.reply(buffer())
    assert ends.sizes()[1] == size


def test_what_outlives_the_file_stays(ends):
    found = ends.reply(buffer())
    ends.close()
    assert bytes(found) == b"x" * LARGE


def test_many_views_do_not_cost_a_descriptor_each(ends, monkeypatch):
    mapped = len(shared_buffers.mappings)
    monkeypatch.setattr(shared_buffers, "most_mapped", lambda: mapped + 3)
    before = len(list(DESCRIPTORS.iterdir()))
    found = [ends.reply(buffer(bytes([65 + i]))) for i in range(10)]
    assert len(list(DESCRIPTORS.iterdir())) <= before + 3
    assert [one[0] for one in found] == list(range(65, 75))
    found[-1][0] = 7  # a copy may be changed, too
    ends.send(None)
    assert len(ends.child.out.free_places) == 1  # of those that were copied
    size = ends.sizes()[1]
    ends.reply(buffer())
    assert ends.sizes()[1] == size


def test_all_receivers_share_the_descriptors(monkeypatch):
    mapped = len(shared_buffers.mappings)
    monkeypatch.setattr(shared_buffers, "most_mapped", lambda: mapped + 3)
    before, found = len(list(DESCRIPTORS.iterdir())), []
    for _ in range(10):  # as with children that end after their first task
        file = AnonymousFile()
        sender, receiver = SharedBuffers(file), SharedBuffers(None, file)
        found += unpack(*receiver.open(sender.seal(pack([buffer()]))))
        sender.close()
        receiver.close()
    assert len(list(DESCRIPTORS.iterdir())) == before + 3
    assert len(shared_buffers.mappings) == mapped + 3
    del found
    assert len(shared_buffers.mappings) == mapped
    assert len(list(DESCRIPTORS.iterdir())) == before


def test_a_quarter_of_the_descriptors_is_for_arrays(monkeypatch):
    import resource

    limit, maps = resource.RLIM_INFINITY, None
    monkeypatch.setattr(shared_buffers, "map_count", lambda: maps)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert shared_buffers.most_mapped() == 256
    limit = 1024
    assert shared_buffers.most_mapped() == 256
    limit = 100
    assert shared_buffers.most_mapped() == 25
    maps = 40  # so is a quarter of the mappings
    assert shared_buffers.most_mapped() == 10
    limit = resource.RLIM_INFINITY
    assert shared_buffers.most_mapped() == 10


def test_what_the_kernel_says_of_mappings(monkeypatch, tmp_path):
    said = tmp_path / "max_map_count"
    said.write_text("65530\n")
    for path, found in ((said, 65530), (tmp_path / "nothing", None)):
        monkeypatch.setattr(shared_buffers, "_MAP_COUNT", path)
        assert shared_buffers.map_count.__wrapped__() == found


def test_without_a_descriptor_it_is_copied(ends, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(shared_buffers.mmap, "mmap", refuse)
    assert ends.reply(buffer()) == bytearray(b"x" * LARGE)


def test_without_memory_it_goes_through_the_pipe(ends, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(shared_buffers.os, "pwrite", full)
    assert bytes(ends.send(buffer())) == b"x" * LARGE
    assert ends.parent.out.used == {}


def test_a_file_that_is_cut_short_is_an_error_and_not_a_signal(monkeypatch):
    file = AnonymousFile()
    receiver = Receiver(file, private=True)
    monkeypatch.setattr(shared_buffers, "most_mapped", lambda: 0)
    with pytest.raises(EOFError):
        receiver.fetch((0, LARGE))
    file.close()


def test_free_memory_beyond_what_is_kept_goes_back_to_the_system(ends, monkeypatch):
    monkeypatch.setattr(shared_buffers, "_KEPT", 2 * LARGE)
    found = ends.send([buffer() for _ in range(8)])
    assert ends.sizes()[0] == 8 * LARGE
    del found
    ends.reply()
    assert ends.sizes()[0] == 2 * LARGE
    assert bytes(ends.send(buffer(b"q", 4 * LARGE))) == b"q" * 4 * LARGE


@pytest.mark.skipif(not hasattr(mmap, "MADV_REMOVE"), reason="files can have no holes here")
def test_so_does_what_lies_before_something_that_is_kept(ends, monkeypatch):
    monkeypatch.setattr(shared_buffers, "_KEPT", 2 * LARGE)
    found = ends.send([buffer(), buffer(size=10 * LARGE), buffer(b"k"), buffer(size=4 * LARGE)])
    kept = found[2]
    del found
    ends.reply()
    assert os.fstat(ends.files[0].fd).st_blocks * 512 == 3 * LARGE
    assert bytes(kept) == b"k" * LARGE
    # The holes are used again before the file grows, and what they touch is not changed.
    end = ends.sizes()[0]
    again = ends.send([buffer(b"a", 2 * LARGE), buffer(b"b", 3 * LARGE), buffer(b"c", 5 * LARGE)])
    assert ends.sizes()[0] == end
    assert [bytes(one) for one in again] == [
        b"a" * 2 * LARGE,
        b"b" * 3 * LARGE,
        b"c" * 5 * LARGE,
    ]
    assert bytes(kept) == b"k" * LARGE
    del again, kept
    ends.reply()
    assert os.fstat(ends.files[0].fd).st_blocks * 512 == 2 * LARGE
    assert ends.sizes()[0] == 2 * LARGE  # so there is no hole in it


def test_where_a_file_can_have_no_holes_free_memory_is_used_again(ends, monkeypatch):
    monkeypatch.setattr(shared_buffers, "_KEPT", LARGE)
    monkeypatch.setattr(shared_buffers, "_punch", lambda *_: False)
    kept = ends.send([buffer(size=4 * LARGE), buffer()])[1]
    ends.reply()
    end = ends.sizes()[0]
    assert bytes(ends.send(buffer(b"n", 4 * LARGE))) == b"n" * 4 * LARGE
    assert ends.sizes()[0] == end
    assert len(kept) == LARGE


def test_what_a_fork_sees_too_is_never_written_again(ends):
    found = ends.reply(buffer())
    child = os.fork()
    if child == 0:  # pragma: no cover - in another process
        found[0] = 0  # a page of its own
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert found[0] == ord("x")
    size = ends.sizes()[1]
    del found
    ends.send(None)
    ends.reply(buffer())
    assert ends.sizes()[1] == 2 * size


def test_views_in_a_cycle_are_given_back_when_it_is_collected(ends):
    cycle = [ends.reply(buffer())]
    cycle.append(cycle)
    del cycle
    gc.collect()
    ends.send(None)
    assert ends.child.out.used == {}


def test_numpys_arrays_keep_their_shape_order_and_type(ends):
    np = pytest.importorskip("numpy")
    sent = [
        np.arange(100_000.0),
        np.asfortranarray(np.arange(250_000).reshape(500, 500)),
        np.arange(300_000)[::3],
        np.zeros(100_000, dtype=[("a", "i4"), ("b", "f8")]),
    ]
    found = ends.send(sent)
    for one, other in zip(sent, found, strict=True):
        assert (one == other).all()
        assert one.dtype == other.dtype
        other.fill(0)
    assert found[1].flags.f_contiguous
    assert sent[0][5] == 5
    del one, other, found
    ends.reply()
    assert ends.parent.out.used == {}


@given(st.lists(st.one_of(st.integers(1, 5 * PAGE), st.integers(-8, -1)), max_size=60))
def test_no_two_places_overlap_and_none_is_lost(steps):
    """A number > 0 takes that many bytes, one < 0 gives back one of those that are taken."""
    file = AnonymousFile()
    sender = Sender(file)
    taken = []
    for step in steps:
        if step > 0:
            place = sender.put(memoryview(bytes(step)))
            taken.append(place)
        elif taken:
            place = taken.pop(step % len(taken))
            sender.free([place])
            sender.free([place])  # once is enough
        every = sorted(
            [(offset, -(-size // PAGE) * PAGE) for offset, size in taken] + sender.free_places
        )
        at = 0
        for offset, size in every:
            assert offset == at
            at += size
        assert at == -(-os.fstat(file.fd).st_size // PAGE) * PAGE
    file.close()
