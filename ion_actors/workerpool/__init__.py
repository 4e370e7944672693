"""The supervised pool.

From the top down, each importing only from below::

    pool         the face: an executor whose verbs are messages
    ending       its verbs drain, close, shutdown
    process      interpreter exit and fork
    submitter    its verbs submit, try_submit, asubmit; mapping: map; calling: proxy, call, ask
    admission    how a task is made and let in; options: of a task; caller: who runs it itself
    supervisor   life and death, by messages; staff: the half that sees to the workers
    worker       runs one task at a time
    core         what the face, the supervisor and the exit hook share
    inbox        what pykka sees of the mailbox and of a worker's slot
    mailbox      the bounded task lane; handoff: what passes between it and its workers
    task         a task and its future
    spec         the checked arguments
    lifecycle, recovery, directive, messages, news, metrics, report    pure
"""
