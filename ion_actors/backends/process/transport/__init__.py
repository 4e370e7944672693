"""What goes from one process to the other.

From the top down, each importing only from below::

    messages        what the messages say
    initializer     the initializer and its arguments, packed once for all children
    log_relay       log records, warnings and progress of the child
    context_vars    context variables and traces
    remote_errors   exceptions of the child
    shared_buffers  large buffers, beside the messages
    output_capture  what the child prints, if that is wanted
    pickling        all else, as bytes
    reducers        what plain pickle does not know, or gets wrong
    descriptors     open files, pipes and sockets, beside the messages
    channel         messages over a socket
    anonymous_file  files without a name
"""
