"""Threads that give way to others."""

from __future__ import annotations

import contextlib
import os
import sys
import threading

LOW = 10  # of 19: about a tenth of a core that somebody else wants
BELOW_NORMAL = -2  # Windows' lowest priority but for idle time


def give_way() -> None:
    """Lower the priority of the calling thread for the rest of its life, where that is possible.

    On Linux and Windows; elsewhere nothing happens. Threads that it starts are not meant to be
    affected: use it with work on one thread.

    Examples
    --------
    >>> import threading
    >>> thread = threading.Thread(target=give_way)
    >>> thread.start()
    >>> thread.join()
    """
    if sys.platform == "win32":
        import ctypes

        kernel = ctypes.windll.kernel32
        kernel.SetThreadPriority(kernel.GetCurrentThread(), BELOW_NORMAL)
    elif sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOW)
