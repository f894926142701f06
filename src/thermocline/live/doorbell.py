"""A word of the shared tables that one process changes and others wait for (futex(2)).

The program wakes the pager, and is woken, without a descriptor: one that the program may have closed could be any file
of the user's by the time that something is written to it.

No wake-up is lost. Whoever waits has read the word before it looked whether there is anything to do, and the kernel
compares it again before it sleeps; whoever rings changes the word first, and wakes second. Should it be killed in
between, its successor rings when it starts.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys

from thermocline import native
from thermocline.live.tables import Tables

_HALF = 1 << 32


class Doorbell:
    """A word of the tables' header: the kernel compares its lower half.

    Parameters
    ----------
    word : int
        Its ``HEADER_*`` index.
    """

    def __init__(self, tables: Tables, word: int) -> None:
        self._header = tables.header
        self._word = word
        self._address = ctypes.c_void_p(tables.address + 8 * word + (4 if sys.byteorder == "big" else 0))
        library = native.library()
        self._wait, self._wake, self._relay = library.tc_futex_wait, library.tc_futex_wake, library.tc_futex_relay
        self._wait.argtypes = (ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int64)
        self._wake.argtypes = (ctypes.c_void_p,)
        self._relay.argtypes = (ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int)

    @property
    def value(self) -> int:
        """What the kernel compares."""
        return int(self._header[self._word]) % _HALF

    def change(self) -> None:
        """Change the word, and wake whoever waits. One process at a time, and one thread of it."""
        self._header[self._word] += 1
        self.wake()

    def wake(self) -> None:
        """Wake whoever waits: the word has been changed."""
        self._wake(self._address)

    def wait(self, seen: int, seconds: float) -> bool:
        """Sleep until the word is another than ``seen`` -> False when that has taken too long.

        It may return early. A signal's handler runs then, and may raise.
        """
        return bool(self._wait(self._address, seen, int(seconds * 1e9)) != errno.ETIMEDOUT)

    def relay(self, eventfd: int) -> None:
        """From now on, write to an eventfd whenever the word changes, for as long as this process lives.

        Raises
        ------
        OSError
            There are no threads left.
        """
        number = self._relay(self._address, self.value, eventfd)
        if number:
            raise OSError(number, f"doorbell: {os.strerror(number)}")
