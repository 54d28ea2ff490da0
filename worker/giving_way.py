"""How a process lets others on its machine go first."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_AUTOGROUP = Path("/proc/self/autogroup")


def give_way(niceness: int) -> None:
    """Raise the nice level by `niceness`, also against other sessions.

    Where Linux shares the processors between sessions first (`sched_autogroup_enabled`, as most distributions have it), a nice
    level counts only within a session, and the session has one of its own. It is set where the session is this worker's:
    a supervisor's programs have one each, what is typed in a shell shares that of the shell.
    """
    os.nice(niceness)
    if os.getsid(0) in (os.getpid(), os.getppid()):
        with suppress(OSError):  # there is none; or a sibling has just set it, and once in a moment is enough
            _AUTOGROUP.write_text(str(niceness))
