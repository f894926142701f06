"""Pagers killed, stores that fail and stores that rot, at every point, under programs that verify all they read.

    python tests/torture/torture.py [--kills 1000] [--seed 0] [--only TEXT]

It prints a row for each point: how often a pager was killed there, how many words were wrong, whether the program hung,
and the longest that it took to have another pager, from when the supervisor knew until faults were answered again. Then
a row for each way in which stores fail (see `devices`), and one for each in which each of them rots (see `rot`). The
exit status is 1 if anything was wrong.
"""

import argparse
import itertools
import json
import os
import random
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import rot
from devices import MODES, Sweep, sweep
from victims import victim

from thermocline.live.injection import NATIVE, POINTS
from thermocline.protocol.migrate import DESIGNS

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pagers import find_supervisor, open_fault_counter, wait_for_pager

WORKLOAD = Path(__file__).with_name("workload.py")
#: Bytes of a page, of one program after the other.
PAGES = itertools.cycle(("4096", "16384"))
#: Seconds that a program may take for its end: more is a hang.
LIMIT = 30
#: Steps of one thread without a new pager after which a point counts as not reached.
STEPS = 400
#: The design under which stores fail at every call, and under the others at every so-manieth.
SWEPT, STEP = "batch", 7
#: Which occurrences of an effect are tried. The first few are recovery's, or the first thing after it.
OCCURRENCES = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89)


@dataclass
class Outcome:
    """What came of one program."""

    kills: int = 0
    wrong: int = 0
    hangs: int = 0
    longest: float = 0.0
    said: str = ""

    def add(self, other: "Outcome") -> None:
        """Take another one in."""
        self.kills += other.kills
        self.wrong += other.wrong
        self.hangs += other.hangs
        self.longest = max(self.longest, other.longest)
        self.said += other.said


def rules_at(side: str, effect: str, occurrences: tuple[int, ...]) -> list[str]:
    """Kills at a point, each followed by one that comes late: pagers that never answer a fault are not replaced."""
    rules = []
    for number in occurrences:
        rules += [f"kill {side} {effect} {number}", f"kill before Lock {10 + number}"]
    return rules


def judge(process: subprocess.Popen[str], kills: int = -1) -> Outcome:
    """Wait for a program's end -> what came of it."""
    try:
        out, err = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        _, err = process.communicate()
        return Outcome(max(kills, 0), hangs=1, said=err)
    lines = out.splitlines()
    if process.returncode or not lines:
        return Outcome(max(kills, 0), wrong=1, said=f"status {process.returncode}\n{err}")
    said = json.loads(lines[-1])
    counted = said["starts"] - 1 if kills < 0 else kills
    return Outcome(counted, len(said["wrong"]), 0, said["longest_replacement_seconds"], "\n".join(said["wrong"]))


def program(pagers: int, steps: int, rules: list[str]) -> AbstractContextManager[subprocess.Popen[str]]:
    """The workload, under injection: with pages that come up as a whole and in parts, in turn."""
    environment = {**os.environ, "THERMOCLINE_INJECT": ";".join(rules)}
    pipe = subprocess.PIPE
    return victim(WORKLOAD, pagers, steps, next(PAGES), env=environment, stdin=pipe, stderr=pipe, text=True)


def at_points(rules: list[str]) -> Outcome:
    """Run the workload until a pager was killed at each of these points in turn."""
    with program(len(rules) + 1, STEPS, rules) as process:
        return judge(process)


def at_random(kills: int, seed: int) -> Outcome:
    """Kill pagers at random instants: as soon as they exist, and when they have begun to answer faults, in turn.

    Only such deaths in a row as are never followed by a fault are an end of the program, and they are meant to be.
    """
    instants = random.Random(seed)
    with program(0, 0, []) as process:
        assert process.stdout is not None
        process.stdout.readline()
        supervisor = find_supervisor(process.pid)
        faults = open_fault_counter(process.pid)
        pager = -1
        for kill in range(kills):
            found = wait_for_pager(supervisor, pager, process)
            if found is None:
                break
            pager, handle = found
            seen = faults[0]
            while kill % 2 and faults[0] == seen and process.poll() is None:
                select.select([handle], [], [], 0.001)
            select.select([handle], [], [], instants.uniform(0, 0.02))  # it is this instant that is random
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            select.select([handle], [], [])
            os.close(handle)
        faults.release()
        return judge(process, kills)


def plan(kills: int) -> Iterator[tuple[str, list[str]]]:
    """Rows of the table, each with its rules, for about so many kills."""
    yield f"after {NATIVE}", rules_at("after", NATIVE, tuple(range(1, kills // 20 + 1)))
    each = max(round(kills / (4 * len(POINTS))), 1)
    for effect in POINTS:
        for side in ("before", "after"):
            yield f"{side} {effect}", rules_at(side, effect, OCCURRENCES[:each])


def fail_stores(only: str) -> bool:
    """Print the table of failing stores -> whether anything was wrong."""
    print(f"{'stores':<22}{'points':>8}{'refused':>9}{'no memory':>11}{'wrong':>7}{'hangs':>7}", flush=True)
    total = Sweep("all")
    for mode in MODES:
        if only not in mode:
            continue
        swept = Sweep(mode)
        for design in DESIGNS:
            swept.add(sweep(mode, design, step=1 if design == SWEPT else STEP))
        total.add(swept)
        print(swept.row(), flush=True)
        print(*swept.said, sep="\n", end="", file=sys.stderr, flush=True)
    print(total.row(), flush=True)
    return bool(total.wrong or total.hangs)


def rot_stores(only: str, seed: int) -> bool:
    """Print the table of rotting stores -> whether anything was wrong."""
    why_not = rot.why_not()
    if why_not:
        print(f"stores that rot: left out ({why_not})", flush=True)
        return False
    print(f"{'rot':<36}{'store':<12}{'points':>8}{'refused':>9}{'right':>7}{'wrong':>7}{'hangs':>7}", flush=True)
    total = rot.Decay("all", "")
    for (damage, finder), (points, stores) in rot.CLASSES.items():
        for store in stores:
            if only not in f"rot: {rot.name_of(damage, finder)}":
                continue
            decayed = rot.decay(damage, finder, store, points, seed)
            total.add(decayed)
            print(decayed.row(), flush=True)
            print(*decayed.said, sep="\n", end="", file=sys.stderr, flush=True)
    print(total.row(), flush=True)
    return bool(total.wrong or total.hangs)


def main() -> int:
    """Print the tables -> exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000, help="about how many pagers are killed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="rows whose name has this in it; rot: for all of rot")
    arguments = parser.parse_args()
    print(f"{'point':<22}{'kills':>7}{'asked':>7}{'wrong':>7}{'hangs':>7}{'longest (ms)':>14}", flush=True)
    total = Outcome()
    asked = 0

    def row(name: str, wanted: int, outcome: Outcome) -> None:
        nonlocal asked
        total.add(outcome)
        asked += wanted
        figures = f"{outcome.kills:>7}{wanted:>7}{outcome.wrong:>7}{outcome.hangs:>7}{outcome.longest * 1000:>14.1f}"
        print(f"{name:<22}{figures}", flush=True)
        if outcome.wrong or outcome.hangs:
            print(outcome.said, file=sys.stderr, flush=True)

    for name, rules in plan(arguments.kills * 6 // 10):
        if arguments.only in name:
            row(name, len(rules), at_points(rules))
    at_instants = max(arguments.kills - total.kills, arguments.kills // 4)
    for seed in range(arguments.seed, arguments.seed + 4):
        if arguments.only in "random instants":
            row("random instants", at_instants // 4 + 1, at_random(at_instants // 4 + 1, seed))
    row_of_all, total = total, Outcome()
    wanted, asked = asked, 0
    row("all", wanted, row_of_all)
    wrong = fail_stores(arguments.only)
    wrong |= rot_stores(arguments.only, arguments.seed)
    return 1 if wrong or row_of_all.wrong or row_of_all.hangs else 0


if __name__ == "__main__":
    sys.exit(main())
