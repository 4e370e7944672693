"""Which exceptions in a callback come from outside: by real signals, and by tracing tools."""

import asyncio
import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from ion_actors.interruption import is_interruption

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs POSIX signals")


class SoftLimit(Exception):
    """What a time limit raises."""


def caught(call: Callable[[], object]) -> BaseException:
    """What a call raises."""
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("it raised nothing")


@pytest.fixture
def installed() -> Iterator[Callable[[Any], None]]:
    """Installs a handler of a signal."""
    before = signal.getsignal(signal.SIGUSR1)
    yield lambda handler: signal.signal(signal.SIGUSR1, handler) and None
    signal.signal(signal.SIGUSR1, before)


def hit() -> None:
    """Be interrupted by the handler."""
    signal.raise_signal(signal.SIGUSR1)
    sum(range(3))


def raiser(error: type[BaseException]) -> Callable[..., None]:
    """A function of anything that raises that."""

    def raises(*args: object) -> None:
        raise error

    return raises


@pytest.mark.parametrize("error", [KeyboardInterrupt, SoftLimit, TimeoutError, SystemExit])
def test_what_a_signal_handler_raises_is_one(
    installed: Callable[[Any], None], error: type[BaseException]
) -> None:
    helper = raiser(error)
    handlers: list[Callable[..., None]] = [
        helper,
        lambda signum, frame: helper(),
        functools.partial(helper),
        functools.partial(lambda one, signum, frame: helper(), 1),
    ]
    for handler in handlers:
        installed(handler)
        assert is_interruption(caught(hit))


def test_pythons_own_handler_is_one_although_it_has_no_frame(
    installed: Callable[[Any], None],
) -> None:
    installed(signal.default_int_handler)
    assert is_interruption(caught(hit))


def test_a_handler_that_puts_itself_away_first_is_one(installed: Callable[[Any], None]) -> None:
    def once(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        raise SoftLimit

    installed(once)
    assert is_interruption(caught(hit))


def test_ctrl_c_in_a_coroutine_is_one() -> None:
    async def main() -> None:
        signal.raise_signal(signal.SIGINT)
        sum(range(3))

    assert is_interruption(caught(lambda: asyncio.run(main())))


def test_what_a_tracing_tool_raises_is_one() -> None:
    def profiler(frame: FrameType, event: str, arg: object) -> None:
        if event == "call" and frame.f_code.co_name == "traced":
            sys.setprofile(None)
            raise KeyboardInterrupt

    def traced() -> None:
        """Is interrupted as it begins."""

    def call() -> None:
        sys.setprofile(profiler)
        try:
            traced()
        finally:
            sys.setprofile(None)

    assert is_interruption(caught(call))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SoftLimit, TimeoutError, SystemExit])
def test_what_a_callback_raises_by_itself_is_none(error: type[BaseException]) -> None:
    assert not is_interruption(caught(raiser(error)))
    assert not is_interruption(caught(lambda: raiser(error)(1)))


def test_other_threads_have_none(installed: Callable[[Any], None]) -> None:
    installed(signal.default_int_handler)
    error, found = caught(hit), []
    thread = threading.Thread(target=lambda: found.append(is_interruption(error)))
    thread.start()
    thread.join()
    assert found == [False]
