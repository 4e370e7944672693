"""Workers that run their tasks in child processes, one for each.

::

    worker's thread ──call──▶ Runner ──┬─ tasks ───▶ main thread of the child: runs the task
          ▲                            │    ◀──── its result, its exception
          │                            └─ control ─▶ a thread of the child that watches: "task 7 is
      the pool's                            │         to end", or the end of the parent
      supervisor                       Leash: SIGTERM, SIGKILL, when their time has come

From the top down, each importing only from below::

    options      ProcessBackend, and its settings
    runner       the parent's side, for one worker
    child        one child process, as its parent has it
    equipment    the process, and what it shares with its parent
    main         the child's main function
    servant      what runs in the child; underway: the task that it has
    launch       how a process comes to be; handle: what the kernel knows of it
    forkserver   the process that is forked for each child; interpreter: how it is started
    birth        what a child does first, and last; surroundings: environment, limits, directory
    dispositions signals that are sent to all processes of a program
    leash        who must end, and when which signal is sent
    pulse        whether it still answers
    wire         what the messages say
    outset       the initializer and its arguments, packed once for all children
    relay        log records, warnings and progress of the child
    last_words   what it says when it dies
    capture      what it prints, if that is wanted
    variables    context variables and traces
    remote_errors  exceptions of the child
    arrays       large buffers, beside the messages
    pickling     all else, as bytes
    reducers     what plain pickle does not know, or gets wrong
    descriptors  open files, pipes and sockets, beside the messages
    channel      messages over a socket
    shelf        files without a name
    program      the main module, as a child has it
    system       what a child asks of its operating system
    death        an exit code in words
    guard        a program that lacks its `if __name__ == "__main__":`

A child has its sockets from its parent alone, and nobody else has them: so either side learns of
the other's death, however it comes, from the end of the stream.
"""

from ion_actors.backends.process.options import ProcessBackend

__all__ = ["ProcessBackend"]
