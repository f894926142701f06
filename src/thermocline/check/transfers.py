"""What the effects that move bytes do: filling pages, and copying them down.

They take a step for each part of a page, because `live` does them in a worker while other tasks and the program go on;
a fill wakes those that wait for what came up in its last step, before the protocol has committed anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from thermocline.check.copies import Copies, Job
from thermocline.check.footprint import Footprint
from thermocline.check.layout import Layout
from thermocline.check.store import PAGE, PARTS, Buffer, Content
from thermocline.check.task import Task
from thermocline.check.violation import Violation
from thermocline.protocol import effects
from thermocline.protocol.mm import DRAM, Policy
from thermocline.protocol.node import Kind, Node

#: Writes that a dead device refuses before its node is out of use: one that the pager thinks nothing of, and one more.
_REFUSALS = 2


class Transfers(Copies):
    """Performs effects on the contents of pages.

    Attributes
    ----------
    outcome : int
        Which outcome the step being taken has: 0 is success, another number the copy that fails.
    failing_copies, failing_fills : set of int
        Pages whose copy, or fill, fails.
    unmovable : set of int
        Pages whose frames the kernel refuses to move.
    mortal : int
        A node: if it is not 0, then a write to it fails only because its device dies.
    """

    def __init__(self, layout: Layout, policy: Policy, footprint: Footprint | None = None) -> None:
        super().__init__(layout, policy, footprint)
        self.outcome = 0
        self.failing_copies: set[int] = set()
        self.failing_fills: set[int] = set()
        self.unmovable: set[int] = set()
        self.mortal = 0

    def transfer_handlers(self) -> dict[type[effects.Effect], Callable[[Any, Task], Any]]:
        """By kind of effect, what performs it."""
        return {
            effects.Fill: self._fill,
            effects.Copy: self._copy,
            effects.CopyList: self._copy_list,
        }

    def _fill(self, effect: effects.Fill, _: Task) -> Job | bool:
        if self.outcome or not self.failing_fills.isdisjoint(effect.pages):
            return False
        return self._install(list(effect.pages), effect.writable, effect.parts)

    def _install(self, pages: list[int], writable: bool, parts: int) -> Job:
        """Read all pages, then make their parts appear one by one, with threads running in between.

        Those who wait for a part that was there are not woken, as the kernel does not wake them.
        """
        wanted = {page: self._parts_in(parts or self.mm.missing(page)) for page in pages}
        places = [self.table.place(page) for page in pages]
        buffers = [
            Buffer(page, self._read_slot(page, node, slot)) for page, (node, slot) in zip(pages, places, strict=True)
        ]
        # As in `live`: zeros alone are installed writable, whatever the request was.
        protect = not writable and any(node for node, _ in places)
        steps = sorted(set().union(*wanted.values()))
        for part in steps:
            if part != steps[0]:
                yield
            for buffer in buffers:
                if part not in wanted[buffer.page]:
                    continue
                self.footprint.write("arena", buffer.page)
                owed = self.is_owed(buffer.page)
                self.arena.install(buffer.page, part, buffer.versions[part], protect=protect or owed)
        for page in pages:
            self.wake_threads(page, parts=wanted[page])
        yield
        return True

    def _parts_in(self, mask: int) -> list[int]:
        """What a mask says of the parts of a page that come up by themselves, or of a page that comes up whole."""
        return [part for part in range(PARTS) if mask >> part % self.mm.parts & 1]

    def _copy(self, effect: effects.Copy, task: Task) -> Job:
        listed = effects.CopyList([effect.page], effect.node, [effect.slot], effect.group)
        sizes = yield from self._copy_list(listed, task)
        return sizes[0]

    def _copy_list(self, effect: effects.CopyList, task: Task) -> Job:
        if self.mm.nodes[effect.node].kind is Kind.MAPPED:
            return self._move_frames(effect)
        return self._fill_slots(effect, task)

    def _fill_slots(self, effect: effects.CopyList, task: Task) -> Job:
        """Read the parts of all pages one by one, then write their slots, each of them whole or not at all."""
        failing = self.outcome
        pages = list(effect.pages)
        # A page's home is decided when the copy begins.
        homes = [(DRAM, 0) if self.table.resident(page) else self.table.place(page) for page in pages]
        buffers = [Buffer(page) for page in pages]
        for part in range(PARTS):
            if part:
                yield
            for buffer, (node, slot) in zip(buffers, homes, strict=True):
                buffer.versions.append(self._read_part(buffer.page, part, node, slot))
        sizes = []
        store, target, place = self.stores[effect.node], self.mm.nodes[effect.node], self.layout.lower[effect.node - 1]
        for index, (page, slot, buffer) in enumerate(zip(pages, effect.slots, buffers, strict=True), start=1):
            self.footprint.write("slot", effect.node, slot)
            if slot not in store.slots:
                raise Violation("slot", f"{task.name} writes slot {slot} of {target.name}, which is not reserved")
            if index == failing and self.mortal:
                self.footprint.write("device", effect.node)
                self.dead_devices.add(effect.node)
            if (index == failing and not self.mortal) or page in self.failing_copies:
                sizes.append(effects.FAILED)
            elif not any(buffer.versions):
                sizes.append(effects.ZERO)
            elif self._refuses(effect.node):
                sizes.append(effects.FAILED)
            else:
                store.slots[slot] = Content(page, tuple(buffer.versions), place.size(page))
                sizes.append(place.size(page))
        yield
        self.mm.uncharge_rest(effect, sizes)
        self._judge(target)
        return sizes

    def _move_frames(self, effect: effects.CopyList) -> Job:
        """Let the kernel move the parts of pages to a mapped node one by one, while the program goes on.

        The one that fails is moved back, as `live` does: a killed pager leaves it on two nodes.
        """
        failing = self.outcome
        sizes = []
        for index, page in enumerate(effect.pages, start=1):
            fails = index == failing or page in self.failing_copies or page in self.unmovable
            frame = self.table.read(page).frame or DRAM
            for part in range(PARTS - 1 if fails else PARTS):
                self.footprint.write("arena", page)
                self.arena.nodes[page][part] = effect.node
                yield
            if fails:
                self.footprint.write("arena", page)
                self.arena.nodes[page] = [frame] * PARTS
            sizes.append(effects.FAILED if fails else PAGE)
        yield
        return sizes

    def _read_part(self, page: int, part: int, node: int, slot: int) -> int:
        """The version of a part to be copied: what is there of a page that is PARTIAL is newer than its slot."""
        if node == DRAM:
            self.footprint.read("arena", page)
            return self.arena.versions[page][part] or 0
        found = None
        if self.mm.links.present[page]:
            self.footprint.read("arena", page)
            found = self.arena.versions[page][part]
        below = self._read_slot(page, node, slot)[part]
        return below if found is None else found

    def _refuses(self, node: int) -> bool:
        """Whether a node's device refuses a write, which is counted."""
        if not self.mortal:
            return False
        self.footprint.read("device", node)
        if node not in self.dead_devices:
            return False
        self.footprint.write("refusals", node)
        self.refusals[node] += 1
        return True

    def _judge(self, node: Node) -> None:
        """Take a node out of use whose device refuses every write, as `live` does when a copy has ended."""
        if not self.mortal:
            return
        self.footprint.read("refusals", node.index)
        if self.refusals[node.index] >= _REFUSALS and not node.failed:
            self.footprint.write_all()
            self.mm.fail_node(node)
            self.failed_nodes.add(node.index)

    def _read_slot(self, page: int, node: int, slot: int) -> tuple[int, ...]:
        """The versions in the slot that a page comes from; zeros if it comes from none."""
        if not node:
            return (0,) * PARTS
        if node == self.layout.source:
            return (-page - 1,) * PARTS
        self.footprint.read("slot", node, slot)
        content = self.stores[node].slots.get(slot)
        if content is None:
            raise Violation("slot", f"slot {slot} of {self.mm.nodes[node].name} is read for page {page} and is empty")
        return content.versions
