"""Where in an actor the tasks run.

From the top down, each importing only from below::

    agent      in a child process of the actor
    direct     in the actor itself
    placement  what both have in common, and what both do
    values     calls with object references, on their way to a child
"""
