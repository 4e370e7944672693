"""Messages to actors that are sent later.

::

    reminder  tell_after, and the handle that it returns
"""

from ion_actors.timers.reminder import Reminder, tell_after

__all__ = ["Reminder", "tell_after"]
