"""What a program holds: a tiered memory, and groups within it."""

from __future__ import annotations

import enum
import errno
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from thermocline.arrays import Arrays
from thermocline.budget import auto_spec
from thermocline.errors import SpecError, StoreError
from thermocline.live.guard import Holding, Lease
from thermocline.live.pins import TooManyPinsError
from thermocline.live.regions import Regions
from thermocline.live.ring import What
from thermocline.live.session import Session, Settings
from thermocline.protocol.group import GroupReclaim
from thermocline.protocol.migrate import DESIGNS
from thermocline.protocol.region import Advice
from thermocline.sizes import format_size, parse_size
from thermocline.spec import File, NodeSpec, check_page_size, parse_spec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from thermocline.protocol.histogram import Distribution
    from thermocline.shared import SharedArray

_ADVICE = {
    "normal": Advice.NORMAL,
    "sequential": Advice.SEQUENTIAL,
    "random": Advice.RANDOM,
    "cold": Advice.COLD,
    "willneed": Advice.WILLNEED,
}


class Clean(enum.Enum):
    """What reclaim does with clean pages of arrays made by ``from_file``."""

    DEMOTE = "demote"
    DISCARD = "discard"


class Memory(Arrays):
    """A tiered memory: arrays larger than DRAM, in ordinary ndarrays.

    Parameters
    ----------
    spec : str or sequence of NodeSpec
        The nodes, in the order of the demotion path: ``"dram=2GiB, zstd=4GiB, file:/scratch=200GiB"``. ``"auto"``: what
        this machine has (see :func:`thermocline.budget.auto_spec`).
    page_size : int or str
        Bytes; a power of two from 4 KiB to 2 MiB.
    design : str
        Which migration design demotion uses, see :data:`thermocline.protocol.migrate.DESIGNS`.
    clean : str
        ``"demote"`` or ``"discard"`` clean pages of arrays made by ``from_file`` (their file has them).
    readahead : int
        The largest readahead window, in pages; 0 turns readahead off.
    group_reclaim : str
        What reclaim for a group's limit does: ``"left"`` demotes, and counts what left; ``"demoted"`` and ``"never"``
        are what Linux did before (see :class:`thermocline.protocol.group.GroupReclaim`).
    parts : bool
        Whether a page that is read here and there may come up from compressed memory in parts (of 4 KiB, with pages of
        64 KiB), or always as a whole.
    fork : str
        What a forked child has of the arrays: ``"copy"``, as fork(2) has it: what either process writes the other does
        not see; ``"share"``: what one writes all see.
    commit : str
        How much may be allocated. ``"strict"``: what the nodes hold in the worst case; more is a MemoryError.
        ``"heuristic"``: what the kernel would grant a program without us, which may be more than the nodes hold. A
        program that then writes to more than they hold waits, and ends in SIGBUS, with a message.
    poll : bool
        Whether the pager looks for the next fault for up to 100 us before it sleeps, where faults are frequent and
        there is more than one processor: a miss is answered sooner, for processor time of another core.

    Notes
    -----
    Safe to use from many threads. Closing a memory whose arrays are still in use takes effect when the last of them is
    gone. A forked child has the arrays of its parent, and needs a memory of its own for all else.

    Examples
    --------
    >>> with Memory("dram=8MiB, zstd=32MiB") as memory:
    ...     a = memory.zeros((1000, 1000))
    ...     a += 1
    ...     total = a.sum()
    >>> float(total)
    1000000.0
    """

    def __init__(
        self,
        spec: str | Sequence[NodeSpec],
        *,
        page_size: int | str = "64KiB",
        design: str = "batch",
        clean: str = "demote",
        readahead: int = 64,
        group_reclaim: str = "left",
        parts: bool = True,
        fork: str = "copy",
        commit: str = "strict",
        poll: bool = True,
        report_fd: int = -1,
    ) -> None:
        size = check_page_size(page_size)
        nodes = auto_spec(size) if spec == "auto" else parse_spec(spec, size)
        if design not in DESIGNS:
            raise SpecError(f"unknown design {design!r}; write one of: {', '.join(sorted(DESIGNS))}")
        if clean not in {policy.value for policy in Clean}:
            raise SpecError(f"unknown clean policy {clean!r}; write demote or discard")
        if readahead < 0:
            raise SpecError(f"readahead is {readahead} pages; write 0 (off) or more")
        if group_reclaim not in {known.value for known in GroupReclaim}:
            raise SpecError(f"unknown group_reclaim {group_reclaim!r}; write left, demoted or never")
        if fork not in ("copy", "share"):
            raise SpecError(f"unknown fork {fork!r}; write copy or share")
        if commit not in ("strict", "heuristic"):
            raise SpecError(f"unknown commit {commit!r}; write strict or heuristic")
        settings = Settings(design, clean == Clean.DISCARD.value, readahead, group_reclaim, parts, fork, commit, poll)
        super().__init__(Regions(Session(nodes, size, settings, report_fd)), 0)
        self.page_size = size
        self._group_reclaim = GroupReclaim(group_reclaim)

    @property
    def nodes(self) -> tuple[NodeSpec, ...]:
        """The nodes of the demotion path, DRAM first."""
        return self._regions.session.nodes

    @property
    def serves_system_calls(self) -> bool:
        """Whether a system call may touch a page that is not in DRAM (``ndarray.tofile``, ``readinto``).

        True where the process may have every fault served (see userfaultfd(2)). Where it may have those of user mode
        only, True if the calls of the C library are wrapped, which ``thermocline run`` sees to: then those work, and
        direct system calls (io_uring, ``syscall(2)``) fail with EFAULT. False: all fail. Copy to an ordinary array
        first, or :meth:`pin` the array.
        """
        return self._regions.session.attachment.serves_system_calls

    def group(self, name: str, *, dram: int | str | None = None, memory: int | str | None = None) -> Group:
        """Make a group of arrays with limits of its own.

        Parameters
        ----------
        dram : int or str, optional
            The most bytes that its pages may take in DRAM.
        memory : int or str, optional
            The most bytes that they may take in RAM of any kind, compressed pages included.
        """
        limits = [0 if limit is None else parse_size(limit) for limit in (dram, memory)]
        smallest = 16 * self.page_size
        for limit in limits:
            if 0 < limit < smallest:
                raise SpecError(f"group {name!r}: a limit of {format_size(limit)} is below {format_size(smallest)}")
        if self._group_reclaim is GroupReclaim.NEVER and not any(isinstance(node, File) for node in self.nodes):
            raise SpecError(
                f'group {name!r}: with group_reclaim="never" its pages go past the tiers of memory, and there is '
                "nothing behind them; add a file: node, or leave group_reclaim out"
            )
        return Group(self._regions, self._regions.add_group(*limits), name)

    def stat(self) -> dict[str, Any]:
        """Counters: per node, of the arena, and in total (see :func:`thermocline.live.statistics.collect`)."""
        return self._regions.statistics()

    def times(self) -> dict[str, Distribution]:
        """Distributions of the times in :data:`thermocline.protocol.stopwatch.TIMED`: waits, and locks held."""
        return self._regions.times()

    def advise(self, array: NDArray[Any], advice: str) -> None:
        """Say how an array will be used (madvise(2)).

        Parameters
        ----------
        advice : str
            ``"cold"``: demote its pages now (returns when that is done). ``"willneed"``: begin to bring them up.
            ``"sequential"``, ``"random"``, ``"normal"``: how far to read ahead, for the whole block it lies in.
        """
        if advice not in _ADVICE:
            raise SpecError(f"unknown advice {advice!r}; write one of: {', '.join(_ADVICE)}")
        if not array.size:
            return
        address, size = self._span(array)
        if advice == "cold":
            self._regions.ask(What.COLD, *self._regions.pages_of(address, size))
        elif advice == "willneed":
            self._regions.ask(What.WILLNEED, *self._regions.pages_of(address, size))
        else:
            self._regions.set_advice(address, _ADVICE[advice])

    def pin(self, array: NDArray[Any]) -> Holding[NDArray[Any]]:
        """Hold an array in DRAM and unmoved, for direct I/O or a device that writes to it.

        Raises
        ------
        SpecError
            More than half of DRAM would be pinned.
        StoreError
            A page of it is lost: what its node returned is not what was written, or nothing.
        MemoryError
            There is no room for it in DRAM.
        """
        return Holding(partial(self._pin, array))

    def _pin(self, array: NDArray[Any]) -> tuple[NDArray[Any], tuple[Lease, ...]]:
        first, count = self._regions.pages_of(*self._span(array))
        most = self.nodes[0].capacity // self.page_size // 2
        try:
            lease = self._regions.pin(first, count, most)
        except TooManyPinsError:
            raise SpecError(
                f"pinning {format_size(count * self.page_size)} would pin more than half of DRAM "
                f"({format_size(most * self.page_size)}); pin less at a time"
            ) from None
        if lease is None:
            self._say_what_is_lost(first, count)
            raise MemoryError("the pages cannot be brought to DRAM to be pinned")
        return array, (lease,)

    def _say_what_is_lost(self, first: int, count: int) -> None:
        """StoreError if pages are lost."""
        lost = self._regions.lost(first, count)
        if lost:
            address = self._regions.session.address + lost[0] * self.page_size
            others = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            raise StoreError(
                errno.EIO,
                f"page {lost[0]} (page {lost[0] - first} of the {count} to be pinned, at {address:#x}){others} cannot "
                "be read back and is lost; stderr says from which node and why; make the array again",
            )

    def share(self, array: NDArray[Any]) -> SharedArray:
        """An array over the same pages that is pickled as a handle: the receiver works on these pages.

        It can be sent to any process of this user on this machine, a pool's or joblib's for example, and so can its
        views. Keep it until the receiver has it; the receiver may then keep it for as long as it runs.

        Raises
        ------
        SpecError
            The array is not in this memory.
        """
        from thermocline.shared import share

        return share(array, *self._regions.share(self._span(array)[0]))

    def _span(self, array: NDArray[Any]) -> tuple[int, int]:
        """Where an array's bytes are: lowest address, and bytes from there."""
        from numpy.lib.array_utils import byte_bounds

        low, high = byte_bounds(array)
        session = self._regions.session
        if not session.address <= low < high <= session.address + session.size:
            raise SpecError("this array is not in this memory; make it with zeros(), array(), from_file() or numpy()")
        return low, high - low

    def close(self) -> None:
        """Give everything back. Arrays that are still in use keep what they need until they are gone."""
        self._regions.close_when_unused()

    def __enter__(self) -> Memory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Group(Arrays):
    """Arrays that share a limit (a memory cgroup). Made by :meth:`Memory.group`."""

    def __init__(self, regions: Regions, index: int, name: str) -> None:
        super().__init__(regions, index)
        self.name = name
