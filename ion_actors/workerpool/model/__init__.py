"""Pure decisions and facts of a pool, tested without threads.

::

    lifecycle    running, draining, closed: what each message and deadline leads to
    retry        whether a task that failed is tried again, and when
    recovery     what is a panic, and how often a worker is restarted
    backoff      how long to wait before something that failed is tried again
    overflow     what happens to a task when there is no room; shedding by delay
    metrics      the numbers of a pool
    reports      what drain, close, panics and dumps tell
    retry_after  how long until a full pool has room
    outcomes     how a task ends, why it was given up, what becomes of its worker
    tables       small tables in HTML, for notebooks
"""
