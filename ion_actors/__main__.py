"""``python -m ion_actors``: see :mod:`ion_actors.dashboard.terminal`."""

from __future__ import annotations

import sys

from ion_actors.dashboard.terminal.command import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
