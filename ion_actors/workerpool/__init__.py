"""The supervised pool.

From the top down, each importing only from below::

    pool          the public Pool: an executor whose methods send messages to the supervisor
    shutdown      how it is ended: by drain, close, shutdown
    signals       a drain on SIGTERM or another signal
    exit_hooks    interpreter exit and fork
    snapshot      the pool at one moment, as JSON can hold it
    submission/   submit, map, stream, call, ask: how a task is made and let in, or finds no room
    parallel_map  map, map_unordered, amap
    progress/     shows how far a map is
    chunk         several calls of a map as one task
    supervisor/   starts, replaces and ends workers; handles stuck tasks and the end of the pool
    proxy         what Pool.proxy returns: the class of workers that have state
    core          what the pool, the supervisor and the exit hook share
    worker/       runs one task at a time, and settles it
    messages      what the supervisor understands
    mailbox/      the tasks that wait, and their way to a worker
    mistakes      hints at what to write instead of a call that a pool cannot make
    spec          the checked arguments of the pool
    task_options  the options of tasks, checked, and what they say about each task
    hooks         what the pool's logger, metrics and tracer are told
    model/        pure decisions and facts
"""
