"""The main function of a child process: the set-up before any code of the user is called."""

from __future__ import annotations

import faulthandler
import multiprocessing
import signal

from ion_actors.backends.process.child.setup import Setup
from ion_actors.backends.process.child.system import die_with_parent
from ion_actors.backends.process.child.task_server import TaskServer
from ion_actors.backends.process.signals import DUMP

__all__ = ["run"]


def run(setup: Setup) -> None:
    """Set the process up, and run tasks until its end."""
    multiprocessing.current_process().name = setup.name
    for one in (setup.tasks, setup.replies, setup.control, setup.lifeline, setup.rights):
        one.set_inheritable(False)
    faulthandler.enable(setup.words)
    if DUMP is not None and signal.getsignal(DUMP) is signal.SIG_DFL:
        faulthandler.register(DUMP, setup.words, all_threads=True)
    if setup.capture is not None:
        setup.capture.redirect()
    die_with_parent(setup.lifeline)
    TaskServer(setup).serve()
