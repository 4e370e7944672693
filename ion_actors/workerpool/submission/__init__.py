"""From a call to a task in the mailbox, in the submitter's thread.

From the top down, each importing only from below::

    submitter    submit, try_submit, asubmit, map, stream, call, ask: the verbs; how a task is made
    admission    what becomes of a task that finds no room
    caller_runs  a submitter that runs its task itself, as the overflow policy says
    place        a task that waits for room without blocking its submitter
    stream       what Pool.stream returns: the items of a generator, as its reader sees them
"""
