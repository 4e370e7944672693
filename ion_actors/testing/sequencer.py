"""Runs blocks of several threads in a given order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ion_actors._arguments import whole_number

__all__ = ["SequenceBroken", "Sequencer"]


class SequenceBroken(AssertionError):
    """A step was not reached in time, or failed, so later steps cannot run."""


class Sequencer:
    """Makes the steps 0, 1, 2, … run one after the other, whichever threads they are in.

    ::

        seq = Sequencer()


        def worker():
            with seq(0):
                ...
            with seq(2):
                ...


        threading.Thread(target=worker).start()
        with seq(1):
            ...  # between the two

    A step begins when the one before has ended. If a step raises, or is not reached in time, later
    steps raise a :class:`SequenceBroken` instead of waiting for ever.

    Args:
        patience: seconds that a step waits for its turn.
    """

    def __init__(self, patience: float = 20.0) -> None:
        self._patience = patience
        self._changed = threading.Condition()  # guards all below
        self._claimed: set[int] = set()
        self._ended = 0  # the number of steps that have ended
        self._failure: BaseException | None = None

    @contextmanager
    def __call__(self, step: int) -> Iterator[None]:
        """The block of this step.

        Raises:
            RuntimeError: the step was used before.
            SequenceBroken: its turn did not come.
        """
        self._claim(whole_number("step", step, minimum=0))
        self._await_turn(step)
        try:
            yield
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()
            raise
        with self._changed:
            self._ended = step + 1
            self._changed.notify_all()

    def _claim(self, step: int) -> None:
        with self._changed:
            if step in self._claimed:
                raise RuntimeError(f"step {step} was used before")
            self._claimed.add(step)

    def _await_turn(self, step: int) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._ended == step or self._failure is not None, self._patience
            )
            if self._failure is not None:
                raise SequenceBroken(f"step {step} cannot run: an earlier one failed") from (
                    self._failure
                )
            if self._ended != step:
                raise SequenceBroken(
                    f"step {step} cannot run: step {self._ended} "
                    + ("has begun and not ended" if self._ended in self._claimed else "never came")
                    + f" in {self._patience} s"
                )
