"""Copy on write that is wrong, each in one way; the checker has to catch them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from broken import Broken

from thermocline.check import family, program
from thermocline.check.machine import Machine
from thermocline.check.store import PARTS, Buffer
from thermocline.protocol import effects as e
from thermocline.protocol import fault, recovery
from thermocline.protocol.effects import Protocol
from thermocline.protocol.mm import Mm
from thermocline.protocol.page import PARTIAL


def breaking(*steps: str) -> Callable[..., Protocol[None]]:
    """A break_cow of its steps in another order, or without some."""

    def wrong(mm: Mm, page: int) -> Protocol[None]:
        while owed := mm.owed(page):
            newest = max(child.fork for child in owed)
            attached = [child for child in owed if not child.expected]
            expected = [child for child in owed if child.expected]
            mapped: list[int] = yield e.CopyToChildren(page)
            if "inherited" in steps:
                mapped = [*mapped, *(child.number for child in expected if child.inherits)]
            mm.abort_transaction(page)
            for step in steps:
                if (step == "save" and (mapped or expected)) or (step == "save for the expected" and expected):
                    yield e.SaveCopy(page)
                elif step == "withdraw" and mapped:
                    yield e.Withdraw(page)
                elif step == "copy" and mapped:
                    yield e.CopyToChildren(page)
                elif step == "restore" and mapped:
                    yield e.RestoreCopy(page)
                elif step == "look again":
                    left = [child for child in mm.owed(page) if child.fork <= newest]
                    if any(child not in (expected if child.expected else attached) for child in left):
                        break
                elif step == "give":
                    yield e.Give(page, newest)
                elif step == "give the newest":
                    yield e.Give(page, max(child.fork for child in mm.children.values()))
                elif (step == "drop" and not mm.expects_child) or step == "drop always":
                    yield e.DropCopy(page)

    return wrong


RIGHT = ("inherited", "save", "withdraw", "copy", "restore", "look again", "give", "drop")


def without(*left_out: str) -> tuple[tuple[Any, str, Callable[..., Any]], ...]:
    return with_steps(*(step for step in RIGHT if step not in left_out))


def with_steps(*steps: str) -> tuple[tuple[Any, str, Callable[..., Any]], ...]:
    return ((fault, "break_cow", breaking(*steps)),)


def pages_that_are_owed_are_let_go(machine: Machine, effect: e.Remap, _: Any) -> None:
    for page in effect.pages:
        machine.footprint.write("arena", page)
        machine.arena.protect(page, False)
        machine.wake_threads(page)


def pages_that_are_owed_come_up_writable(machine: Machine, pages: list[int], writable: bool, parts: int) -> Any:
    wanted = [part for part in range(PARTS) if machine.mm.parts == 1 or not parts or parts >> part & 1]
    places = [machine.table.place(page) for page in pages]
    buffers = [
        Buffer(page, machine._read_slot(page, node, slot)) for page, (node, slot) in zip(pages, places, strict=True)
    ]
    for part in wanted:
        if part != wanted[0]:
            yield
        for buffer in buffers:
            machine.footprint.write("arena", buffer.page)
            machine.arena.install(
                buffer.page, part, buffer.versions[part], protect=not writable and any(node for node, _ in places)
            )
    for page in pages:
        machine.wake_threads(page)
    yield
    return True


def nothing_is_protected(machine: Machine, *_: Any) -> None:
    machine.footprint.write_all()
    for child in machine.family.values():
        if child.truth is None:
            child.see(machine.arena.truth)


def the_fork_is_known_before_all_is_protected(
    mm: Mm, child: Any, pinned: Iterable[int], *, of_program: bool
) -> Protocol[None]:
    child.inherits = not of_program
    mm.children[child.number] = child
    if of_program:
        yield e.Resched()
        yield e.ProtectPresent()


def a_dead_childs_copies_are_kept(mm: Mm, number: int) -> Protocol[None]:
    mm.children.pop(number, None)
    yield e.Resched()


def nothing_is_dropped(mm: Mm) -> Protocol[None]:
    yield e.Resched()


def an_attached_child_gets_nothing(mm: Mm, number: int) -> Protocol[None]:
    yield e.Resched()
    mm.children[number].expected = False


def a_part_is_let_go(mm: Mm, page: int, write: bool, part: int = 0, child: int = 0) -> Protocol[None]:
    """A page of which only a part is there is taken for given when that part is written."""
    yield e.Lock(page)
    owed = mm.owed(page)
    if write and not child and owed and mm.table.state(page) == PARTIAL and mm.links.present[page] >> part & 1:
        mm.links.dirty[page] = 1
        yield e.Give(page, max(other.fork for other in owed))
        yield e.Remap([page])
        yield e.Unlock(page)
        return
    yield e.Unlock(page)
    yield from right_fault(mm, page, write, part, child)


def a_part_s_writer_sleeps_on(mm: Mm, page: int, write: bool, part: int = 0, child: int = 0) -> Protocol[None]:
    """The rest of a page comes up before a part of it is written, and the writer of that part is not woken."""
    protocol = right_fault(mm, page, write, part, child)
    value: Any = None
    unlocked = False
    while True:
        try:
            effect = protocol.send(value)
        except StopIteration:
            return
        value = None if unlocked and isinstance(effect, e.Wake) else (yield effect)
        unlocked = unlocked or isinstance(effect, e.Unlock)


right_fault = fault.fault

BROKEN_FORKS = (
    Broken(
        "a page that is owed is let go",
        "fork, refused",
        {"lost", "stale"},
        patches=((Machine, "_remap", pages_that_are_owed_are_let_go),),
    ),
    Broken(
        "a page that is owed comes up writable",
        "fork, absent pages",
        {"lost", "stale"},
        patches=((Machine, "_install", pages_that_are_owed_come_up_writable),),
    ),
    Broken("given before it is saved", "fork, two threads", {"lost"}, patches=with_steps(
        "inherited", "give", "save", "withdraw", "copy", "restore", "drop"
    )),
    Broken("withdrawn and not saved", "fork", {"lost"}, patches=with_steps(
        "inherited", "save for the expected", "withdraw", "copy", "restore", "look again", "give", "drop"
    )),
    Broken("withdrawn before it is saved", "fork", {"lost"}, patches=with_steps(
        "inherited", "withdraw", "save", "copy", "restore", "look again", "give", "drop"
    )),
    Broken("never withdrawn", "fork", {"lost", "stale"}, patches=without("withdraw")),
    Broken("never brought back", "fork", {"lost", "wakeup"}, patches=without("restore")),
    Broken("brought back before the copy", "fork", {"lost", "stale"}, patches=with_steps(
        "inherited", "save", "withdraw", "restore", "copy", "look again", "give", "drop"
    )),
    Broken("a frame that was inherited stays", "grandchild", {"lost", "stale"}, patches=without("inherited")),
    Broken("not looked again for those passed over", "fork, two threads", {"lost"}, patches=without("look again")),
    Broken("given to the newest fork, whatever was handled", "fork, two threads", {"lost"}, patches=with_steps(
        "inherited", "save", "withdraw", "copy", "restore", "give the newest", "drop"
    )),
    Broken("dropped while a child is expected", "fork, two threads", {"lost"}, patches=with_steps(
        "inherited", "save", "withdraw", "copy", "restore", "look again", "give", "drop always"
    )),
    Broken("never dropped", "fork", {"leak"}, patches=without("drop")),
    Broken(
        "nothing is protected at the fork",
        "fork",
        {"lost", "stale"},
        patches=((Machine, "_protect_present", nothing_is_protected),),
    ),
    Broken(
        "known before all is protected",
        "fork, shadow",
        {"lost"},
        patches=((family, "begin_fork", the_fork_is_known_before_all_is_protected),),
    ),
    Broken(
        "what is saved for a dead child is kept",
        "fork, dying child",
        {"leak", "lost", "stale"},
        patches=((family, "forget_child", a_dead_childs_copies_are_kept),),
    ),
    Broken(
        "an attached child gets nothing",
        "fork, two threads",
        {"lost"},
        patches=((family, "attach_child", an_attached_child_gets_nothing),),
    ),
    Broken(
        "a part is let go",
        "fork, parts",
        {"lost", "stale"},
        patches=((program, "fault", a_part_is_let_go),),
    ),
    Broken(
        "the writer of a part sleeps on",
        "fork, parts",
        {"wakeup"},
        patches=((program, "fault", a_part_s_writer_sleeps_on),),
    ),
    Broken(
        "recovery leaves a withdrawn page where it is",
        "fork",
        {"lost", "wakeup"},
        patches=((recovery, "RestoreCopy", e.Wake),),
        crashes=1,
    ),
    Broken(
        "recovery does not protect first",
        "fork, shadow",
        {"lost"},
        patches=((recovery, "ProtectPresent", e.Resched),),
        crashes=1,
    ),
    Broken(
        "recovery drops no saved copy",
        "fork",
        {"leak"},
        patches=((recovery, "recover_copies", nothing_is_dropped),),
        crashes=1,
    ),
)  # fmt: skip
