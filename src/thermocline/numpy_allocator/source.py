"""What the allocator asks of tiered memory."""

from typing import Protocol

from thermocline.live.guard import Lease


class BlockSource(Protocol):
    """Tiered memory that hands out blocks.

    Calls come from any thread, at any moment, with the GIL held. A garbage collection or a signal handler
    that runs inside a call may free and allocate arrays, so every method may be entered again by the thread
    that is in it: none may wait for a lock which its own thread may hold. An allocation can then be
    declined; a free is put into a queue, and settled by the thread that holds the lock.

    Blocks may be kept when they are freed, and be handed out again, before any method is called: in ``bins``.

    There is room for 30 Python frames below a call; where there is not, the recursion limit is met before it.

    An exception raised by a method is taken for a signal handler's and raised again in the program, right
    after the NumPy call. The block is then asked for once more, and is plain memory if that fails too.

    Attributes
    ----------
    bins : int
        Address of the native library's ``struct tc_bins``; 0: none.
    """

    bins: int

    def allocate_block(self, nbytes: int) -> Lease | int:
        """The address of zeroed, page-aligned memory of at least ``nbytes`` bytes, or a lease of it.

        With a lease, the memory is given back if an exception comes before NumPy has the address. 0 when there is none
        left: NumPy raises ``MemoryError``. -1 to decline: NumPy allocates this one
        itself.
        """
        ...

    def take_back(self, freed: list[int]) -> None:
        """Take the block whose address is the first of a list, and take it off the list: both, or neither.

        Its array is gone, so nothing reads it any more.
        """
        ...

    def settle(self) -> None:
        """Called after every free, for what can be done later than :meth:`take_back`."""
        ...

    def block_size(self, address: int) -> int:
        """The bytes that can be used at ``address``, which ``allocate_block`` gave."""
        ...
