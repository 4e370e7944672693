"""Programs in processes of their own, as in ``tests/programs``."""

from tests.programs.conftest import run, start

__all__ = ["run", "start"]
