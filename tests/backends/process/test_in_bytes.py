"""A worker's use of its child in bytes: nothing of the user's is unpickled here."""

from __future__ import annotations

import contextvars
import logging
import os
from types import SimpleNamespace
from typing import Any

from ion_actors.backends.process import ProcessBackend
from ion_actors.backends.process.parent.inlet import Reception
from ion_actors.backends.process.parent.launch import ChildSettings
from ion_actors.backends.process.parent.runner import ProcessRunner
from ion_actors.backends.process.transport.channel import RESULT
from ion_actors.backends.process.transport.initializer import Initializer
from ion_actors.backends.process.transport.log_relay import Settings, settings_here
from ion_actors.backends.process.transport.pickling import pack_call
from ion_actors.context import background
from ion_actors.observe import Log


class Elsewhere:
    """Cannot be rebuilt in this process."""

    def __init__(self, word: str, process: int = 0) -> None:
        self.word, self.process = word, process or os.getpid()

    def __reduce__(self) -> Any:
        return _rebuilt, (self.word, self.process)


def _rebuilt(word: str, process: int) -> Elsewhere:
    assert os.getpid() != process, "it was rebuilt where it was made, or on its way"
    return Elsewhere(word, process)


def _begin(given: Elsewhere) -> None:
    global _word  # noqa: PLW0603 - of the child
    _word = given.word


_word = ""


def _answer(given: Elsewhere) -> Elsewhere:
    print(given.word, "and", _word)
    logging.getLogger("theirs").warning("hello %s", given.word)
    return Elsewhere("back")


def test_calls_news_and_the_initializer_are_bytes() -> None:
    news: list[bytes] = []
    settings = Settings(*settings_here()[:3], output=True)
    reception = Reception(lambda: settings, lambda one: news.append(bytes(one)))
    backend = ProcessBackend()
    fields = {name: getattr(backend, name) for name in ChildSettings.__dataclass_fields__}
    runner = ProcessRunner(
        ChildSettings(**fields), "p-0", background(), Log(None, "ion_actors"), reception
    )
    runner.start_with(Initializer.of_bytes(pack_call(str, _begin, (Elsewhere("first"),), None)))
    try:
        task: Any = SimpleNamespace(
            follower=None, own_context=None, variables=contextvars.Context(), stream=None
        )
        request = pack_call(str, _answer, (Elsewhere("second"),), None)
        child, (kind, _, body) = runner.ask(task, request)
        assert kind == RESULT
        header, buffers = child.buffers.open(body)
        assert not buffers
        assert b"_rebuilt" in header
        shown = b"".join(news)
        assert b"second and first" in shown
        assert b"hello second" in shown
    finally:
        runner.stop_with(None)
