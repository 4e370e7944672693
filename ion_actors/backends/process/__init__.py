"""Workers that run their tasks in child processes, one for each.

::

    worker's thread ──call──▶ Runner ──┬─ tasks ───▶ main thread of the child: runs the task
          ▲                            │    ◀──── its result, its exception
          │                            └─ control ─▶ a thread of the child that watches: "task 7 is
      the pool's                            │         to end", or the end of the parent
      supervisor                       Escalation: SIGTERM, SIGKILL, when their time has come

From the top down, each importing only from below::

    backend      ProcessBackend, and its settings
    variables    ``left_behind``, at the place where programs import it from
    parent/      the parent's side: a runner for each worker, and how its process starts and ends
    child/       what runs in the child
    transport/   what goes from one to the other, as bytes
    main_module  the program's main module, as a child has it
    signals      signals that concern all processes of a program

A child has its sockets from its parent alone, and nobody else has them: so either side learns of
the other's death, however it comes, from the end of the stream.
"""

from ion_actors.backends.process.backend import ProcessBackend

__all__ = ["ProcessBackend"]
