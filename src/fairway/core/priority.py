"""Work that gives way to serving."""

from __future__ import annotations

import os
import time
from pathlib import Path

_TRIES = 5
_PAUSE_SECONDS = 0.15
"""Linux lets a session be changed ten times a second, all of a machine's sessions together."""


def give_way(more: int) -> None:
    """Lowers this process's priority by `more` steps of nice, and its session's, where it leads one.

    Linux shares the processors among sessions first, and heeds nice only within one (autogroup, sched(7)): a process in a
    session of its own takes as much as a server does, however nice it is. In a container with processor shares of its own
    nice counts between all its processes, and the session's changes nothing.
    """
    nice = os.nice(more)
    if os.getsid(0) != os.getpid():
        return
    for _ in range(_TRIES):
        try:
            Path("/proc/self/autogroup").write_text(str(nice), "ascii")
        except BlockingIOError:
            time.sleep(_PAUSE_SECONDS)
        except OSError:  # another system, or one without autogroups
            return
        else:
            return
