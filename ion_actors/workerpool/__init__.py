"""The supervised pool.

From the top down, each importing only from below::

    pool          the face: an executor whose verbs are messages
    shutdown      how it is ended: by its verbs drain, close, shutdown, or by a signal
    exit_hooks    interpreter exit and fork
    submitter     its verbs submit, try_submit, asubmit, call, ask: how a task is made and let in
    parallel_map  its verbs map, map_unordered, amap
    caller_runs   a submitter that runs its task itself, as the overflow policy says
    supervisor/   life and death, by messages: who works, restarts, stuck tasks
    proxy         what its verb proxy gives: the class of workers that have state
    core          what the face, the supervisor and the exit hook share
    worker/       runs one task at a time, and settles it
    messages      what the supervisor understands
    mailbox/      the tasks that wait, and their way to a worker
    spec          the checked arguments, of the pool and of its tasks
    hooks         what the pool's logger, metrics and tracer are told
    stacks        where other threads are
    model/        pure decisions and facts
"""
