"""Where a worker runs its tasks: in its own thread, or in a child process that it owns.

From the top down, each importing only from below::

    process/      a child process for each worker; imported only by whoever asks for it
    thread        the worker's own thread
    loop_threads  the threads that a worker's event loop makes calls in
    protocol      what a worker asks of either
"""
