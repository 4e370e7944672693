"""Workers that run their tasks in child processes, one for each.

::

    worker's thread ──call──▶ Runner ──┬─ tasks ───▶ main thread of the child: runs the task
          ▲                            │    ◀──── its result, its exception
          │                            └─ control ─▶ a watching thread of the child: "end task 7",
      the pool's                            │         or the end of the parent
      supervisor                       Escalation: SIGTERM, SIGKILL, after their delays

From the top down, each importing only from below::

    backend      ProcessBackend, and its settings
    variables    ``left_behind``, where programs import it from
    parent/      the parent's side: a runner for each worker, and how its process starts and ends
    child/       what runs in the child
    transport/   everything that is sent between them, as bytes
    main_module  the program's main module, and how a child imports it
    signals      signals that concern all processes of a program

A child gets its sockets from its parent, and no other process has them: so either side notices the
other's death, whatever its cause, by the end of the stream.
"""

from ion_actors.backends.process.backend import ProcessBackend

__all__ = ["ProcessBackend"]
