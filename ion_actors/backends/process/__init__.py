"""Workers that run their tasks in child processes."""
