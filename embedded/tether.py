"""Start a program that does not outlive the process that started it.

Run as a script (`python -I -S tether.py SIGNAL PARENT UID GID PROGRAM ARGUMENT…`): it asks the kernel for SIGNAL on the
death of PARENT, gives up root for UID and GID (-1: stays), and becomes PROGRAM. A tiny program instead of a function between
fork and exec, because that function can deadlock in a process with threads, and the supervisor has some.

The kernel sends the signal when the *thread* that forked ends, so a child tethered from a thread would die with the thread:
off the main thread, and off Linux, nothing is tethered.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # as a script it runs without our packages
    from embedded.account import Account

PR_SET_PDEATHSIG = 1
KEEP = -1


def tethered(argv: Sequence[str], death_signal: signal.Signals, account: Account | None = None) -> list[str]:
    """The command line that runs `argv` as our child, sent `death_signal` when we die, however we die.

    Args:
        account: who to run it as, when that is not us.
    """
    wanted = death_signal if threading.current_thread() is threading.main_thread() else 0
    uid, gid = (KEEP, KEEP) if account is None else (account.uid, account.gid)
    numbers = [str(int(number)) for number in (wanted, os.getpid(), uid, gid)]
    return [sys.executable, "-I", "-S", __file__, *numbers, *argv]


def _become(death_signal: int, parent: int, uid: int, gid: int, argv: list[str]) -> None:
    if death_signal and sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - needed here only, and must load while we may still read the standard library

        libc = ctypes.CDLL(None, use_errno=True)
    else:
        libc = None
    if uid != KEEP:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)  # clears a death signal that was set before
    if libc is not None:
        libc.prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            sys.exit(f"the process {parent} that started {argv[0]} is gone")
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - becoming another program is what this is for
    except OSError as error:
        sys.exit(f"cannot run {argv[0]}: {error.strerror}")


if __name__ == "__main__":
    _become(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
