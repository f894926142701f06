"""How much is done: of everything that is measured, the sizes, and what is left out of the quick suite."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from contents import BLOCK
from workloads import ALGORITHMS, WORKLOADS

MIB, GIB = 1 << 20, 1 << 30


@dataclass(frozen=True)
class Plan:
    """Sizes in bytes, except where it says otherwise.

    Parameters
    ----------
    name
        What the user wrote to have it.
    rounds
        How often each side has its turn.
    size, dram
        What is managed, and the DRAM that it is given.
    count
        Words that each of the scattered workloads looks up.
    workloads
        By kind of contents, or by the algorithm that makes its own.
    footprint
        What a whole program is asked to take.
    pages
        How many the floor is measured over.
    resident
        What is in DRAM where access to that is measured.
    arrays
        How many arrays of 256 KiB are put into mappings.
    sparse
        What is managed beside 1 GiB, and which share of its pages is touched.
    directory
        Where files are.
    extras
        Whether what has no goal is measured, too: a file that is kept in the cache, more cases of the floor.
    """

    name: str
    rounds: int
    size: int
    dram: int
    count: int
    workloads: dict[str, tuple[str, ...]]
    footprint: int
    pages: int
    resident: int
    arrays: int
    sparse: tuple[int, float]
    directory: Path
    extras: bool = True

    def of(self, kind: str) -> Plan:
        """What is done for one kind of contents: algorithms go through theirs so often that they get a quarter."""
        if kind not in ALGORITHMS:
            return self
        return self._resized(1 / 4)

    def _resized(self, by: float) -> Plan:
        """With arrays of another size, in whole blocks and pages, and DRAM of 2 MiB at the least."""
        return replace(
            self,
            size=max(int(self.size * by) // (8 * BLOCK), 1) * 8 * BLOCK,
            dram=max(int(self.dram * by) // 65536, 32) * 65536,
        )

    def scaled(self, by: float) -> Plan:
        """The same with less, for a try."""

        def less(number: int) -> int:
            return max(int(number * by), 1)

        return replace(
            self._resized(by),
            count=less(self.count),
            footprint=max(less(self.footprint), 8 * MIB),
            pages=max(less(self.pages), 64),
            resident=max(less(self.resident) // MIB, 1) * MIB,
            arrays=max(less(self.arrays), 16),
            sparse=(max(less(self.sparse[0]), 2 * GIB), self.sparse[1]),
        )


_ONE = tuple(name for name in WORKLOADS if "2 threads" not in name)
_SHORT = (
    *(name for name in _ONE if name not in ALGORITHMS),
    "scan, 2 threads",
    "uniform reads, 2 threads",
)


def quick(directory: Path, rounds: int) -> Plan:
    """Five minutes or so."""
    workloads = {"int64": _SHORT}
    return Plan("make bench-quick", rounds, 256 * MIB, 64 * MIB, 4_000, workloads, 32 * MIB, 512, 64 * MIB, 256,
                (64 * GIB, 1 / 64), directory, extras=False)  # fmt: skip


def full(directory: Path, rounds: int) -> Plan:
    """Everything, in an hour and more. Of all contents, the integers are the ones for which all is done."""
    two = tuple(name for name in WORKLOADS if name not in ALGORITHMS)
    one = tuple(name for name in two if "2 threads" not in name)
    workloads = {"int64": two, "float32": one, "text": one, "random": one, **{name: (name,) for name in ALGORITHMS}}
    return Plan("make bench", rounds, 2 * GIB, 512 * MIB, 10_000, workloads, GIB // 4, 4096, 256 * MIB, 2048,
                (64 * GIB, 1 / 8), directory)  # fmt: skip


#: What the processes of the suite run with: one thread for each library, and small pages for NumPy's own arrays:
#: huge ones make swap slower.
ENVIRONMENT = {
    **os.environ,
    **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "BLIS")},
    "NUMPY_MADVISE_HUGEPAGE": "0",
}
#: NumPy as it is: what is measured against plain NumPy must not make that slower.
HUGE = {"NUMPY_MADVISE_HUGEPAGE": "1"}
