"""How a supervisor fails, in words."""

from __future__ import annotations

from ion_actors.errors import ChildStartFailed, SupervisorFailed
from ion_actors.supervision.words import Rules

__all__ = ["broken", "gave_up", "not_started"]


def gave_up(
    name: str, child: str, rules: Rules, *, exhausted: bool, cause: BaseException | None
) -> SupervisorFailed:
    """There would have to be one restart too many.

    Args:
        name: the supervisor's.
        child: the id of the child that would have to be restarted.
        rules: the supervisor's.
        exhausted: whether the child could not be started, however often that was tried.
        cause: what the child failed with.
    """
    if exhausted and rules.backoff is not None:
        why = f"child {child!r} could not be started after {rules.backoff.retries} retries"
    else:
        limit = rules.limit
        why = (
            f"child {child!r} would have to be restarted more than {limit.max_restarts} times in "
            f"{limit.within:g} s"
        )
    error = SupervisorFailed(f"supervisor {name!r} gave up: {why}", supervisor=name, child=child)
    error.__cause__ = cause
    return error


def not_started(name: str, child: str, cause: BaseException, shown: str) -> ChildStartFailed:
    """A child did not start when the supervisor did."""
    error = ChildStartFailed(
        f"supervisor {name!r} could not start its child {child!r}: {shown}",
        supervisor=name,
        child=child,
    )
    error.__cause__ = cause
    return error


def broken(name: str, cause: BaseException) -> SupervisorFailed:
    """There is a bug in the supervisor."""
    error = SupervisorFailed(f"supervisor {name!r} failed itself", supervisor=name, child=None)
    error.__cause__ = cause
    return error
