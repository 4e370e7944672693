"""The main function of a child process: what is set up before anything of a user's runs."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal

from ion_actors.backends.process.servant import Servant, Setup
from ion_actors.backends.process.system import die_with_parent

__all__ = ["run"]


def run(setup: Setup) -> None:
    """The main function of a child process."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):  # the parent may have blocked them
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGABRT})
    multiprocessing.current_process().name = setup.name
    for one in (setup.tasks, setup.control, setup.lifeline):
        one.set_inheritable(False)
    faulthandler.enable(setup.words)
    if setup.capture is not None:
        setup.capture.redirect()
    os.environ.update(setup.env)
    if setup.nice and hasattr(os, "nice"):
        os.nice(setup.nice)
    die_with_parent(setup.lifeline)
    Servant(setup).serve()
