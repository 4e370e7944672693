"""Everything that is sent between a parent and its children.

From the top down, each importing only from below::

    messages        the contents of messages
    initializer     the initializer and its arguments, packed once for all children
    print_relay     what tasks print, line by line
    log_relay       log records, warnings and progress of the child
    context_vars    context variables and traces
    remote_errors   exceptions of the child
    shared_buffers  large buffers, in shared memory
    output_capture  the output of the child, if it is captured
    pickling        objects as bytes
    reducers        pickling what plain pickle refuses, or gets wrong
    descriptors     open files, pipes and sockets
    channel         messages over a socket
    anonymous_file  files without a name
"""
