"""Bins: blocks that NumPy has freed and that are kept, with their frames, for the next block of their size.

The native library keeps them (``native/bins.c``), and hands them out again without entering Python. To
:mod:`thermocline.live.regions` they are allocated still, and are freed like any others once they are given up.
"""

from __future__ import annotations

import ctypes

from thermocline.live.buffer import address_of
from thermocline.live.ring import What
from thermocline.live.session import Session
from thermocline.live.tables import Tables
from thermocline.native import library

#: Of DRAM, the share that kept blocks may have.
_SHARE = 4


#: Columns by the name of the table that each is one of; and words of its header.
_COLUMNS = {
    **{name: name for name in ("entry", "pins", "lazyfree")},
    **{f"region_{name}": f"region_{name}" for name in ("pages", "source", "group", "advice", "born", "shared")},
    "list": "lazyfree_blocks",
}
_WORDS = {
    "kept_blocks": Tables.HEADER_LAZYFREE_BLOCKS,
    "kept_bytes": Tables.HEADER_LAZYFREE_BYTES,
    "reused": Tables.HEADER_REUSED,
    "watched": Tables.HEADER_LAZYFREE_WATCHED,
    "poisons": Tables.HEADER_POISONS,
}


class Binned(ctypes.Structure):
    """``struct tc_binned``."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            *("address", "size", "page_size", "most_pages"),
            *_COLUMNS,
            *_WORDS,
            *("forks", "ring", "request"),
        )
    )


class Bins:
    """The bins of one memory, in the program that made it. They are closed with its session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._opened = ctypes.c_void_p()
        self._library = library()
        # It enters Python: what it raises is raised, and the GIL is kept.
        self._give_up = ctypes.PYFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.py_object, ctypes.c_uint32)(
            ("tc_bins_give_up", self._library)
        )
        session.teardown.callback(self.close)
        tables = session.tables
        binned = Binned(
            address=session.address,
            size=session.size,
            page_size=session.page_size,
            most_pages=session.nodes[0].capacity // session.page_size // _SHARE,
            **{name: tables.address_of(table) for name, table in _COLUMNS.items()},
            **{name: address_of(tables.word(word)) for name, word in _WORDS.items()},
            forks=session.attachment.forks.over_address,
            ring=session.requests.ring_address,
            request=What.LAZYFREE,
        )
        self._library.tc_bins_open(ctypes.byref(binned), ctypes.byref(self._opened))

    @property
    def address(self) -> int:
        """Of the ``struct tc_bins``; 0: there are none."""
        return self._opened.value or 0

    @property
    def _usable(self) -> bool:
        """Whether they are there, and this is not a forked child."""
        return bool(self._opened.value) and self._session.usable

    @property
    def blocks(self) -> int:
        """How many blocks are kept."""
        return int(self._session.tables.header[Tables.HEADER_LAZYFREE_BLOCKS])

    def charge(self, group: int) -> None:
        """Hand out blocks of this group from now on."""
        if self._usable:
            self._library.tc_bins_charge(self._opened, ctypes.c_uint32(group))

    def give_up(self, released: list[int], *, everything: bool) -> int:
        """Add the addresses of blocks to a list -> how many: of all, or of those that are of no use any more.

        In one step, in which no exception comes.
        """
        return int(self._give_up(self._opened, released, everything)) if self._usable else 0

    def stop(self) -> None:
        """Keep and hand out nothing any more."""
        if self._usable:
            self._library.tc_bins_stop(self._opened)

    def close(self) -> None:
        """The tables are about to go. Doing it again is nothing."""
        if self._opened.value:
            self._library.tc_bins_close(self._opened)
