"""Digests: when are two machines in the same state?

A generator cannot be copied, but it can be looked at. Where a protocol is, is the position of each generator in its
chain of ``yield from``, the values of its local names, and what it keeps on its stack, such as the iterator of a
``for`` loop; the garbage collector knows them all (:func:`gc.get_referents`). Together with the shared state this
decides what a machine will do, so a state that was seen before need not be searched again.

Versions are told apart only by whether they are the newest and whether they are zeros: that is all that any step
depends on. Ages of evicted pages are distances, cut at the length that no list can exceed.
"""

from __future__ import annotations

import gc
import marshal
from collections.abc import Callable, Iterable
from enum import Enum
from hashlib import blake2b
from types import BuiltinFunctionType, CellType, CodeType, FrameType, FunctionType, GeneratorType, MethodType
from typing import Any

from thermocline.check.layout import Place
from thermocline.check.machine import Machine
from thermocline.check.private import PrivateMapping
from thermocline.check.program import Program
from thermocline.check.store import Buffer, Store
from thermocline.check.task import Task
from thermocline.check.world import World
from thermocline.protocol.child import Child
from thermocline.protocol.effects import Effect
from thermocline.protocol.first_touch import FirstTouch
from thermocline.protocol.group import Group
from thermocline.protocol.lru import LruList, Lruvec
from thermocline.protocol.mm import Mm, Policy
from thermocline.protocol.node import Node
from thermocline.protocol.promote import NumaScan
from thermocline.protocol.region import Region
from thermocline.protocol.scan_control import ScanControl

#: Marshalled without references: equal states must give equal bytes, whichever objects they share.
_MARSHAL_VERSION = 2


def digest(value: Any) -> bytes:
    """16 bytes that stand for a value made of tuples, numbers and strings."""
    return blake2b(marshal.dumps(value, _MARSHAL_VERSION), digest_size=16).digest()


#: What a generator refers to first: its code and its names.
_OWN = 3


class Describer:
    """Describes the states of one machine as plain tuples."""

    def __init__(self, machine: Machine, program: Program) -> None:
        self._machine = machine
        self._program = program
        self._lists: dict[int, tuple[int, ...]] = {}

    # -- what survives a pager ----------------------------------------------------------------------------------------

    def surviving(self) -> tuple[object, ...]:
        """The page table, arena, stores and threads."""
        machine = self._machine
        arena = machine.arena
        return (
            tuple(machine.unwatched("entry")),
            tuple(machine.unwatched("pins")),
            tuple(machine.unwatched("given")),
            tuple(machine.unwatched("lazyfree")),
            tuple(machine.lazyfree_blocks.unwatched),
            tuple(region.drained for region in machine.regions.values()),
            machine.forks,
            tuple(self._child(child) for child in machine.family.values()),
            tuple((page, self._versions(page, versions)) for page, versions in sorted(machine.saved.items())),
            tuple(
                (
                    self._versions(page, arena.versions[page]),
                    tuple(arena.protected[page]),
                    tuple(arena.poisoned[page]),
                    tuple(arena.nodes[page]),
                    tuple(arena.undefined[page]),
                    arena.hinted[page],
                )
                for page in range(machine.layout.pages)
            ),
            tuple(
                tuple(sorted((slot, *self._content(content)) for slot, content in store.slots.items()))
                for store in machine.stores.values()
            ),
            tuple(
                (
                    thread.position,
                    thread.part,
                    tuple(thread.current or ()),
                    thread.waiting,
                    thread.killed,
                    thread.born,
                    thread.forks,
                )
                for thread in self._program.threads.values()
            ),
            self._program.pager_listens,
            tuple(sorted(machine.dead_devices)),
            tuple(sorted(machine.failed_nodes)),
        )

    def _versions(self, page: int, versions: Iterable[int | None]) -> tuple[int, ...]:
        truth = self._machine.arena.truth[page]
        described = [
            -1 if version is None else (version == now) + 2 * (not version) + 4 * (not now)
            for version, now in zip(versions, truth, strict=False)
        ]
        bit = 8
        for child in self._machine.family.values():
            if child.truth is not None:
                for part, (version, now) in enumerate(zip(versions, child.truth[page], strict=False)):
                    described[part] |= bit * (version == now)
            bit *= 2
        return tuple(described)

    def _child(self, child: PrivateMapping) -> tuple[object, ...]:
        pages = range(self._machine.layout.pages)
        truth = child.truth
        return (
            child.number,
            child.fork,
            child.inherits,
            child.expected,
            child.condemned,
            child.lives,
            tuple(self._versions(page, child.own[page]) for page in pages),
            tuple(tuple(child.mapped[page]) for page in pages),
            tuple(tuple(child.zeros[page]) for page in pages),
            tuple(child.seen),
            tuple(tuple(child.poisoned[page]) for page in pages),
            () if truth is None else tuple(self._versions(page, truth[page]) for page in pages),
        )

    def _content(self, content: Any) -> tuple[object, ...]:
        if content is None:
            return (-1, 0, ())
        return content.page, content.size, self._versions(content.page, content.versions)

    # -- what does not ------------------------------------------------------------------------------------------------

    def state(self) -> tuple[object, ...]:
        """Everything that decides what the machine can do from here."""
        machine = self._machine
        mm, touched = machine.mm, machine.first_touch
        return (
            self.surviving(),
            tuple((node.bytes_used, node.failed, tuple(node.shadows.unwatched)) for node in machine.nodes),
            tuple((group.bytes_memory, tuple(group.bytes_used)) for group in machine.groups if group.limited),
            tuple(
                (tuple(lruvec.active), tuple(lruvec.inactive))
                for node in machine.nodes
                for lruvec in mm.lruvecs(node.index)
            ),
            tuple(machine.unwatched("referenced")),
            tuple(machine.unwatched("present")),
            tuple(machine.unwatched("dirty")),
            tuple(machine.unwatched("transit")),
            tuple(self._distance(page) for page in range(machine.layout.pages)),
            tuple(sorted((page, task.name) for page, task in machine.owners.items())),
            tuple(sorted((page, tuple(task.name for task in queue)) for page, queue in machine.waiters.items())),
            tuple(sorted(machine.kswapd_wanted)),
            tuple((task.name, group) for task, group in machine.throttled),
            machine.fruitless,
            () if touched is None else (touched.pages_held, touched.pages_entering),
            tuple((child.number, child.expected) for child in machine.mm.children.values()),
            tuple(machine.refusals.values()),
            tuple(sorted(self._task(task) for task in machine.tasks.values())),
        )

    def _distance(self, page: int) -> int:
        """The refault distance of an evicted page, as far as it can matter; -1: never evicted."""
        machine = self._machine
        evicted = machine.unwatched("evicted_at")[page]
        if not evicted:
            return -1
        age = machine.mm.lruvec(0, machine.mm.group_of(page).index).age
        return min((age - (evicted - 1)) % 0xFFFFFFFF, machine.layout.pages + 1)

    def _task(self, task: Task) -> tuple[object, ...]:
        if task.memo is None:
            task.memo = digest(self.describe(task.protocol))
        # A job holds versions, which are described by what the program has written until now: it has no memo.
        job = self.describe(task.job) if task.job is not None else ()
        # Whether its effect was begun: to be about to wait, and to have been woken, are two things.
        return (
            task.name,
            task.waits_for,
            task.memo,
            digest((job, self.describe(task.effect), self.describe(task.value))),
        )

    # -- any object ---------------------------------------------------------------------------------------------------

    def describe(self, value: Any) -> Any:
        """A value as tuples; shared objects by name, since what they hold is described elsewhere.

        Raises
        ------
        TypeError
            It is something that this module was not taught to describe.
        """
        kind = type(value)
        if kind is int or kind is str or kind is bool or value is None:
            return value
        describer = _DESCRIBERS.get(kind)
        if describer is None:
            describer = _DESCRIBERS[kind] = _find(kind)
        return describer(self, value)

    def generator(self, value: GeneratorType[Any, Any, Any]) -> tuple[object, ...]:
        """A suspended generator, and those it delegates to."""
        frame = value.gi_frame
        if frame is None:
            return ("ended",)
        named = frame.f_locals
        return (
            frame.f_code.co_qualname,
            frame.f_lasti,
            tuple(sorted(named)),
            # In Python 3.11 and 3.12 the dictionary just made is among them.
            tuple(self.describe(held) for held in gc.get_referents(value)[_OWN:] if held is not named),
        )

    def sequence(self, value: Iterable[Any]) -> tuple[object, ...]:
        """A tuple or a list."""
        return tuple(self.describe(item) for item in value)

    def cell(self, value: CellType) -> Any:
        """A name that an inner function shares; it may have no value yet."""
        try:
            held = value.cell_contents
        except ValueError:
            return ("unbound",)
        return self.describe(held)

    def lists_of(self, value: Any) -> tuple[object, ...]:
        """An lruvec, by its lists."""
        return ("lruvec", self.describe(value.active), self.describe(value.inactive))


Description = Callable[[Describer, Any], Any]

_DESCRIBERS: dict[type, Description] = {}

#: Types and how they are described; a subclass as its first base class in the list.
_RULES: tuple[tuple[type | tuple[type, ...], Description], ...] = (
    (GeneratorType, Describer.generator),
    ((CodeType, FrameType), lambda _, value: ""),
    ((FunctionType, BuiltinFunctionType, MethodType), lambda _, value: value.__qualname__),
    (CellType, Describer.cell),
    (Enum, lambda _, value: str(value)),
    (int, lambda _, value: int(value)),
    ((list, tuple), Describer.sequence),
    (range, lambda _, value: (value.start, value.stop, value.step)),
    (dict, lambda self, value: tuple((self.describe(key), self.describe(held)) for key, held in value.items())),
    ((set, frozenset), lambda self, value: tuple(sorted(self.describe(item) for item in value))),
    (Effect, lambda self, value: (type(value).__name__, *(self.describe(getattr(value, n)) for n in value.__slots__))),
    (Child, lambda _, value: ("child", value.number)),
    ((Node, Group, Region), lambda _, value: (type(value).__name__, value.index)),
    (
        ScanControl,
        lambda self, value: (value.node.index, value.group, value.cause.value, value.for_group),
    ),
    (Lruvec, Describer.lists_of),
    (NumaScan, lambda self, value: ("scan", value.node.index, self.describe(value._last))),
    (LruList, lambda _, value: ("list", value._number)),
    (Buffer, lambda self, value: (value.page, self._versions(value.page, value.versions))),
    ((Mm, Policy, World, FirstTouch, Task, Store, Place, type), lambda _, value: type(value).__name__),
)


def _find(kind: type) -> Description:
    for base, description in _RULES:
        if issubclass(kind, base):
            return description
    if hasattr(kind, "__next__"):
        # An iterator on a generator's stack: __reduce__ says over what, and how far it has got.
        return lambda self, value: (kind.__name__, self.sequence(value.__reduce__()[1:]))
    raise TypeError(f"a protocol holds a {kind.__qualname__}: teach thermocline.check.digest to describe it")
