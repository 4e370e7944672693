"""Workers on an event loop: slots without threads, many of which share one loop.

From the top down, each importing only from below::

    worker      runs one task at a time, as a coroutine
    actor_host  the actor that lives in a worker
    helper      tasks that wait for tasks of their own pool
    team        what the workers of one pool share
"""
