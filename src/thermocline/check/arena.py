"""The arena as the kernel has it: which base pages are present, write-protected, poisoned, and what they hold.

Beside it stands the truth: what the program wrote last. No protocol sees that; every read is compared with it.
"""

from __future__ import annotations

from thermocline.check.store import PARTS

#: Versions count up in steps of this many; the rest says of which base page they are.
_VERSIONS = 1000
#: A child's versions are told from the program's by this in that rest, and by the child's number.
_CHILDS, _OF_EACH = 500, 50


def next_version(version: int, page: int, part: int, child: int = 0) -> int:
    """The version that a write makes of another, by the program or a child: nothing else ever had it."""
    count = max(version, 0) // _VERSIONS + 1
    whose = _CHILDS + child * _OF_EACH if child else 0
    return count * _VERSIONS + whose + page * PARTS + part


def describe_version(version: int | None) -> str:
    """A version, in words."""
    if version is None:
        return "nothing"
    if version <= 0:
        return "the file's bytes" if version else "zeros"
    count, cell = divmod(version, _VERSIONS)
    child, cell = divmod(cell - _CHILDS, _OF_EACH) if cell >= _CHILDS else (0, cell)
    page, part = divmod(cell, PARTS)
    return f"write {count} of part {part} of page {page}{f' by child {child}' if child else ''}"


class Arena:
    """Base pages of the program's mapping.

    Attributes
    ----------
    versions : list of list of (int or None)
        By page and part: the version it holds (0: zeros), None where nothing is present.
    protected, poisoned : list of list of bool
        By page and part.
    truth : list of list of int
        By page and part: the version that the program wrote last.
    undefined : list of list of bool
        By page and part: whether the program has freed it since, and does not ask what it holds.
    nodes : list of list of int
        By page and part: the mapped node that its frame is on, if it is present.
    hinted : list of bool
        By page: whether it was unmapped to sample its use. The next touch maps it again; the pager gets no message.
    """

    def __init__(self, pages: int) -> None:
        self.versions: list[list[int | None]] = [[None] * PARTS for _ in range(pages)]
        self.protected = [[False] * PARTS for _ in range(pages)]
        self.poisoned = [[False] * PARTS for _ in range(pages)]
        self.truth = [[0] * PARTS for _ in range(pages)]
        self.undefined = [[False] * PARTS for _ in range(pages)]
        #: By page and part: the newest version that there ever was, which the truth is not where it was cleared.
        self._last = [[0] * PARTS for _ in range(pages)]
        self.nodes = [[0] * PARTS for _ in range(pages)]
        self.hinted = [False] * pages

    def write(self, page: int, part: int) -> None:
        """Let the program write a version that no other base page ever had."""
        written = next_version(max(self.truth[page][part], self._last[page][part]), page, part)
        self.versions[page][part] = self.truth[page][part] = self._last[page][part] = written
        self.undefined[page][part] = False

    def discard(self, page: int) -> None:
        """Let the program free a page: it holds anything until it is written, or known to be zeros."""
        self.undefined[page] = [True] * PARTS

    def define_zeros(self, page: int) -> None:
        """Let the program rely on zeros."""
        self.truth[page] = [0] * PARTS
        self.undefined[page] = [False] * PARTS

    def present(self, page: int) -> bool:
        """Whether any base page of it is in memory (lseek(2), SEEK_DATA)."""
        return any(version is not None for version in self.versions[page])

    def resident_parts(self, node: int) -> int:
        """Base pages on a mapped node (numa_maps)."""
        return sum(
            version is not None and at == node
            for versions, nodes in zip(self.versions, self.nodes, strict=True)
            for version, at in zip(versions, nodes, strict=True)
        )

    def whereabouts(self, page: int) -> set[int]:
        """The mapped nodes that a page's frame is on (move_pages(2), status)."""
        return {
            node for version, node in zip(self.versions[page], self.nodes[page], strict=True) if version is not None
        }

    def install(self, page: int, part: int, version: int, *, protect: bool) -> None:
        """UFFDIO_COPY of one base page. One that is there already holds the newer bytes, and stays as it is."""
        if self.versions[page][part] is None:
            self.versions[page][part] = version
            self.protected[page][part] = protect
            self.nodes[page][part] = 0
            self.poisoned[page][part] = False

    def protect(self, page: int, protected: bool) -> None:
        """UFFDIO_WRITEPROTECT of a whole page."""
        self.protected[page] = [protected] * PARTS

    def punch(self, page: int) -> None:
        """Free the frame and unmap it everywhere."""
        self.versions[page] = [None] * PARTS
        self.protected[page] = [False] * PARTS
        self.hinted[page] = False

    def punch_part(self, page: int, part: int) -> None:
        """The same of one base page."""
        self.versions[page][part] = None
        self.protected[page][part] = False
        self.hinted[page] = False

    def poison(self, page: int, *, keep_protected: bool) -> None:
        """UFFDIO_POISON: only where nothing is present. What is present may be written then, as with `live`."""
        for part in range(PARTS):
            if self.versions[page][part] is None:
                self.poisoned[page][part] = True
            elif not keep_protected:
                self.protected[page][part] = False

    def allows(self, page: int, part: int, write: bool) -> bool:
        """Whether an access succeeds without a fault."""
        return self.versions[page][part] is not None and not (write and self.protected[page][part])
