"""What runs in a child process.

From the top down, each importing only from below::

    main          its main function
    task_server   its tasks, one after the other, in its main thread
    running_task  the task that it has under way, and how that is ended early
    last_words    what it says when it dies
    birth         what it does first, and last
    environment   what it has from its parent: environment, limits, directory
    system        what it asks of its operating system
"""
