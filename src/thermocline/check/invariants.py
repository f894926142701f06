"""What must hold: in every state, and when everything has come to rest.

The first kind is the table of :mod:`thermocline.protocol.page`, taken at its word: at any instant the pager may be
killed, so in any state the entry must say where the newest bytes of a page are, and they must be there.
"""

from __future__ import annotations

from collections.abc import Iterator

from thermocline.check.arena import describe_version
from thermocline.check.machine import Machine
from thermocline.check.private import PrivateMapping
from thermocline.check.program import Program
from thermocline.check.store import PAGE, PARTS
from thermocline.check.violation import Violation
from thermocline.check.world import ENTERS
from thermocline.protocol.mm import DRAM
from thermocline.protocol.node import Kind
from thermocline.protocol.page import EMPTY, PARTIAL, POISONED, RESIDENT, SHADOWED, SLOTTED, Entry, State
from thermocline.protocol.reclaim import has_outlet


def check_state(machine: Machine) -> None:
    """Raise the :class:`Violation` of the first invariant that a state breaks."""
    _check_budgets(machine)
    owners: dict[tuple[int, int], int] = {}
    for page in range(machine.layout.pages):
        entry = machine.entry(page)
        if entry.names_slot and entry.node != machine.layout.source:
            _check_slot(machine, page, entry)
            other = owners.setdefault((entry.node, entry.slot), page)
            if other != page:
                raise Violation("owners", f"pages {other} and {page} both name {_slot(machine, entry)}")
        if page not in machine.dying and entry.state != POISONED:
            _check_bytes(machine, page, entry)
            for child in machine.family.values():
                if not (child.died or child.condemned):
                    _check_child(machine, page, entry, child)


def _check_budgets(machine: Machine) -> None:
    for index, frames in machine.layout.mapped.items():
        resident = machine.arena.resident_parts(index)
        if resident > frames * PARTS:
            name = machine.nodes[index].name
            raise Violation("budget", f"{resident / PARTS:g} pages are in {name}, and its budget is {frames}")
    counts = machine.first_touch
    if counts is not None:
        held = sum(counts.holds(machine.entry(page)) for page in range(machine.layout.pages))
        if held > counts.limit:
            raise Violation("budget", f"{held} pages hold something, and only {counts.limit} always find room")
    for node in machine.nodes:
        if not 0 <= node.bytes_used <= node.capacity:
            raise Violation("budget", f"{node.name} uses {node.bytes_used} of {node.capacity} bytes")


def _check_slot(machine: Machine, page: int, entry: Entry) -> None:
    slots = machine.stores[entry.node].slots
    if entry.slot not in slots:
        raise Violation("slot", f"page {page} names {_slot(machine, entry)}, which is free")
    content = slots[entry.slot]
    if content is None:
        raise Violation("lost", f"page {page} names {_slot(machine, entry)}, which was never written")
    if content.page != page:
        raise Violation("owners", f"page {page} names {_slot(machine, entry)}, which holds page {content.page}")


def _check_bytes(machine: Machine, page: int, entry: Entry) -> None:
    """The newest bytes are where the entry says."""
    arena = machine.arena
    state = entry.state
    slot = machine.slot_versions(page, entry)
    for part, truth in enumerate(arena.truth[page]):
        version = arena.versions[page][part]
        where = f"part {part} of page {page} ({State(state).name})"
        newest = describe_version(truth)
        if state in (RESIDENT, SHADOWED) and version is None and page in machine.saved:
            version = machine.saved[page][part]  # it was withdrawn, and is brought back from there
            withdrawn = True
        else:
            withdrawn = False
        if state in (RESIDENT, SHADOWED) and version is None:
            raise Violation("lost", f"{where} is not in memory")
        if arena.undefined[page][part]:
            continue
        if version is not None and version != truth:
            raise Violation("lost", f"{where} is {describe_version(version)} in memory; {newest} came last")
        if state in (EMPTY, SLOTTED, SHADOWED) or (
            state == PARTIAL and (version is None or (entry.node and _is_clean(machine, page)))
        ):
            if slot[part] != truth:
                raise Violation("lost", f"{where} is {describe_version(slot[part])} below; {newest} came last")
            if version is not None and not withdrawn and not arena.protected[page][part]:
                raise Violation("lost", f"{where} has a copy below that the next write would make stale")


def _check_child(machine: Machine, page: int, entry: Entry, child: PrivateMapping) -> None:
    """What a child would find in a page, sooner or later, is what it must find."""
    if child.truth is None:
        return
    saved = machine.saved.get(page)
    owed = child.fork > machine.unwatched("given")[page]
    for part, truth in enumerate(child.truth[page]):
        where = f"part {part} of page {page} ({State(entry.state).name}) for child {child.number}"
        meant = describe_version(truth)
        frame = machine.arena.versions[page][part]
        if child.own[page][part] is not None:
            found = child.own[page][part]
        elif child.expected and saved is not None:
            found = saved[part]
        elif not owed and child.seen[page]:
            found = 0  # its touch is a fault, and is answered with zeros
        elif not owed:
            raise Violation("lost", f"{where} is taken for given, and it has no copy of {meant}")
        elif frame is not None:
            found = frame
        elif saved is not None and entry.state in (RESIDENT, SHADOWED):
            found = saved[part]
        else:
            found = machine.slot_versions(page, entry)[part]
        if found != truth:
            raise Violation("lost", f"{where} is {describe_version(found)}, and {meant} is what it was forked with")
        if child.mapped[page][part] and frame != truth:
            raise Violation("lost", f"{where} is mapped, and is {describe_version(frame)}; it must read {meant}")


def _is_clean(machine: Machine, page: int) -> bool:
    """Whether the pager takes what is there of a page for what its slot has, and so would drop it."""
    return bool(machine.unwatched("present")[page]) and not machine.unwatched("dirty")[page]


def _slot(machine: Machine, entry: Entry) -> str:
    return f"slot {entry.slot} of {machine.nodes[entry.node].name}"


def check_rest(machine: Machine, program: Program | None = None) -> None:
    """Raise a :class:`Violation` unless a machine in which nothing can run is really at rest."""
    for task in machine.tasks.values():
        if task not in machine.kswapd_asleep.values():
            raise Violation("deadlock", f"nothing can run any more, and {task.name} waits for {task.waits_for}")
    if program is not None:
        for thread in program.threads.values():
            if thread.waiting:
                raise Violation("wakeup", f"{thread.name} {thread.current or 'forks'}, and nothing will wake it")
    for page, owner in machine.owners.items():
        raise Violation("leak", f"{owner.name} has ended and holds the lock of page {page}")
    for group in machine.groups:
        if group.excess(0) and has_outlet(machine.mm, group):
            raise Violation("budget", f"{group.name} is {group.excess(0)} bytes over its limit")
    if machine.saved and not any(child.expected for child in machine.family.values()):
        raise Violation("leak", f"the copies of pages {list(machine.saved)} are saved, and for no child")
    _check_leaks(machine)
    for page in range(machine.layout.pages):
        _check_lists(machine, page)


def check_throttled(machine: Machine) -> None:
    """Raise a :class:`Violation` if, with nothing else to run, an allocation waits although there is a frame for it."""
    for task, group in machine.throttled:
        # A page that waits to be let in is not woken when room appears: it looks every now and then.
        if group != ENTERS and machine.may_allocate(group):
            raise Violation("wakeup", f"{task.name} waits for {task.waits_for}, and there is a frame for it")


def _check_leaks(machine: Machine) -> None:
    """Everything that is in use is used by some page."""
    counts = machine.first_touch
    if counts is not None:
        held = sum(counts.holds(machine.entry(page)) for page in range(machine.layout.pages))
        if (counts.pages_held, counts.pages_entering) != (held, 0):
            counted = f"{counts.pages_held} pages, and {counts.pages_entering} that enter"
            raise Violation("leak", f"{counted}, are counted, and {held} hold something")
    named: dict[int, set[int]] = {index: set() for index in machine.stores}
    used = [0] * len(machine.nodes)
    for page in range(machine.layout.pages):
        entry = machine.entry(page)
        if entry.names_slot and entry.node in machine.stores:
            named[entry.node].add(entry.slot)
            used[entry.node] += machine.stores[entry.node].size(entry.slot)
        frame, size = _check_frame(machine, page, entry)
        used[frame] += size
    for index, store in machine.stores.items():
        for slot in store.slots.keys() - named[index]:
            raise Violation("leak", f"slot {slot} of {machine.nodes[index].name} is taken, and no page names it")
    for node, size in zip(machine.nodes, used, strict=True):
        if node.bytes_used != size:
            raise Violation("leak", f"{node.name} is charged {node.bytes_used} bytes, and its pages take {size}")
        charged = sum(group.bytes_used[node.index] for group in machine.groups)
        if charged != size:
            raise Violation("leak", f"groups are charged {charged} bytes in {node.name}, and its pages take {size}")
        clean = {page for page in range(machine.layout.pages) if _has_shadow_in(machine, page, node.index)}
        if node.kind is not Kind.SOURCE and set(node.shadows.unwatched) != clean:
            raise Violation("leak", f"{node.name} lists the shadows of {set(node.shadows.unwatched)}, and has {clean}")


def _check_frame(machine: Machine, page: int, entry: Entry) -> tuple[int, int]:
    """The mapped node on which a page has something, and how many bytes."""
    if entry.state == PARTIAL:
        whole = machine.presence(page).whole
        if not 0 < whole < machine.mm.all_parts:
            raise Violation("leak", f"page {page} is left half filled")
        return DRAM, machine.mm.bytes_of(whole)
    if entry.frame is not None:
        found = machine.arena.whereabouts(page)
        if found != {entry.frame}:
            raise Violation("budget", f"page {page} is charged to node {entry.frame}, and is on {sorted(found)}")
        return entry.frame, PAGE
    if machine.arena.present(page):
        raise Violation("leak", f"page {page} ({State(entry.state).name}) has a frame that its entry does not name")
    return DRAM, 0


def _has_shadow_in(machine: Machine, page: int, node: int) -> bool:
    entry = machine.entry(page)
    return entry.state == SHADOWED and entry.node == node


def _check_lists(machine: Machine, page: int) -> None:
    """A page that is on no list will never be reclaimed; one on the wrong list is reclaimed from the wrong node."""
    home = machine.mm.node_of(page)
    found = [node for node, listed in _lists(machine) if page in listed]
    if found != ([] if home is None else [home]):
        raise Violation("leak", f"page {page} belongs to node {home}, and is on the lists of {found}")


def _lists(machine: Machine) -> Iterator[tuple[int, list[int]]]:
    for node in machine.nodes:
        for lruvec in machine.mm.lruvecs(node.index):
            yield node.index, [*lruvec.active, *lruvec.inactive]
