"""What each step takes: measured by `thermocline calibrate`, or written by hand for a machine that you don't have.

A file of costs is JSON. Times are nanoseconds. ``{"call": 900, "byte": 0.05, "spread": 0.2}`` is a step that takes
900 ns and 0.05 ns for every byte, and whose time varies by a factor of ``exp(0.2)`` either way two times in three.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from thermocline.errors import SpecError


@dataclass(frozen=True, slots=True)
class Cost:
    """What a step takes.

    Attributes
    ----------
    call : float
        Nanoseconds, whatever the size.
    byte : float
        Nanoseconds for each byte.
    spread : float
        Standard deviation of the logarithm of the time.
    """

    call: float
    byte: float = 0.0
    spread: float = 0.0

    def of(self, size: int = 0) -> float:
        """The median time for so many bytes, in nanoseconds."""
        return self.call + self.byte * size


@dataclass(frozen=True, slots=True)
class StoreCosts:
    """What a lower node takes.

    Attributes
    ----------
    read, write : Cost
        Of one page. In a worker's thread if the node is slow, in the pager's own if not.
    ratio : float
        Bytes of a page for each byte that it takes there: 1 for a file.
    """

    read: Cost
    write: Cost
    ratio: float = 1.0


@dataclass(frozen=True, slots=True)
class Costs:
    """What everything takes on one machine.

    Attributes
    ----------
    cores : int
        Processors that the program and the pager share.
    hit : Cost
        A touch of a page that is mapped.
    fault : Cost
        From a touch to a pager that sleeps having heard of it.
    wake : Cost
        From an answer to the thread's going on.
    think : Cost
        What a sleep of a thread takes longer than it was asked to.
    turn : Cost
        The pager looks for news.
    message : Cost
        The pager takes one fault from the queue and begins to answer it.
    effect : Cost
        A protocol is resumed, decides, and asks for its next effect.
    request : Cost
        From a request of the program to the pager's beginning it; and from the answer to the program's going on.
    submit : Cost
        The pager hands a job to a worker thread.
    worker : Cost
        From then to the worker's beginning it; the pager goes on meanwhile.
    install, zero, protect, unprotect, punch, read : Cost
        Of contiguous pages in one system call: UFFDIO_COPY, UFFDIO_ZEROPAGE, UFFDIO_WRITEPROTECT on and off,
        fallocate(2) with a hole, preadv(2) of the arena.
    poison : Cost
        UFFDIO_POISON of a page.
    stores : dict of str to StoreCosts
        By kind of node: ``"zstd"``, ``"lz4"``, ``"file"``; of ``"numa"``, ``write`` is what the kernel takes to move a
        page's frame down, and ``read`` to move it up.
    """

    cores: int
    hit: Cost
    fault: Cost
    wake: Cost
    think: Cost
    turn: Cost
    message: Cost
    effect: Cost
    request: Cost
    submit: Cost
    worker: Cost
    install: Cost
    zero: Cost
    protect: Cost
    unprotect: Cost
    punch: Cost
    read: Cost
    poison: Cost
    stores: Mapping[str, StoreCosts]

    def dumps(self) -> str:
        """As the text of a file."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def loads(cls, text: str) -> Costs:
        """The opposite of :meth:`dumps`.

        Raises
        ------
        SpecError
            It is not such a text: a cost is missing, unknown, negative or not a number.
        """
        try:
            found = json.loads(text)
        except ValueError as error:
            raise SpecError(f"the costs are not JSON: {error}; write them with: thermocline calibrate") from None
        _check_names("the costs", found, {field.name for field in fields(cls)})
        cores = found.pop("cores")
        if not isinstance(cores, int) or isinstance(cores, bool) or cores < 1:
            raise SpecError(f"cores is {cores!r}; write a whole number from 1 on")
        stores = found.pop("stores")
        if not isinstance(stores, dict):
            raise SpecError(f"stores are {stores!r}; write them in braces, by kind of node")
        if not stores:
            raise SpecError('stores is empty; write what "zstd", "lz4" or "file" takes')
        return cls(
            cores=cores,
            stores={name: _store(f"stores.{name}", value) for name, value in stores.items()},
            **{name: _cost(name, value) for name, value in found.items()},
        )

    @classmethod
    def load(cls, path: Path) -> Costs:
        """The costs in a file.

        Raises
        ------
        SpecError
            There is none, or it cannot be read, or it is wrong.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            raise SpecError(f"no costs can be read from {path} ({why}); write: thermocline calibrate {path}") from None
        try:
            return cls.loads(text)
        except SpecError as error:
            raise SpecError(f"{path}: {error}") from None


def _check_names(what: str, found: Any, wanted: set[str], optional: frozenset[str] = frozenset()) -> None:
    if not isinstance(found, dict):
        raise SpecError(f"{what} are {found!r}; write them in braces, by name")
    missing = sorted(wanted - optional - found.keys())
    if missing:
        raise SpecError(f"{what} lack {', '.join(missing)}")
    unknown = sorted(found.keys() - wanted)
    if unknown:
        raise SpecError(f"{what} have {', '.join(unknown)}, which nothing takes")


def _cost(name: str, found: Any) -> Cost:
    _check_names(f"the costs of {name}", found, {"call", "byte", "spread"}, frozenset({"byte", "spread"}))
    return Cost(**{part: _number(f"{name}.{part}", value) for part, value in found.items()})


def _store(name: str, found: Any) -> StoreCosts:
    _check_names(f"the costs of {name}", found, {"read", "write", "ratio"}, frozenset({"ratio"}))
    ratio = _number(f"{name}.ratio", found.get("ratio", 1.0))
    if ratio <= 0:
        raise SpecError(f"{name}.ratio is {ratio:g}; write a number above 0")
    return StoreCosts(_cost(f"{name}.read", found["read"]), _cost(f"{name}.write", found["write"]), ratio)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SpecError(f"{name} is {value!r}; write a number")
    try:
        number = float(value)
    except OverflowError:  # JSON's integers have no end
        number = math.inf
    if not math.isfinite(number):
        raise SpecError(f"{name} is {number:g}; write a number")
    if number < 0:
        raise SpecError(f"{name} is {number:g}; a cost cannot be negative")
    return number
