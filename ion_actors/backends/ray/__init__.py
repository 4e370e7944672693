"""Workers that run their tasks on a Ray cluster, in one Ray actor each.

::

    worker's thread ──call──▶ Runner ──▶ RemoteActor ──┬─ tasks ──▶ the actor's thread for tasks
          ▲                                  ▲         ├─ control ▶ another one: "end task 7"
          │                                  │         └─ news ───▶ another one: logs, progress
      the pool's                        Escalation: an exception in the task, the actor's end
      supervisor
                       RaySite: the connection, for all pools of this process; calls that may block

From the top down, each importing only from below::

    backend       RayBackend, and its settings
    runner        a worker's use of its actor: calls, replacement, the end
    remote_actor  one Ray actor, seen from here, from its start to its end
    site          the connection that the pools of this process share
    placement/    where in the actor the tasks run
    line          the tasks that were sent to an actor, from both sides
    connection    how Ray is imported, found, connected to and left
    task_actor    what runs in the Ray actor
    wire          what is sent to an actor and back
    in_place      large buffers that may be written to
    remains       what is left of an actor that has died
    settings      what a worker has to know of the backend
    printing      what tasks print
    whereabouts   where the task of an actor is
    last_words    what is known of the end of an actor on this machine
    journal       what an actor has begun and ended, for when it has died

Ray itself is imported with the first worker.
"""

from ion_actors.backends.ray.backend import RayBackend

__all__ = ["RayBackend"]
