"""What a program gives to its workers may be secret: it is in no repr, and in no log record."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from ion_actors import Pool
from ion_actors.backends.process import ProcessBackend
from ion_actors.supervision import Supervisor, child
from ion_actors.workerpool.messages import Submit, TrySubmit
from tests.inside import core_of
from tests.workerpool.helpers import eventually

SECRET = "hunter2"
PATIENCE = 30.0


def use(*args: object, **kwargs: object) -> None:
    """Does nothing with a password."""


def test_no_repr_shows_what_workers_are_given() -> None:
    backend = ProcessBackend(env={"PASSWORD": SECRET})
    with Pool(size=1, initializer=use, initargs=(SECRET,)) as pool:
        shown = [pool, core_of(pool).spec, pool.dump(), pool.metrics(), pool.options(key=SECRET)]
        shown += [backend, child(use, args=(SECRET,), kwargs={"password": SECRET})]
        shown += [Submit(use, (SECRET,), {"p": SECRET}), TrySubmit(use, (SECRET,))]
        assert SECRET not in f"{shown} {[str(one) for one in shown]}"


@pytest.mark.parametrize(
    "call",
    [
        lambda: Pool(initializer=use, initargs=SECRET),  # type: ignore[arg-type]
        lambda: child(use, args=SECRET),
        lambda: Supervisor([child(use, args=SECRET)]),
        lambda: ProcessBackend(env=SECRET),  # type: ignore[arg-type]
        lambda: ProcessBackend(env={"PASSWORD": SECRET.encode()}),  # type: ignore[dict-item]
        lambda: ProcessBackend(env={"PASSWORD": f"{SECRET}\0"}),
        lambda: Pool(overflow="caller_runs", backend=ProcessBackend(env={"PASSWORD": SECRET})),
    ],
)
def test_no_error_about_an_argument_shows_it(call: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    assert SECRET not in str(caught.value)


def test_no_log_of_a_dead_letter_shows_the_arguments(caplog: pytest.LogCaptureFixture) -> None:
    told = threading.Event()

    def fail(letter: object) -> None:
        told.set()
        raise ValueError

    with caplog.at_level(logging.DEBUG, "ion_actors"), Pool(size=1) as pool:
        pool.dead_letters.subscribe(fail)
        error = pool.options(ttl=1e-9).submit(use, SECRET, password=SECRET).exception(PATIENCE)
        assert error is not None
        assert told.wait(PATIENCE)
    eventually(lambda: "a subscriber failed" in caplog.text)  # what it raises is logged after that
    assert SECRET not in caplog.text
