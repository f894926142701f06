"""Threads that touch pages and time every touch, in C, without the GIL."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from thermocline.native import library

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORD = 8  # bytes

_libc = ctypes.CDLL(None)


class Touches(NamedTuple):
    """What came of a run.

    Attributes
    ----------
    nanoseconds : NDArray[np.uint32]
        How long each touch took, in the order of the accesses; as many as there were until the prober was stopped. A
        touch of more than 4.29 s counts as one of 4.29 s.
    mismatches : int
        Reads that did not find what the prober wrote last. More than 0 is a wrong byte.
    """

    nanoseconds: NDArray[np.uint32]
    mismatches: int


class Probe(ctypes.Structure):
    """``struct tc_probe`` of ``native/thermocline.h``, field for field."""

    _fields_ = (
        ("words", ctypes.c_void_p),
        ("page_shift", ctypes.c_uint64),
        ("accesses", ctypes.c_void_p),
        ("count", ctypes.c_uint64),
        ("shadow", ctypes.c_void_p),
        ("nanoseconds", ctypes.c_void_p),
        ("think", ctypes.c_uint64),
        ("get_time", ctypes.c_void_p),
        ("sleep", ctypes.c_void_p),
        ("stop", ctypes.c_uint64),
        ("done", ctypes.c_uint64),
        ("mismatches", ctypes.c_uint64),
    )


class Prober:
    """One thread's touches of the pages of an array.

    A thread has one word of its own in every page. It reads it and compares it with what it wrote there last, or adds
    1 to what it wrote last and writes that. So a byte that went wrong on the way through the tiers is noticed by the
    next read, and any number of threads may share the pages.

    Parameters
    ----------
    address : int
        Of the first page. The memory must last as long as `run` does, and the prober's words are 0 at first.
    page_size : int
        Bytes; a power of two.
    pages : int
        How many there are.
    accesses : NDArray[np.uint32]
        One for each touch, in order: twice the page's number, and 1 more for a write. They are copied.
    word : int
        Which word of 8 bytes in every page is the prober's own. No two probers of the same pages may share one.
    think : float
        Seconds to sleep before each touch.

    Raises
    ------
    ValueError
        The touches would go astray.
    UnsupportedError
        The native library does not load.

    Notes
    -----
    `run` is for one thread at a time. It blocks that thread until it has done everything, even against Ctrl-C, so the
    main thread should not be the one.
    """

    def __init__(
        self, address: int, page_size: int, pages: int, accesses: NDArray[np.uint32], word: int, think: float = 0.0
    ) -> None:
        if page_size < WORD or page_size & (page_size - 1):
            raise ValueError(f"page_size is {page_size}; write a power of two, at least {WORD}")
        if address <= 0 or address % page_size:
            raise ValueError(f"no page of {page_size} bytes begins at {address:#x}; give the address of one")
        if not 0 <= word < page_size // WORD:
            raise ValueError(f"word is {word}; a page of {page_size} bytes has words 0 to {page_size // WORD - 1}")
        if think < 0:
            raise ValueError(f"think is {think} s; write 0 (no pause) or more")
        # A copy: it cannot change after the check that no touch goes beyond the pages.
        self._accesses = accesses.astype(np.uint32, order="C", casting="safe")
        if self._accesses.size and (last := int(self._accesses.max()) >> 1) >= pages:
            raise ValueError(f"page {last} is touched, and there are {pages}; the first is page 0")
        self._shadow = np.zeros(pages, np.uint64)
        self._probe = Probe(
            words=address + WORD * word,
            page_shift=page_size.bit_length() - 1,
            accesses=self._accesses.ctypes.data,
            count=self._accesses.size,
            shadow=self._shadow.ctypes.data,
            think=round(think * 1e9),
            get_time=_address_of("clock_gettime"),
            sleep=_address_of("clock_nanosleep"),
        )
        self._function = _function()

    def run(self) -> Touches:
        """Touch the pages, and return when that is done or the prober is stopped.

        A second run makes the same touches once more, and finds what the first one wrote.
        """
        nanoseconds = np.empty(self._accesses.size, np.uint32)
        self._probe.nanoseconds = nanoseconds.ctypes.data
        self._probe.done = self._probe.mismatches = 0
        self._function(self._probe)
        return Touches(nanoseconds[: self._probe.done], self._probe.mismatches)

    def stop(self) -> None:
        """Make no more touches, now or ever. For any thread; a touch or a pause that has begun is ended first."""
        self._probe.stop = 1


def _function() -> Any:
    """``tc_probe``, which ctypes calls without the GIL."""
    return ctypes.CFUNCTYPE(None, ctypes.POINTER(Probe))(("tc_probe", library()))


def _address_of(name: str) -> int | None:
    return ctypes.cast(getattr(_libc, name), ctypes.c_void_p).value
