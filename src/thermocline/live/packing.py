"""Pages on their way to compressed memory: native threads pack them, and the pager's thread puts them into the pool.

Each page is packed once, in the way that packed its like best. Where that says that others have to be tried, as it does
of one page in many, or where nothing is known of its like, a thread of Python's goes on.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from thermocline.live.arena import Arena
from thermocline.live.buffer import Buffer
from thermocline.live.jobs import UNREADABLE, PackJob
from thermocline.live.stores.compressed import CompressedStore
from thermocline.live.stores.packer import Attempt, Packer
from thermocline.live.suspicion import note_of
from thermocline.protocol.page import Column

#: Pages that one thread packs, at least: a job for fewer takes as long to hand over as to do.
_SHARE = 8


class _Share(NamedTuple):
    """The pages that one thread packs, one behind the other in the list.

    Attributes
    ----------
    first : int
        The index of the first of them.
    """

    first: int
    packer: Packer
    kinds: Sequence[int]
    attempts: list[Attempt | None]
    job: PackJob


class Packing:
    """The packing of one list of pages.

    Parameters
    ----------
    places : sequence of int or None
        Where in the arena each page is; None: it is in the buffer by the time that the jobs are begun.
    kinds : sequence of int
        What each page is like (:meth:`Store.write <thermocline.live.stores.Store.write>`).
    buffer, packed : Buffer
        Of a page for each: for what is in them, and what that packs into.
    threads : int
        That may work on it.

    Attributes
    ----------
    lengths : list of int
        Bytes that each page packs into; 0: it does not, or ``ZEROS``, or ``UNREADABLE``.
    """

    def __init__(
        self,
        store: CompressedStore,
        arena: Arena,
        pages: Sequence[int],
        places: Sequence[int | None],
        kinds: Sequence[int],
        buffer: Buffer,
        packed: Buffer,
        threads: int,
    ) -> None:
        self._store = store
        self._pages, self._size = pages, arena.page_size
        self._buffer, self._packed = buffer, packed
        self.lengths: list[int] = []
        self._shares: list[_Share] = []
        share = max(-(-len(pages) // threads), _SHARE)
        for first in range(0, len(pages), share):
            part, packer = slice(first, first + share), store.take_packer()
            attempts = [packer.attempt(kind) for kind in kinds[part]]
            job = PackJob.of(arena.fd, arena.page_size, packer, attempts, places[part], buffer, packed, first)
            self._shares.append(_Share(first, packer, kinds[part], attempts, job))

    @property
    def jobs(self) -> list[PackJob]:
        """What packs each page once."""
        return [share.job for share in self._shares]

    def learn(self, lost: Collection[int]) -> bool:
        """Take up what the jobs have done -> whether some pages are to be packed otherwise, by :meth:`pack_again`.

        Parameters
        ----------
        lost : collection of int
            Indices of pages that were to be in the buffer, and could not be read.
        """
        again = False
        for share in self._shares:
            for index, (attempt, length) in enumerate(zip(share.attempts, share.job.lengths, strict=True), share.first):
                self.lengths.append(UNREADABLE if index in lost else length)
                if attempt is None:
                    again = again or self.lengths[index] >= 0
                    continue
                if self.lengths[index] < 0:
                    attempt.give_up()
                else:
                    attempt.took(length)
                again = again or not attempt.is_over
        return again

    def pack_again(self, noted: Column) -> None:
        """Pack those pages otherwise of which one way is not enough. In any thread."""
        for share in self._shares:
            for index, (attempt, kind) in enumerate(zip(share.attempts, share.kinds, strict=True), share.first):
                if self.lengths[index] < 0 or (attempt is not None and attempt.is_over):
                    continue
                noted[0] = note_of(self._pages[index], down=True)
                begin = index * self._size
                source = self._buffer.address + begin
                if attempt is None:
                    best = share.packer.pack(source, kind)
                else:
                    best = share.packer.go_on(source, attempt, self._packed.view[begin : begin + self.lengths[index]])
                self._packed.view[begin : begin + len(best)] = best
                self.lengths[index] = len(best)

    def found(self, index: int) -> tuple[Buffer, int]:
        """Where the bytes of a page are that go to the pool, from its place on, and how many."""
        length = self.lengths[index]
        return (self._packed, length) if length else (self._buffer, self._size)

    def close(self) -> None:
        """Give the packers back."""
        for share in self._shares:
            self._store.put_packer(share.packer)
