"""Stores that fail at every call in turn, under a program that verifies all it reads.

The workload runs once for each call of a store that it makes: the call fails, or it and all that follow. What may come
of it: right bytes, an access that is refused and explained, an allocation that is refused. Nothing else: no wrong byte,
no hang, no dead pager, no room that is lost.
"""

import json
import re
import select
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from victims import victim

WORKLOAD = Path(__file__).with_name("device_workload.py")
#: Seconds that one run may take: more is a hang.
LIMIT = 60
NO_ROOM = ("there is no room for a page in any node", "there is no room for them in any other node")
#: What becomes of the calls, and whether it is over after one of them. Where it is not, an allocation without room
#: gives up soon, or these runs would be spent waiting.
MODES = {
    "EIO once": ("fail any any EIO {call}", True),
    "EIO for ever": ("fail any any EIO {call} on; patience 100ms", False),
    "ENOSPC once": ("fail any any ENOSPC {call}", True),
    "ENOSPC for ever": ("fail any any ENOSPC {call} on; patience 100ms", False),
    "reads EIO for ever": ("fail read any EIO {call} on; patience 100ms", False),
    "writes EIO for ever": ("fail write any EIO {call} on; patience 100ms", False),
    "a hang": ("hang any any {call} 200ms", True),
}


@dataclass
class Sweep:
    """What came of one mode.

    Attributes
    ----------
    points : int
        Calls that failed, or at which it began.
    refused, no_memory : int
        Pages that could not be had, and allocations that failed: both with a message.
    wrong, hangs : int
        Words that were wrong, or runs that did something else than they may; and runs that took too long.
    """

    mode: str
    points: int = 0
    refused: int = 0
    no_memory: int = 0
    wrong: int = 0
    hangs: int = 0
    said: list[str] = field(default_factory=list)

    def add(self, other: "Sweep") -> None:
        """Take another one in."""
        self.points += other.points
        self.refused += other.refused
        self.no_memory += other.no_memory
        self.wrong += other.wrong
        self.hangs += other.hangs
        self.said += other.said

    def row(self) -> str:
        """It as a row of a table."""
        figures = f"{self.points:>8}{self.refused:>9}{self.no_memory:>11}{self.wrong:>7}{self.hangs:>7}"
        return f"{self.mode:<22}{figures}"


def sweep(mode: str, design: str, first: int = 1, step: int = 1) -> Sweep:
    """Run the workload for each call, or for each ``step``-th from the ``first`` on."""
    rule, once = MODES[mode]
    swept = Sweep(mode)
    for run in runs(rule, design, first, step):
        swept.points += bool(run.get("reached", True))
        if "hang" in run:
            swept.hangs += 1
            continue
        faults = judge(run, once=once, may_refuse=mode != "a hang")
        swept.wrong += max(int(str(run.get("wrong", 1))), len(faults))
        swept.said += [f"call {run['call']}: {fault}\n{run['said']}" for fault in faults]
        swept.refused += int(str(run.get("refused", 0)))
        swept.no_memory += int(str(run.get("no_memory", 0)))
    return swept


def judge(run: dict[str, object], *, once: bool, may_refuse: bool) -> list[str]:
    """What a run did that it may not do."""
    if "error" in run:
        return [str(run["error"])]
    said = str(run["said"])
    lost = set(re.findall(r"page (\d+) \([^)]*\) cannot be read", said))
    refused = int(str(run["refused"]))
    no_room = any(said.count(line) for line in NO_ROOM)
    checks = {
        "words are wrong": run["wrong"],
        "the pager died": run["starts"] != 1,
        "bytes are charged for, and there is no array": run["left"],
        "an access was refused without a word": refused and not lost and not no_room,
        "more pages were refused than were said to be lost": refused > len(lost) and not no_room,
        "one failure cost more than one page": once and refused > 1,
        "one failure cost room": once and (run["no_memory"] or "out of use" in said or no_room),
        "a hang cost a page": not may_refuse and refused,
        "a node was said to be out of use twice": any(
            said.count(f"{node} refuses every write") > 1 for node in ("lz4", "zstd", "file")
        ),
    }
    return [fault for fault, found in checks.items() if found]


def runs(rule: str, design: str, call: int, step: int) -> Iterator[dict[str, object]]:
    """The workload's own accounts. A run that hangs, or ends its process, is one; another goes on behind it."""
    ended = False
    while not ended:
        with victim(WORKLOAD, rule, design, call, step) as process:
            assert process.stdout is not None
            while select.select([process.stdout], [], [], LIMIT)[0]:
                line = process.stdout.readline()
                if not line:
                    ended = not process.wait()
                    break
                yield json.loads(line)
                call += step
            else:
                process.kill()
                yield {"call": call, "hang": True}
                call += step
                continue
        if not ended:
            yield {"call": call, "error": f"status {process.returncode}", "said": ""}
            call += step
