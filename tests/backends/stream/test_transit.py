"""What may be on its way: any order of the two sides' steps, compared with a plain list."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ion_actors.backends.stream.transit import NOTHING, Credit, Transit

STEPS = st.lists(
    st.sampled_from(["put", "put", "put", "take", "take", "end", "leave"]), max_size=60
)


@given(st.integers(1, 6), STEPS)
def test_items_come_out_in_order_and_no_more_are_ahead_than_there_is_room(
    size: int, steps: list[str]
) -> None:
    transit, made, read = Transit(size), 0, list[int]()
    for step in steps:
        if step == "put":
            if transit.room:
                transit.add(made)
                made += 1
        elif step == "take":
            if (item := transit.take()) is not NOTHING:
                read.append(item)
        elif step == "end":
            transit.end()
        else:
            transit.leave()
        assert read == list(range(len(read)))
        assert transit.taken == len(read)
        assert made - len(read) <= size
        assert transit.room == (not transit.closed and made - len(read) < size)
        assert transit.over == (transit.closed and transit.put == len(read))
        assert transit.ready == (transit.put > len(read) or transit.closed)


@given(st.integers(1, 6), st.integers(0, 6), st.booleans())
def test_nothing_is_put_after_the_end_and_what_was_dropped_is_returned(
    size: int, before: int, left: bool
) -> None:
    transit = Transit(size)
    for item in range(before):
        transit.add(item)
    dropped = list(transit.leave()) if left else transit.end()
    transit.add("too late")
    assert dropped == (list(range(before)) if left else None)
    assert [transit.take() for _ in range(before + 1)] == [
        *([] if left else range(before)),
        *[NOTHING] * (before + 1 if left else 1),
    ]
    assert transit.over


@given(st.integers(1, 9), st.lists(st.booleans(), max_size=80))
def test_a_generator_elsewhere_is_bounded_and_never_starves(size: int, steps: list[bool]) -> None:
    """Both sides do what they may, in any order; grants arrive at once, and now and then twice."""
    transit, credit, told = Transit(size), Credit(size), 0
    transit.begin_elsewhere()

    def tell() -> None:
        nonlocal told
        if (due := transit.due()) is not None:
            credit.grant(due)
            credit.grant(due - 1)  # one that was overtaken
            transit.granted = due
            told += 1

    for makes in steps:
        if makes and credit.room:
            credit.put += 1
            transit.add(credit.put)
        elif not makes:
            transit.take()
        tell()
        assert credit.put - transit.taken <= size
        assert transit.granted == credit.granted
        if transit.taken == transit.put:  # who reads waits for the generator, which may go on
            assert credit.room
    assert told <= transit.taken


def test_grants_are_gathered_as_long_as_the_generator_need_not_wait() -> None:
    transit = Transit(16)
    transit.begin_elsewhere()
    told = []
    for _ in range(64):
        transit.add(None)
        transit.take()
        if (due := transit.due()) is not None:
            told.append(due)
            transit.granted = due
    assert told == [24, 32, 40, 48, 56, 64, 72, 80]
