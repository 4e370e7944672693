"""The actor that owns a pool's workers.

From the top down, each importing only from below::

    supervisor    the actor: its messages, the pool's life and end
    resilience    how it survives its own faults
    loop_watch    the event loop that the tasks run on, if they do
    watchdog      tasks that are stuck
    locator       where tasks are that will be abandoned
    sizer         the size of a pool that follows its work
    roster        who works at which seat: starts, restarts, resizing
    appointments  makes workers of the kind that the backend asks for
"""
