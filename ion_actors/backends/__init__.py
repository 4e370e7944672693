"""Where a worker runs its task: so far, in its own thread."""
