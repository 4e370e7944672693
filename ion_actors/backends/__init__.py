"""Where a worker runs its tasks: in its own thread, in a child process that it owns, as coroutines
of an event loop that it shares, or in an actor on a Ray cluster.

From the top down, each importing only from below::

    ray/          a Ray actor for each worker; imported only when it is used
    process/      a child process for each worker; imported only when it is used
    asyncio       one event loop for all workers of a pool; imported only when it is used
    thread        the worker's own thread
    event_loop    runs coroutines; imported only when there is one
    loop_threads  the threads in which a worker's event loop makes blocking calls
    protocol      the interface between workers and backends
    window        how many tasks are sent before their turn: decisions
    stream/       the items of a generator, from where it runs to where they are read
    stacks        where a thread is, and what users see of that
"""
