"""Runs one task at a time, and settles it.

From the top down, each importing only from below::

    loop/         workers without threads, which share an event loop
    worker        the actor: its loop, its call of a task, and what is left if that is interrupted
    ahead         the tasks that its runner has before their turn
    settlement    carries out what failure decided: tells the supervisor, settles the future
    actor_host    what it does for an actor that lives in it: letters, moving in and out
    nested_waits  a task that waits for its siblings: its worker runs them meanwhile
    task_wrapper  the call of a task within the pool's ``task_wrapper``
    failure       what an exception means for a task and its worker; another try, or quarantine
    deadlock      who waits for whom, and whether any of them can go on
    inbox         the pykka inboxes of workers and of the supervisor
"""
