"""Our demotion against the kernel's own: the same touches, and what each demotes.

    python benchmarks/kernel [--room 16384] [--rounds 3] [--traces NAME ...] [--json FILE] [--from FILE]

In an emulated machine with a fast and a slow memory node (``tests/numa/emulator.py`` says what it needs) each trace of
``traces.py`` runs on plain memory, where the kernel demotes, and on our live engine, in an eighth of the room; then
here in our virtual interpreter, with as many pages and the watermarks that the kernel had. The second table is the same
with ``kernel.numa_balancing`` at 2: what is used in the slow node comes back. ``--from`` takes what the machine
measured from a file that ``--json`` wrote, and runs the virtual interpreter only.

What is printed is Markdown. The kernel's row is its median round by pages demoted, and in brackets are the least and
the most of all rounds. Pages are of 4 KiB; "hot, fast" is the share of the pages always in use that end in the fast
node, "alike" the share of all that end in the node in which the kernel has them.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import model
from traces import TRACES, Process

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.append(str(ROOT / "tests" / "numa"))

from emulator import MIB, Emulator  # noqa: E402

_DEMOTED = ("pgdemote_kswapd", "pgdemote_direct")
_SCANNED = ("pgscan_kswapd", "pgscan_direct")
#: By how much the room of the live engine is smaller.
_LIVE = 8
#: What each row says of a trace and a side.
_HEADS = ("trace", "side", "demoted", "over kernel", "by kswapd + direct", "promoted", "scanned", "slow", "hot, fast")


def measure(room: int, rounds: int, names: list[str]) -> dict[str, Any]:
    """Run the traces in the emulated machine -> by side, what ``plain.py`` and ``ours.py`` write."""
    python, chosen = shlex.quote(str(Path(sys.prefix) / "bin" / "python")), shlex.join(names)
    script = f"""set -e
        {python} {HERE}/plain.py {room} {rounds} 0 $RESULTS/kernel {chosen}
        {python} {HERE}/plain.py {room} {rounds} 2 $RESULTS/balancing {chosen}
        {python} {HERE}/ours.py {room // _LIVE} $RESULTS/live {chosen}
    """
    fast = 640 * MIB + 2 * room * model.PAGE // MIB * MIB  # the interpreter of Python needs the most of it
    with tempfile.TemporaryDirectory() as results:
        status = Emulator(fast=fast, slow=512 * MIB, timeout=3600).run(
            ["sh", "-c", script], directory=ROOT, results=Path(results)
        )
        if status:
            raise SystemExit(f"status {status} in the machine; see what it says above")
        return {path.name: json.loads(path.read_text()) for path in sorted(Path(results).iterdir())}


def demoted(side: Mapping[str, Any]) -> int:
    """Pages that a side has demoted."""
    return sum(side["counted"].get(name, 0) for name in _DEMOTED)


def median(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The round in the middle, by pages demoted."""
    return sorted(rounds, key=demoted)[len(rounds) // 2]


def counted(side: Mapping[str, Any], *names: str) -> str:
    """Counters, as a sum."""
    return " + ".join(f"{side['counted'].get(name, 0):,}" for name in names)


def alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """The share of all touched pages that ended in the same node."""
    pairs = [
        pair
        for ours, theirs in zip(one["nodes"], other["nodes"], strict=True)
        for pair in zip(ours, theirs, strict=True)
        if max(pair) >= 0
    ]
    return sum(a == b for a, b in pairs) / len(pairs)


def kept(side: Mapping[str, Any], processes: list[Process]) -> str:
    """The share of hot pages that are in the fast node."""
    hot = sum(process.hot for process in processes)
    if not hot or "nodes" not in side:
        return ""
    fast = sum(part[: process.hot].count(0) for part, process in zip(side["nodes"], processes, strict=True))
    return f"{fast / hot:.0%}"


def row(name: str, label: str, side: Mapping[str, Any], over: str, processes: list[Process], spread: str = "") -> str:
    """What a side did with a trace."""
    slow = sum(part.count(1) for part in side["nodes"]) if "nodes" in side else side["used"]["numa:1"]
    cells = (
        name,
        label,
        f"{demoted(side):,}{spread}",
        over,
        counted(side, *_DEMOTED),
        counted(side, "pgpromote_success"),
        counted(side, *_SCANNED),
        f"{slow:,}",
        kept(side, processes),
    )
    return f"| {' | '.join(cells)} |"


def table(kernel: Mapping[str, Any], sides: Mapping[str, Mapping[str, Any]], room: int) -> str:
    """What each side did, as Markdown: a row for each trace and side."""
    rows = [f"| {' | '.join(_HEADS)} |", "|---" * len(_HEADS) + "|"]
    for name, rounds in kernel.items():
        processes, its = TRACES[name](room), median(rounds)
        counts = sorted(map(demoted, rounds))
        rows.append(row(name, "kernel", its, "", processes, f" [{counts[0]:,}, {counts[-1]:,}]"))
        for label, results in sides.items():
            side = results[name][0]
            share = _LIVE if label == "live" else 1
            over = f"{share * demoted(side) / demoted(its):.3f}"
            if "nodes" in side:
                over += f", alike {alike(side, its):.0%}"
            rows.append(row("", label if share == 1 else f"{label}, 1/{share} of the room", side, over, processes))
    return "\n".join(rows)


def main() -> None:
    """Measure, model and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS
    )
    parser.add_argument("--room", type=int, default=16384)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--traces", nargs="+", choices=TRACES, default=list(TRACES))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--from", type=Path, dest="source")
    chosen = parser.parse_args()
    if chosen.source:
        found = json.loads(chosen.source.read_text())
        room, measured = found["room"], found["measured"]
    else:
        room, measured = chosen.room, measure(chosen.room, chosen.rounds, chosen.traces)
    if chosen.json:
        chosen.json.write_text(json.dumps({"room": room, "measured": measured}))
    for side, promotion in (("kernel", False), ("balancing", True)):
        modelled = {}
        for name, rounds in measured[side].items():
            its = median(rounds)
            modelled[name] = [model.run(TRACES[name](room), its["zones"], its["times"], promotion=promotion)]
        sides = {"virtual": modelled}
        if promotion and "live" in measured:  # it cannot be told not to promote
            sides["live"] = measured["live"]
        print(table(measured[side], sides, room), "\n")


if __name__ == "__main__":
    main()
