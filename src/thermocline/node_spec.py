"""The typed objects of a spec: one class for each kind of node."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, SupportsIndex, get_args

from thermocline.errors import SpecError
from thermocline.sizes import parse_seconds, parse_size
from thermocline.spelling import near

Codec = Literal["lz4", "zstd"]
Incompressible = Literal["demote", "store"]


def choice(what: str, value: str, choices: Sequence[str]) -> str:
    """`value`, if it is one of `choices`.

    Raises
    ------
    SpecError
        It is none; the message names the nearest.
    """
    if value in choices:
        return value
    meant = near(str(value), choices) or [" or ".join(choices)]
    raise SpecError(f'the {what} "{value}" is unknown; write {meant[0]}')


class _Node:
    """What is so of a node, unless its class says otherwise."""

    __slots__ = ()

    @property
    def is_mapped(self) -> bool:
        """Whether the program addresses its pages directly."""
        return False

    @property
    def in_memory(self) -> bool:
        """Whether its bytes are RAM."""
        return True

    @property
    def reads_parts(self) -> bool:
        """Whether a part of a page is had for much less than the whole."""
        return False

    @property
    def keeps_incompressible(self) -> bool:
        """Whether a page that does not get smaller stays."""
        return True


@dataclass(frozen=True, slots=True, init=False)
class Dram(_Node):
    """The DRAM node: the arena that arrays live in.

    Parameters
    ----------
    capacity
        The budget for resident pages: bytes, or text such as ``"2GiB"``. Held in bytes.
    node
        The machine's memory node that it is taken from; None: any that the spec does not name as ``numa:N``.
    """

    capacity: int
    node: int | None

    def __init__(self, capacity: str | SupportsIndex, node: int | None = None) -> None:
        object.__setattr__(self, "capacity", parse_size(capacity))
        object.__setattr__(self, "node", node)

    @property
    def name(self) -> str:
        """``"dram"``: the node's name in counters."""
        return "dram"

    @property
    def is_mapped(self) -> bool:
        """Whether the program addresses its pages directly."""
        return True


@dataclass(frozen=True, slots=True, init=False)
class Numa(_Node):
    """A node of slow memory that the machine has beside its DRAM, and the program addresses as well: CXL, for example.

    Parameters
    ----------
    node
        Its number, as the kernel counts memory nodes (``/sys/devices/system/node``).
    capacity
        The budget for pages there: bytes or text.
    """

    node: int
    capacity: int

    def __init__(self, node: int, capacity: str | SupportsIndex) -> None:
        object.__setattr__(self, "node", node)
        object.__setattr__(self, "capacity", parse_size(capacity))

    @property
    def name(self) -> str:
        """``"numa:"`` and the number, such as ``"numa:1"``."""
        return f"numa:{self.node}"

    @property
    def is_mapped(self) -> bool:
        """Whether the program addresses its pages directly."""
        return True


@dataclass(frozen=True, slots=True, init=False)
class Compressed(_Node):
    """A node of compressed memory.

    Parameters
    ----------
    capacity
        How much compressed data it may hold, its overhead included: bytes or text.
    codec
        ``"zstd"`` (smaller) or ``"lz4"`` (faster).
    incompressible
        What becomes of a page that does not get smaller: ``"demote"`` sends it on to the next node,
        ``"store"`` keeps it raw.
    """

    capacity: int
    codec: Codec
    incompressible: Incompressible

    def __init__(
        self, capacity: str | SupportsIndex, codec: Codec = "zstd", incompressible: Incompressible = "demote"
    ) -> None:
        object.__setattr__(self, "capacity", parse_size(capacity))
        object.__setattr__(self, "codec", choice("codec", codec, get_args(Codec)))
        object.__setattr__(
            self,
            "incompressible",
            choice("value of incompressible", incompressible, get_args(Incompressible)),
        )

    @property
    def name(self) -> str:
        """``"zstd"`` or ``"lz4"``."""
        return self.codec

    @property
    def reads_parts(self) -> bool:
        """Whether a part of a page is had for much less than the whole."""
        return True

    @property
    def keeps_incompressible(self) -> bool:
        """Whether a page that does not get smaller stays."""
        return self.incompressible == "store"


@dataclass(frozen=True, slots=True, init=False)
class File(_Node):
    """A node in an unlinked file on disk.

    Parameters
    ----------
    directory
        An absolute path of a directory in which files can be made.
    capacity
        The quota: bytes or text.
    latency
        By how much every read and write of a page is held up: seconds, or text such as ``"2ms"``. Shows how a program
        would fare with a slower device than there is.
    encrypt
        Whether pages are encrypted, under a key that is never on disk: a bool, or ``"on"`` or ``"off"``. Either way a
        page that comes back changed is an error and no page.
    """

    directory: str
    capacity: int
    latency: float
    encrypt: bool

    def __init__(
        self,
        directory: str | os.PathLike[str],
        capacity: str | SupportsIndex,
        latency: str | float = 0.0,
        encrypt: str | bool = True,
    ) -> None:
        object.__setattr__(self, "directory", os.fspath(directory))
        object.__setattr__(self, "capacity", parse_size(capacity))
        object.__setattr__(self, "latency", parse_seconds(latency))
        if isinstance(encrypt, str):
            encrypt = choice("value of encrypt", encrypt, ("on", "off")) == "on"
        object.__setattr__(self, "encrypt", bool(encrypt))

    @property
    def name(self) -> str:
        """``"file:"`` and the directory, such as ``"file:/scratch"``."""
        return f"file:{self.directory}"

    @property
    def in_memory(self) -> bool:
        """Whether its bytes are RAM."""
        return False


NodeSpec = Dram | Numa | Compressed | File
