"""The parent's side of the process backend.

From the top down, each importing only from below::

    runner         what a worker asks of its child: calls, restarts, the end
    child_process  one child process, as its parent has it
    resources      the process, and what it shares with its parent
    launch         how a process comes to be
    handle         what the kernel knows of it; how it has died
    forkserver     the process that is forked for each child
    interpreter    how the forkserver and other helpers are started
    escalation     who must end, and when which signal is sent
    heartbeat      whether a child still answers
"""
