"""Effects in words, for schedules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from thermocline.check.world import World
from thermocline.protocol import effects as e
from thermocline.protocol.page import State


def phrase(effect: e.Effect, world: World, answer: Any) -> str:
    """An effect and its result."""
    return _PHRASES[type(effect)](effect, [node.name for node in world.nodes], answer)


def _pages(pages: Sequence[int]) -> str:
    return f"page{'s' if len(pages) > 1 else ''} {', '.join(map(str, pages))}"


def _commit(effect: e.Commit, names: list[str], _: Any) -> str:
    slot = f", slot {effect.slot} of {names[effect.node]}" if effect.node else ""
    place = f" on {names[effect.node]}" if effect.node and effect.state == State.RESIDENT else slot
    return f"commits page {effect.page} as {State(effect.state).name}{place}"


def _reserve(effect: e.Reserve, names: list[str], answer: Any) -> str:
    got = "there is none" if answer is None else f"slot {answer}" if effect.node else "there is one"
    return f"asks for a {'slot' if effect.node else 'frame'} of {names[effect.node]}: {got}"


def _release(effect: e.Release, names: list[str], _: Any) -> str:
    return f"gives back {f'slot {effect.slot}' if effect.node else 'a frame'} of {names[effect.node]}"


_PHRASES: dict[type[e.Effect], Callable[[Any, list[str], Any], str]] = {
    e.Lock: lambda effect, names, answer: f"locks page {effect.page}",
    e.TryLock: lambda effect, names, answer: f"tries to lock page {effect.page}: {'done' if answer else 'it is taken'}",
    e.Unlock: lambda effect, names, answer: f"unlocks page {effect.page}",
    e.Reserve: _reserve,
    e.Release: _release,
    e.Unmap: lambda effect, names, answer: f"write-protects {_pages(effect.pages)}",
    e.Remap: lambda effect, names, answer: f"lets {_pages(effect.pages)} be written, and wakes",
    e.Copy: lambda effect, names, answer: f"begins to copy page {effect.page} to {names[effect.node]}",
    e.CopyList: lambda effect, names, answer: f"begins to copy {_pages(effect.pages)} to {names[effect.node]}",
    e.Commit: _commit,
    e.Punch: lambda effect, names, answer: f"punches the hole of {_pages(effect.pages)}",
    e.Fill: lambda effect, names, answer: (
        f"begins to fill {_pages(effect.pages)}{'' if effect.writable else ', write-protected'}"
    ),
    e.Wake: lambda effect, names, answer: f"wakes those that wait for page {effect.page}",
    e.Poison: lambda effect, names, answer: f"poisons page {effect.page}",
    e.Hint: lambda effect, names, answer: f"unmaps {_pages(effect.pages)}, to find out which are used",
    e.HintFaults: lambda effect, names, answer: f"looks which of {_pages(effect.pages)} were used: {answer}",
    e.ScanDelay: lambda effect, names, answer: f"waits for {effect.seconds:g} s",
    e.ProtectPresent: lambda effect, names, answer: "write-protects all that is in memory",
    e.CopyToChildren: lambda effect, names, answer: f"begins to give children copies of page {effect.page}",
    e.SaveCopy: lambda effect, names, answer: f"begins to save page {effect.page}",
    e.Withdraw: lambda effect, names, answer: f"begins to withdraw page {effect.page}",
    e.RestoreCopy: lambda effect, names, answer: f"begins to bring page {effect.page} back from its saved copy",
    e.CopySaved: lambda effect, names, answer: f"begins to give child {effect.child} the saved copy of {effect.page}",
    e.DropCopy: lambda effect, names, answer: f"drops the saved copy of page {effect.page}",
    e.SavedPages: lambda effect, names, answer: f"asks which pages are saved: {answer}",
    e.Give: lambda effect, names, answer: f"writes that page {effect.page} is given to fork {effect.fork}",
    e.Abandon: lambda effect, names, answer: f"ends child {effect.child}",
    e.MapFrame: lambda effect, names, answer: f"maps the frame of page {effect.page} in child {effect.child}",
    e.GiveZeros: lambda effect, names, answer: f"gives child {effect.child} zeros for page {effect.page} again",
    e.Deny: lambda effect, names, answer: f"denies page {effect.page} to child {effect.child}",
    e.WakeKswapd: lambda effect, names, answer: f"wakes kswapd of {names[effect.node]}",
    e.SleepKswapd: lambda effect, names, answer: "sleeps until it is woken",
    e.Throttle: lambda effect, names, answer: f"waits for room in {names[effect.node]}",
    e.Spawn: lambda effect, names, answer: "starts another task",
    e.Resched: lambda effect, names, answer: "lets others run",
}
