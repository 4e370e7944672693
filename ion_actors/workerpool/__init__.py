"""The supervised pool.

From the top down, each importing only from below::

    pool          the face: an executor whose verbs are messages
    shutdown      its verbs drain, close, shutdown; a signal that drains it
    exit_hooks    interpreter exit and fork
    submitter     its verbs submit, try_submit, asubmit: how a task is made and let in; its options
    parallel_map  its verbs map, map_unordered, amap
    caller_runs   a submitter that runs its task itself, as the overflow policy says
    supervisor/   life and death, by messages: who works, restarts, stuck tasks
    proxy         its verbs proxy, call, ask: a pool whose workers have state
    core          what the face, the supervisor and the exit hook share
    worker/       runs one task at a time, and settles it
    mailbox/      the tasks that wait, and their way to a worker
    messages      what the supervisor understands
    spec          the checked arguments
    hooks         what the pool's logger, metrics and tracer are told
    stacks        where other threads are
    model/        pure decisions and facts
"""
