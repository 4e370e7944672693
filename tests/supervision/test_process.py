"""The end of the process, and its forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from tests import needs_threads_at_exit

PRELUDE = """
import os, sys, threading, pykka
from ion_actors import Pool, SupervisorForked
from ion_actors.supervision import Supervisor, child
from ion_actors.testing import *

class Said(pykka.ThreadingActor):
    def on_stop(self):
        print("stopped", flush=True)
"""


def run(program, *flags, code=0):
    whole = PRELUDE + textwrap.dedent(program)
    # A child that is forked while other threads run may inherit coverage's own lock, held.
    measured = "fork" not in program
    kept = {k: v for k, v in os.environ.items() if measured or not k.startswith("COVERAGE_PROCESS")}
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", *flags, "-c", whole],
        capture_output=True, text=True, timeout=200, check=False, env=kept,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


@needs_threads_at_exit
def test_a_tree_that_was_not_stopped_is_drained_at_exit_and_warns():
    out, err = run(
        """
        tree = Supervisor([Said, child(Pool, args=(1,))], max_restarts=None, name="app").start()
        tree["Pool"].submit(print, "task", flush=True)
        """,
        "-W", "always",
    )  # fmt: skip
    assert out.split() == ["task", "stopped"]
    assert "supervisor 'app' was not stopped before the interpreter exits" in err
    assert "Traceback" not in err
    assert "pool" not in err.lower().replace("workerpool", ""), "the tree has closed its pool"


def test_a_child_that_hangs_does_not_keep_the_interpreter():
    out, err = run(
        """
        class Stuck(pykka.ThreadingActor):
            def on_stop(self):
                threading.Event().wait()

        tree = Supervisor([Said, child(Stuck, shutdown=0.1)], name="app").start()
        """
    )
    assert out.split() == ["stopped"]
    assert "child Stuck did not stop in time and is abandoned" in err


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_in_a_forked_child_a_tree_says_that_it_is_not_here():
    out, _ = run(
        """
        import warnings
        warnings.simplefilter("ignore")
        tree = Supervisor([Said], name="app").start()
        pid = os.fork()
        if pid == 0:
            said = []
            for verb in (tree.drain, tree.close, tree.wait, lambda: tree["Said"]):
                try:
                    verb()
                except SupervisorForked as error:
                    said.append(error.supervisor)
            print("child", *said, flush=True)
            del tree
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        tree.drain()
        """
    )
    assert out.splitlines() == ["child app app app app", "stopped"]


@pytest.mark.skipif(not hasattr(signal, "SIGINT"), reason="there is no Ctrl-C here")
def test_ctrl_c_while_it_waits_for_the_end():
    out, _ = run(
        """
        import signal
        try:
            with Supervisor([Said]) as tree:
                threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
                tree.wait()
        except KeyboardInterrupt:
            print("interrupted", tree.state.value, flush=True)
        """
    )
    assert out.split() == ["stopped", "interrupted", "stopped"]
