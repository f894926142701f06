"""The fence around tiered memory in a forked child that could not be attached: a touch ends the child, and says why.

Such a child has neither the registration of its parent's memory nor a pager that would serve its faults. So nothing is
mapped there, a touch is a SIGSEGV, and a handler (``native/fence.c``) writes the reason to stderr, and the child ends.
"""

import ctypes
import os

from thermocline.native import library

_MESSAGE = (
    b"thermocline: this forked child has touched a tiered array of its parent's, which it was not given; it ends.\n"
    b"thermocline: open files may have run out (ulimit -n), or userfaultfd be forbidden here; else pickle the array.\n"
)


def prepare(low: int, high: int) -> None:
    """Prepare the fence of future children around addresses ``[low, high)``, in the parent. Later calls do nothing.

    Raises
    ------
    UnsupportedError
        The native library does not load.
    """
    prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)
    error = prototype(("tc_fence_prepare", library()))(low, high, _MESSAGE, len(_MESSAGE))
    if error:
        raise OSError(error, os.strerror(error))


def install() -> None:
    """Install the handler, in a forked child. Faults at other addresses go to the handler that was there before."""
    ctypes.CFUNCTYPE(None)(("tc_fence_install", library()))()
