"""Stores that rot in every way, under a program that verifies all it reads.

What may come of damage to what a store holds: the pages that it hit are refused, with a message that names array, page
and node, or are right, where the damage was to what says nothing of them. Nothing else: no wrong byte, no other page
refused, no hang, no dead pager, no room that is lost.
"""

import json
import os
import select
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from victims import victim

WORKLOAD = Path(__file__).with_name("rot_workload.py")
#: Seconds that one point may take: more is a hang.
LIMIT = 20
POOLS, FILES = ("lz4", "zstd"), ("file", "plain file")
#: Each damage, who finds it, and at how many points of which stores.
CLASSES = {
    ("a flipped bit", "reader"): (640, POOLS + FILES),
    ("zeros", "reader"): (160, POOLS + FILES),
    ("swapped in an array", "reader"): (60, POOLS + FILES),
    ("swapped over arrays", "reader"): (60, POOLS + FILES),
    ("a stale version", "reader"): (80, POOLS + FILES),
    ("a file cut short", "reader"): (60, FILES),
    ("a flipped bit", "successor"): (60, POOLS + FILES),
    ("zeros", "successor"): (30, POOLS + FILES),
    ("swapped in an array", "successor"): (30, POOLS + FILES),
    ("swapped over arrays", "successor"): (30, POOLS + FILES),
    ("a stale version", "successor"): (30, POOLS + FILES),
    ("a file cut short", "successor"): (20, FILES),
    ("a flipped bit", "reclaim"): (60, POOLS),
    ("zeros", "reclaim"): (30, POOLS),
    ("a stale version", "reclaim"): (30, POOLS),
}


def why_not() -> str:
    """Why this cannot be done here; nothing if it can."""
    return "" if os.geteuid() == 0 else "the helpers' descriptors are open to root only"


def name_of(damage: str, finder: str) -> str:
    """What a row is called."""
    return damage if finder == "reader" else f"{damage}, found by {finder}"


@dataclass
class Decay:
    """What came of one kind of damage to one kind of store.

    Attributes
    ----------
    points : int
        How often a store was damaged.
    refused, right : int
        Pages that were refused, with a message; and those that were hit and right.
    early : int
        Pages that were found to have rotted before anybody read them.
    wrong, hangs : int
        Words that were wrong, or points at which something else happened than may; and points that took too long.
    fields : set of str
        What was hit.
    """

    name: str
    store: str
    points: int = 0
    refused: int = 0
    right: int = 0
    early: int = 0
    wrong: int = 0
    hangs: int = 0
    fields: set[str] = field(default_factory=set)
    said: list[str] = field(default_factory=list)

    def add(self, other: "Decay") -> None:
        """Take another one in."""
        self.points += other.points
        self.refused += other.refused
        self.right += other.right
        self.wrong += other.wrong
        self.hangs += other.hangs
        self.fields |= other.fields
        self.said += other.said

    def row(self) -> str:
        """It as a row of a table."""
        figures = f"{self.points:>8}{self.refused:>9}{self.right:>7}{self.wrong:>7}{self.hangs:>7}"
        return f"{self.name:<36}{self.store:<12}{figures}"


def decay(damage: str, finder: str, store: str, points: int, seed: int = 0) -> Decay:
    """Damage a store at so many points."""
    made = Decay(name_of(damage, finder), store)
    for run in runs(damage, finder, store, points, seed):
        made.points += bool(run.get("reached", True))
        if "hang" in run:
            made.hangs += 1
            continue
        faults = judge(run)
        made.wrong += max(int(str(run.get("wrong", 1))), len(faults))
        made.said += [f"{damage}, {finder}, {store}, point {run['point']}: {fault}\n{run}" for fault in faults]
        made.refused += int(str(run.get("refused", 0)))
        made.right += int(str(run.get("right", 0)))
        made.early += int(str(run.get("early", 0)))
        made.fields |= set(run.get("fields", ()))
    if not made.refused:
        made.wrong += 1
        made.said.append(f"{damage}, {finder}, {store}: nothing was refused, so nothing was damaged")
    if finder == "reclaim" and not made.early:
        made.wrong += 1
        made.said.append(f"{damage}, {finder}, {store}: reclaim has met none of it")
    return made


def judge(run: dict[str, object]) -> list[str]:
    """What a point did that it may not do."""
    if "error" in run:
        return [str(run["error"])]
    checks = {
        "words are wrong": run["wrong"],
        "a page was refused that was not damaged": run["bystanders"],
        "damage was not noticed": run["reached"] and run["unnoticed"],
        "what was said is not what was refused": run["unexplained"],
        "bytes are charged for, and there is no array": run["left"],
        "the pager died": run["starts"] != 1,
    }
    return [fault for fault, found in checks.items() if found]


def runs(damage: str, finder: str, store: str, points: int, seed: int) -> Iterator[dict[str, object]]:
    """The workload's own accounts. A point that hangs, or ends its process, is one; another goes on behind it."""
    point = 0
    while point < points:
        begun = point
        with victim(WORKLOAD, store, damage, finder, point, points, seed) as process:
            assert process.stdout is not None
            while select.select([process.stdout], [], [], LIMIT)[0]:
                line = process.stdout.readline()
                if not line:
                    break
                yield json.loads(line)
                point += 1
            else:
                process.kill()
                yield {"point": point, "hang": True}
                point += 1
                continue
        if process.returncode:
            yield {"point": point, "error": f"status {process.returncode}"}
            if point == begun:
                return  # so will the others
            point += 1
