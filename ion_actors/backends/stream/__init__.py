"""Streams: the items of a generator, on their way from where it runs to where they are read.

From the top down::

    producer      runs a generator where a task runs, and refuses one that nobody is to iterate
    conduit       the items on their way, in this process: any thread, and any loop, may wait
    waiting_room  where one side waits until it may go on
    transit       how many items may be on their way: decisions without threads

A generator runs in a worker's thread, on a worker's event loop, or in a child process. The conduit
does not know which: it has room, or it has none.
"""
