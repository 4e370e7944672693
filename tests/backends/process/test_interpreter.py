"""How the interpreters of helpers are started, and what is said if they cannot be."""

from __future__ import annotations

import os
import re
import sys

import pytest

from ion_actors.backends.process.parent import interpreter
from ion_actors.backends.protocol import Hopeless


def test_an_interpreter_that_is_not_there_is_named() -> None:
    with pytest.raises(Hopeless, match=r"cannot be started by '/no/such/python'.*set_executable"):
        interpreter.start(["/no/such/python", "-c", ""], ())


def test_a_file_that_is_missing_is_not_taken_for_the_interpreter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a bare chroot, which has no ``/dev/null``."""
    monkeypatch.setattr(os, "devnull", "/no/such/null")
    message = "child processes cannot be started without '/no/such/null': No such file"
    with pytest.raises(Hopeless, match=re.escape(message)):
        interpreter.start([sys.executable, "-c", ""], ())
