"""NumPy's large arrays in tiered memory, whoever makes them.

`install` replaces the four functions of NumPy's default memory handler (NEP 49), once for the life of the
process: arrays outlive whatever made them. Between `activate` and `deactivate`, every block that NumPy
allocates in any thread for an array of at least ``min_array`` bytes comes from a `BlockSource`. Everything
else goes to NumPy's own functions through a filter in C (``native/filter.c``) and never enters Python.

All sources live in one reserved range of addresses, the arena, so one comparison tells our blocks from all
others. In it each source registers a range of its own, and a block is freed and resized by the source in
whose range it lies, whichever is active by then.

What is not tiered:

- arrays that do not own their memory through NumPy's default handler: views of other objects' memory,
  memory maps, arrays of a program that sets a handler of its own;
- temporary storage that NumPy takes from ``malloc`` directly;
- with Python's memory debugging on (``PYTHONMALLOC=debug``), a plain array that grows;
- everything in a forked child, until it registers a source of its own, and everything once the interpreter
  shuts down. There, freeing a tiered array does nothing, and one that is resized is tiered no more.
"""

from thermocline.live.guard import Holding, Lease
from thermocline.numpy_allocator.allocator import Activation, Allocator
from thermocline.numpy_allocator.source import BlockSource

__all__ = [
    "Activation",
    "BlockSource",
    "activate",
    "close",
    "deactivate",
    "install",
    "lease",
    "register_source",
    "source_of",
    "tiered",
    "unregister_source",
]

_allocator: Allocator | None = None


def install(arena_low: int, arena_high: int) -> None:
    """Replace NumPy's functions, for an arena of addresses ``[arena_low, arena_high)``. Imports NumPy.

    Calling it again with the same arena does nothing.

    Raises
    ------
    RuntimeError
        It is installed for another arena.
    UnsupportedError
        This NumPy or this machine is not one we know.
    """
    global _allocator  # noqa: PLW0603 - there is one default handler in a process
    if not 0 < arena_low < arena_high:
        raise ValueError(f"[{arena_low:#x}, {arena_high:#x}) is no range of addresses")
    if _allocator is None:
        from thermocline.numpy_allocator.handler import default_handler

        _allocator = Allocator(default_handler(), arena_low, arena_high)
        _allocator.begin()
    elif (_allocator.low, _allocator.high) != (arena_low, arena_high):
        raise RuntimeError(f"the arena is [{_allocator.low:#x}, {_allocator.high:#x}) and cannot be another")
    else:
        _allocator.begin()  # it may have been interrupted


def register_source(source: BlockSource, low: int, high: int) -> None:
    """Let ``source`` have the addresses ``[low, high)`` of the arena.

    Raises
    ------
    ValueError
        They are not in the arena, or are another source's.
    """
    _installed().register(source, low, high)


def unregister_source(source: BlockSource) -> None:
    """Forget a source and its activations.

    Freeing one of its arrays does nothing from then on, and resizing one is a ``MemoryError``. As long as one lives,
    no other source may have its addresses: it would be asked to free what it did not give.
    """
    _installed().unregister(source)


def source_of(address: int) -> BlockSource | None:
    """The source whose block an address lies in; None for memory that is not tiered."""
    return _installed().source_of(address)


def activate(source: BlockSource, min_array: int) -> Activation:
    """Serve NumPy's blocks of at least ``min_array`` bytes from ``source``, in all threads.

    Activations nest: the one made last counts.

    Raises
    ------
    ValueError
        The source has no range, or ``min_array`` is not positive.
    """
    return _installed().activate(source, min_array)


def deactivate(activation: Activation | None = None) -> None:
    """End one activation, wherever it is in the nest; the one made last by default.

    One that has ended already (its source was unregistered, the process was forked) is no error.
    """
    _installed().deactivate(activation)


def lease(source: BlockSource, min_array: int) -> Lease:
    """An activation of ``source`` that ends with the lease."""
    return _installed().lease(source, min_array)


def tiered(source: BlockSource, min_array: int) -> Holding[None]:
    """Activate ``source`` for the length of a ``with`` block."""
    return Holding(lambda: (None, (lease(source, min_array),)))


def close() -> None:
    """End all tiering in this process, for good: no block is allocated, resized or freed any more.

    Called when the interpreter shuts down, before the modules are freed and while all arrays can be read.
    """
    if _allocator is not None:
        _allocator.close()


def _installed() -> Allocator:
    if _allocator is None:
        raise RuntimeError("call install() first")
    return _allocator
