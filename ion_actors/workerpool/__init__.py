"""The supervised pool.

From the top down, each importing only from below::

pool         the face: an executor whose verbs are messages
process      interpreter exit and fork
submitter    from a call to a task in the mailbox; mapping: map over it
supervisor   life and death, by messages
worker       runs one task at a time
core         what the face, the supervisor and the exit hook share
inbox        what pykka sees of the mailbox and of a worker's slot
mailbox      the bounded task lane, and the ledger
task         a task and its future
spec         the checked arguments
lifecycle, recovery, messages, metrics, report    pure
"""
