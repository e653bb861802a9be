"""Ends a child process with its parent, even one that was SIGKILLed."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def leash(parent: int) -> None:
    """Have the kernel kill this process as soon as its parent is gone; Linux only, elsewhere nothing happens.

    The signal comes when the thread that started this process ends: the parent must do that in its main thread.

    Args:
        parent: process id; if it is gone already, this process ends at once.
    """
    if not sys.platform.startswith("linux"):
        return
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
