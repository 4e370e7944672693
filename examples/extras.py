"""What a program says if a package that it needs is not installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

__all__ = ["require"]


def require(*packages: str, extra: str, about: str | None) -> None:
    """End the program unless all of these can be imported: it says what to install.

    ``--help`` works all the same: it shows what the program is about.

    Args:
        packages: names of top-level packages.
        extra: the extra of ``ion_actors`` that brings them.
        about: the docstring of the program.
    """
    missing = [one for one in packages if importlib.util.find_spec(one) is None]
    if not missing:
        return
    name = Path(sys.argv[0]).name
    install = f"pip install '.[{extra}]'"
    if {"-h", "--help"}.intersection(sys.argv[1:]):
        print(f"usage: {name} [options]\n\n{about}\nIts options are shown after {install}")
        sys.exit(0)
    needed = ", ".join(missing)
    print(f"{name} needs {needed}. In the folder of the repository: {install}", file=sys.stderr)
    sys.exit(2)
