"""The tasks that wait, and their way to a worker.

From the top down, each importing only from below::

    inspection      what waits: a look at it, and a purge
    mailbox         other ways out of the queue, and back: withdrawn, dropped, claimed, put back
    notices         what hooks and dead letters are told of tasks that end without their worker
    task_queue      the bounded queue between submitters and workers: the hot path
    delayed         tasks that may not begin before their time
    protocols       what passes between it, its workers and its waiters
    priority_queue  the order of tasks that have a priority or a key
    dead_letters    the tasks that the pool gave up, for those who want to put them back
    task            a task and its future
    deadlines       when time limits end the tasks
    alarm           one timer for the first of many moments
"""
