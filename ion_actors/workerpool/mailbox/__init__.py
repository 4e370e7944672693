"""The tasks that wait, and their way to a worker.

From the top down, each importing only from below::

    shedding        a mailbox that leaves out tasks that waited too long
    mailbox         how a task ends without a worker: withdrawn, dropped, fenced, given up
    task_queue      the bounded queue between submitters and workers: the hot path
    protocols       what passes between it, its workers and its waiters
    priority_queue  the order of tasks that have a priority or a key
    task            a task and its future
    dead_letters    what is told of tasks that the pool gave up
"""
