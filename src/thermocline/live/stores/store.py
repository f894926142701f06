"""The interface of a store: a place that keeps the bytes of pages that left DRAM."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar, Generic, TypeVar

from thermocline.live.buffer import Buffer

Spec = TypeVar("Spec")


class Store(ABC):
    """A place that keeps the bytes of pages, one page a slot.

    A slot is a handle: a small dense integer from 1 on. How much room a store has is not its own business:
    the caller reserves a slot only while the bytes charged to all slots, and ``slot_bytes`` more, are within
    the capacity. Within it a write never fails for want of room (but for a device that is smaller than its
    quota says).

    Which thread calls what: ``reserve``, ``release``, ``recover`` and ``trim`` belong to one thread. So do
    ``write`` and ``read``, unless the store is `slow`: then workers call them at the same time, each for a
    slot of its own, while the one thread reserves and releases others.

    A store is made from open descriptors and never closes them: they outlive it, so that the successor of a
    killed process finds the bytes. To that end everything it must know of written slots is in those
    descriptors, and a SIGKILL at any instruction leaves every slot that the caller's own books name as they
    were: name a slot there after ``write``, take it out before ``release``.

    Attributes
    ----------
    slow : bool
        Its reads and writes wait for a device: the pager has workers do them.
    slot_bytes : int
        The most bytes that one page can be charged, overhead included.
    """

    slow: ClassVar[bool]
    slot_bytes: int

    @abstractmethod
    def reserve(self) -> int:
        """A slot nobody has. It holds nothing and is charged `slot_bytes`.

        Raises
        ------
        StoreError
            ENOSPC: every slot there can be is taken.
        """

    @abstractmethod
    def write(self, slot: int, buffer: Buffer, offset: int, hint: int = 0) -> int:
        """Keep the page at ``buffer[offset:]``, in place of what the slot held -> bytes now charged.

        Parameters
        ----------
        offset : int
            Bytes, a multiple of the base page.
        hint : int
            Pages with equal hints (the region they belong to) are likely of a kind.

        Raises
        ------
        StoreError
            With the ``errno`` of what failed: ENOSPC, EIO, ... A slot that held nothing still holds nothing.
        """

    @abstractmethod
    def read(self, slot: int, buffer: Buffer, offset: int) -> None:
        """Fill ``buffer[offset:]`` with the page that was written.

        Raises
        ------
        StoreError
            The bytes cannot be had. What the buffer holds then is undefined.
        """

    def read_part(self, slot: int, buffer: Buffer, offset: int, begin: int, length: int) -> None:
        """Fill ``length`` bytes of the page at ``buffer[offset:]``, from its byte ``begin`` on, and perhaps more of it.

        A store that cannot do so for less than the whole reads the whole.

        Raises
        ------
        StoreError
            The bytes cannot be had. What the buffer holds then is undefined.
        """
        self.read(slot, buffer, offset)

    @abstractmethod
    def size(self, slot: int) -> int:
        """Bytes charged for a reserved slot now: `slot_bytes` until it is written."""

    @abstractmethod
    def release(self, slot: int) -> None:
        """Forget what the slot holds and let :meth:`reserve` hand it out again."""

    @abstractmethod
    def recover(self, slots: Iterable[int]) -> None:
        """Take over from a process that died: exactly these slots are taken, and hold written pages.

        Raises
        ------
        StoreError
            EIO: what the descriptors hold does not fit that.
        """

    @abstractmethod
    def trim(self) -> int:
        """Give the room of released slots back to the kernel -> bytes.

        One call does a bounded amount of work, some milliseconds; 0 means that nothing is left to give.
        """

    @abstractmethod
    def close(self) -> None:
        """Unmap and free what the store made. The descriptors stay open, and their bytes intact."""


class NodeStore(Store, Generic[Spec]):
    """A store that a node of a spec is made of.

    Parameters
    ----------
    descriptors : tuple of int
        What :meth:`create` opened, or duplicates.
    spec
        The node's spec.
    page_size : int
        Bytes of a page.
    pages : int
        The most slots that are ever reserved at once.
    """

    @abstractmethod
    def __init__(self, descriptors: tuple[int, ...], spec: Spec, page_size: int, pages: int) -> None: ...

    @classmethod
    @abstractmethod
    def worst_case(cls, page_size: int) -> int:
        """`slot_bytes` of a store for pages of so many bytes, known before there is one."""

    @classmethod
    @abstractmethod
    def create(cls, spec: Spec, page_size: int, pages: int) -> tuple[int, ...]:
        """Open what the store needs, close-on-exec, and find out whether it can work at all.

        Raises
        ------
        StoreError
            It cannot; the message is one line and says what to do.
        """
