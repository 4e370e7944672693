"""What runs in a child process.

From the top down, each importing only from below::

    main          its main function
    task_server   runs the tasks, one after the other, in the main thread
    setup         what the parent hands over
    running_task  the current task, and how it is ended early
    outlet        where its generator puts the items
    last_words    the stacks that a dying child writes
    birth         the first and the last steps of a child process
    environment   settings from the parent: environment, limits, directory
    system        calls to the operating system
"""
