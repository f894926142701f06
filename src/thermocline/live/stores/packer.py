"""A packer: what packs pages for one thread, under the filter and the codec that pay for their like."""

from __future__ import annotations

from time import perf_counter_ns

from thermocline.live.buffer import Buffer
from thermocline.live.stores.blosc import BLOCK, OVERHEAD, Codec
from thermocline.live.stores.filters import FILTERS, Choice, Search

MARGIN = 64  # a filter must save one part in so many to replace a faster one
#: ... and a denser codec: one that is several times slower to pack, and with most contents to unpack.
CODEC_MARGIN = 8
#: How often a page is unpacked to see how long that takes.
_TRIALS = 3
#: The codecs of a node, the quickest first. Each is there for small blocks and, behind those, for the page as one.
_CODECS = {"lz4": ("lz4",), "zstd": ("lz4", "zstd")}


class Attempt:
    """A way to pack one page: after each, the next is told, until the best is found.

    Attributes
    ----------
    which : int
        The codec and the filter to try, as a :data:`~thermocline.live.stores.filters.Search` has them.
    first : int
        The one that was tried first.
    is_over : bool
    """

    __slots__ = ("_search", "first", "is_over", "which")

    def __init__(self, search: Search) -> None:
        self._search = search
        self.which = self.first = next(search)
        self.is_over = False

    def give_up(self) -> None:
        """The page is not packed: nothing is learnt from it."""
        self._search.close()
        self.is_over = True

    def took(self, length: int) -> None:
        """The page packed into so many bytes; 0: not into less than before."""
        try:
            self.which = self._search.send(length or None)
        except StopIteration:
            self.is_over = True


class Packer:
    """Packs pages, and gives up those that do not shrink below 15/16.

    A node of zstd has lz4 for those pages of which zstd would save less than an eighth (most numbers, once shuffled),
    unless lz4 is clearly slower to unpack. Of some numbers it is, and only a watch can tell: whenever both are tried.
    Pages are packed in small blocks, of which a part is had for less, unless packed as one they are an eighth smaller.

    Parameters
    ----------
    codec : str
        ``"lz4"`` or ``"zstd"``.
    page_size : int
        Bytes.

    Attributes
    ----------
    most : int
        Bytes that a packed page has: with more it does not pay.
    """

    def __init__(self, codec: str, page_size: int) -> None:
        self.most = page_size // 16 * 15
        blocks = sorted({min(BLOCK, page_size), page_size})
        self._codecs = [Codec(name, page_size, block) for block in blocks for name in _CODECS[codec]]
        #: How many there are of each size of a block.
        self._alike = len(_CODECS[codec])
        self._choice = Choice(page_size, len(self._codecs))
        self._packed = Buffer(page_size + OVERHEAD)
        self._spare = Buffer(page_size + OVERHEAD)
        self._scratch = Buffer(page_size)

    def pack(self, source: int, hint: int) -> memoryview:
        """Pack the page at an address -> the bytes, until the next call; none of them when it does not pay."""
        return self._pack(source, Attempt(self._choice.search(hint)), 0, 0)

    def attempt(self, hint: int) -> Attempt | None:
        """How a page with this hint is to be packed first; None: an attempt that is not over has to tell."""
        return None if self._choice.meets(hint) else Attempt(self._choice.search(hint))

    def context(self, attempt: Attempt) -> int:
        """What native code packs with for an attempt, into ``most`` bytes at most."""
        codec, number = divmod(attempt.which, len(FILTERS))
        return self._codecs[codec].context(number)

    def go_on(self, source: int, attempt: Attempt, packed: memoryview) -> memoryview:
        """:meth:`pack` a page that the first attempt has packed into these bytes, and that has others left."""
        best = len(packed)
        self._packed.view[:best] = packed
        return self._pack(source, attempt, best, attempt.first // len(FILTERS) if best else 0)

    def _pack(self, source: int, attempt: Attempt, best: int, leader: int) -> memoryview:
        while not attempt.is_over:
            codec, number = divmod(attempt.which, len(FILTERS))
            # What cannot win need not be finished: the codec gives up at the limit.
            margin = 0 if codec > leader else best // MARGIN
            limit = best - margin if best else self.most
            length = self._codecs[codec].pack(number, source, self._spare.address, limit)
            if length and self._wins(codec, length, leader, best):
                best, leader = length, codec
                self._packed, self._spare = self._spare, self._packed
            else:
                length = 0
            attempt.took(length)
        return self._packed.view[:best]

    def _wins(self, codec: int, length: int, leader: int, best: int) -> bool:
        """Whether what was just packed is better than the best until now: for another codec it must be worth it."""
        if not best or codec <= leader or length <= best - best // CODEC_MARGIN:
            return True
        alike = codec // self._alike == leader // self._alike
        return alike and 4 * self._time(self._spare, length) <= 3 * self._time(self._packed, best)

    def _time(self, packed: Buffer, length: int) -> int:
        """Nanoseconds that a packed page takes to be unpacked."""
        times = []
        for _ in range(_TRIALS):
            begun = perf_counter_ns()
            self.unpack(packed.address, length, self._scratch.address)
            times.append(perf_counter_ns() - begun)
        return min(times)

    def unpack(self, source: int, length: int, target: int) -> None:
        """See :meth:`~thermocline.live.stores.blosc.Codec.unpack`: a packed page says which codec it is of."""
        self._codecs[0].unpack(source, length, target)

    def unpack_part(self, source: int, length: int, page: int, begin: int, size: int) -> None:
        """See :meth:`~thermocline.live.stores.blosc.Codec.unpack_part`."""
        self._codecs[0].unpack_part(source, length, page, begin, size)

    def close(self) -> None:
        """Free the codecs."""
        for codec in self._codecs:
            codec.close()
        self._packed.close()
        self._spare.close()
        self._scratch.close()
