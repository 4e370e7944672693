"""The parent's side of the process backend.

From the top down, each importing only from below::

    runner         a worker's use of its child: calls, replacement, the end
    child_process  one child process, from its start to its end
    line           the tasks that a child was sent, and that are not answered
    inlet          where the items of a child's generator arrive
    resources      the process, and everything that it shares with its parent
    launch         how a process is started
    handle         signals to a process, its end and its exit code
    forkserver     the process that is forked for each child
    interpreter    how the forkserver and other helpers are started
    escalation     signals to what must end: which, and when
    heartbeat      whether a child still answers
    memory_guard   whether a child holds too much memory
    control        commands to a child that cannot wait, and its answers
    outside_view   where a child is that does not answer
"""
