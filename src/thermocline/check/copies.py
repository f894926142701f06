"""What the effects of :mod:`thermocline.protocol.cow` do: children's mappings, and the saved copies.

What takes several system calls, or one that a kill may cut short, takes a step for each part of the page.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from typing import Any, Protocol

from thermocline.check.private import PrivateMapping
from thermocline.check.store import PARTS, Buffer
from thermocline.check.task import Task
from thermocline.check.violation import Violation
from thermocline.check.world import World
from thermocline.protocol import effects

Job = Generator[None, None, Any]


class Wake(Protocol):
    """Makes those fault again that wait for parts of a page: in one mapping (0: the program's), or in all."""

    def __call__(self, page: int, mapping: int | None = None, parts: Collection[int] = range(PARTS)) -> None: ...


class Copies(World):
    """Performs effects on the mappings of forked children.

    Attributes
    ----------
    wake_threads : Wake
        Called with what is to fault again.
    abandon_child : callable
        Called with the number of a child that is to be ended.
    """

    wake_threads: Wake
    abandon_child: Callable[[int], None]

    def copy_handlers(self) -> dict[type[effects.Effect], Callable[[Any, Task], Any]]:
        """By kind of effect, what performs it."""
        return {
            effects.ProtectPresent: self._protect_present,
            effects.CopyToChildren: self._copy_to_children,
            effects.SaveCopy: self._save_copy,
            effects.Withdraw: self._withdraw,
            effects.RestoreCopy: self._restore_copy,
            effects.CopySaved: self._copy_saved,
            effects.DropCopy: self._drop_copy,
            effects.SavedPages: self._saved_pages,
            effects.Give: self._give,
            effects.Abandon: self._abandon,
            effects.MapFrame: self._map_frame,
            effects.GiveZeros: self._give_zeros,
            effects.Deny: self._deny,
        }

    def is_owed(self, page: int) -> bool:
        """Whether a page has to be write-protected for a child's sake."""
        return bool(self.mm.owed(page))

    def lose_frame(self, page: int, part: int | None = None) -> None:
        """The frame of a page, or of a part, is gone from every mapping."""
        for child in self.family.values():
            for each in range(PARTS) if part is None else (part,):
                child.unmap(page, each)

    def _living(self, number: int) -> PrivateMapping | None:
        child = self.family.get(number)
        return child if child is not None and child.lives else None

    def _protect_present(self, _: effects.ProtectPresent, __: Task) -> None:
        self.footprint.write_all()
        for page in range(self.layout.pages):
            if self.arena.present(page):
                self.arena.protect(page, True)
        for child in self.family.values():
            if child.truth is None and not child.inherits:
                child.see(self.arena.truth)

    def _copy_to_children(self, effect: effects.CopyToChildren, _: Task) -> Job:
        numbers = [child.number for child in self.mm.owed(effect.page) if not child.expected]
        mapped: list[int] = []
        for part in range(PARTS):
            if part:
                yield
            self._give_part(effect.page, part, numbers, mapped)
        self.mm.vmstat.add("cow_copies", len(numbers) - len(mapped))
        for number in numbers:
            self.wake_threads(effect.page, number)
        return mapped

    def _give_part(self, page: int, part: int, numbers: list[int], mapped: list[int]) -> None:
        self.footprint.write("arena", page)
        saved = self.saved.get(page)
        version = self.arena.versions[page][part] if saved is None else saved[part]
        if version is None:
            raise Violation("lost", f"part {part} of page {page} is to be given to children, and is nowhere")
        zeros = not any(self.arena.versions[page] if saved is None else saved)
        for number in numbers:
            child = self._living(number)
            if child is not None and not child.install(page, part, version, zeros=zeros) and number not in mapped:
                mapped.append(number)

    def _save_copy(self, effect: effects.SaveCopy, task: Task) -> Job:
        buffer = Buffer(effect.page)
        for part in range(PARTS):
            if part:
                yield
            self.footprint.read("arena", effect.page)
            buffer.versions.append(self._read_protected(effect.page, part, task))
        self.footprint.write("arena", effect.page)
        self.footprint.write("saved")
        self.saved[effect.page] = tuple(buffer.versions)

    def _read_protected(self, page: int, part: int, task: Task) -> int:
        version = self.arena.versions[page][part]
        if version is None or not self.arena.protected[page][part]:
            raise Violation("lost", f"{task.name} saves page {page}, which is not in memory and write-protected")
        return version

    def _withdraw(self, effect: effects.Withdraw, task: Task) -> Job:
        page = effect.page
        self.footprint.read("pinned")
        if page in self.pinned:
            raise Violation("pin", f"{task.name} withdraws page {page}, which is pinned")
        for part in range(PARTS):
            if part:
                yield
            self.footprint.write("arena", page)
            self.arena.punch_part(page, part)
            self.lose_frame(page, part)

    def _restore_copy(self, effect: effects.RestoreCopy, _: Task) -> Job:
        page = effect.page
        for part in range(PARTS):
            if part:
                yield
            self.footprint.write("arena", page)
            if page in self.saved:
                self.arena.install(page, part, self.saved[page][part], protect=True)

    def _copy_saved(self, effect: effects.CopySaved, _: Task) -> Job:
        for part in range(PARTS):
            if part:
                yield
            self._give_saved(effect.page, part, effect.child)
        self.mm.vmstat.add("cow_copies")

    def _give_saved(self, page: int, part: int, number: int) -> None:
        self.footprint.write("arena", page)
        saved, child = self.saved.get(page), self._living(number)
        if saved is not None and child is not None:
            child.install(page, part, saved[part], zeros=not any(saved))

    def _drop_copy(self, effect: effects.DropCopy, _: Task) -> None:
        self.footprint.write("arena", effect.page)
        self.footprint.write("saved")
        self.saved.pop(effect.page, None)

    def _saved_pages(self, _: effects.SavedPages, __: Task) -> list[int]:
        self.footprint.read("saved")
        return sorted(self.saved)

    def _give(self, effect: effects.Give, _: Task) -> None:
        self.footprint.write("arena", effect.page)
        self.table.given[effect.page] = effect.fork

    def _abandon(self, effect: effects.Abandon, _: Task) -> Job:
        self.footprint.write_all()
        self.abandon_child(effect.child)
        yield  # until it has ended

    def _deny(self, effect: effects.Deny, _: Task) -> None:
        self.footprint.write("arena", effect.page)
        child = self._living(effect.child)
        if child is not None:
            child.poison(self.arena, effect.page)
        self.wake_threads(effect.page, effect.child)

    def _map_frame(self, effect: effects.MapFrame, _: Task) -> None:
        self.footprint.write("arena", effect.page)
        parts = range(PARTS) if effect.part is None else range(effect.part, effect.part + 1)
        child = self._living(effect.child)
        if child is not None:
            child.map_frame(self.arena, effect.page, parts)
        self.wake_threads(effect.page, effect.child, parts)

    def _give_zeros(self, effect: effects.GiveZeros, _: Task) -> None:
        self.footprint.write("arena", effect.page)
        child = self._living(effect.child)
        if child is not None:
            for part in range(PARTS):
                child.install(effect.page, part, 0, zeros=True)
        self.wake_threads(effect.page, effect.child)
