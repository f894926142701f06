"""Our demotion against the kernel's own: the same touches, and what each demotes.

    python benchmarks/kernel [--room 16384] [--traces NAME ...] [--sides kernel live model] [--json FILE] [--from FILE]

In an emulated machine with a fast and a slow memory node (``tests/numa/emulator.py`` says what it needs) each trace of
``traces.py`` runs on plain memory, where the kernel demotes, and on our live engine; then here in our virtual
interpreter, with as many pages and the watermarks that the kernel had. ``--from`` takes what the machine measured
from a file that ``--json`` wrote, and runs the virtual interpreter only. What is printed is Markdown: pages, of 4 KiB;
"slow" and "hot, fast" are those in the slow node at the end, and the share of those always in use that are in the fast
one; "alike" is the share of pages that are in the same node as the kernel has them in.
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
from traces import TRACES

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.append(str(ROOT / "tests" / "numa"))

from emulator import MIB, Emulator  # noqa: E402

_DEMOTED = ("pgdemote_kswapd", "pgdemote_direct")
_SCANNED = ("pgscan_kswapd", "pgscan_direct")


def measure(room: int, names: list[str], sides: list[str]) -> dict[str, Any]:
    """Run the traces in the emulated machine -> by side, what ``plain.py`` and ``ours.py`` write."""
    python = shlex.quote(str(Path(sys.prefix) / "bin" / "python"))
    chosen = shlex.join(names)
    script = f"set -e; {python} {HERE}/plain.py {room} $RESULTS/kernel {chosen}"
    if "live" in sides:
        script += f"; {python} {HERE}/ours.py {room} $RESULTS/kernel $RESULTS/live {chosen}"
    # The kernel and the interpreter need the most of node 0; a process of a trace at most three rooms of the slow one.
    fast, slow = 512 * MIB + 2 * room * model.PAGE, 512 * MIB
    with tempfile.TemporaryDirectory() as results:
        status = Emulator(fast=fast // MIB * MIB, slow=slow, timeout=3600).run(
            ["sh", "-c", script], directory=ROOT, results=Path(results)
        )
        if status:
            raise SystemExit(f"status {status} in the machine; see what it says above")
        return {path.name: json.loads(path.read_text()) for path in sorted(Path(results).iterdir())}


def demoted(side: Mapping[str, Any]) -> int:
    """Pages that a side has demoted."""
    return sum(side["counted"].get(name, 0) for name in _DEMOTED)


def counted(side: Mapping[str, Any], names: tuple[str, str]) -> str:
    """Two counters, as a sum."""
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


def table(measured: Mapping[str, Any], modelled: Mapping[str, Any], room: int) -> str:
    """What each side did, as Markdown: a row for each trace and side."""
    rows = [
        "| trace | side | demoted | over kernel | by kswapd + direct | scanned, likewise | slow | hot, fast | alike |"
    ]
    rows.append("|---|---|---|---|---|---|---|---|---|")
    for name, kernel in measured["kernel"].items():
        processes = TRACES[name](room)
        sides = {"kernel": kernel, "live": measured.get("live", {}).get(name), "model": modelled.get(name)}
        for label, side in sides.items():
            if side is None:
                continue
            nodes = side.get("nodes")
            slow = sum(part.count(1) for part in nodes) if nodes else side["used"]["numa:1"]
            hot = sum(process.hot for process in processes)
            kept = (
                ""
                if not hot or not nodes
                else sum(part[: process.hot].count(0) for part, process in zip(nodes, processes, strict=True)) / hot
            )
            cells = (
                name if side is kernel else "",
                label,
                f"{demoted(side):,}",
                "" if side is kernel else f"{demoted(side) / demoted(kernel):.3f}",
                counted(side, _DEMOTED),
                counted(side, _SCANNED),
                f"{slow:,}",
                f"{kept:.0%}" if kept != "" else "",
                f"{alike(side, kernel):.0%}" if nodes and side is not kernel else "",
            )
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    """Measure, model and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS
    )
    parser.add_argument("--room", type=int, default=16384)
    parser.add_argument("--traces", nargs="+", choices=TRACES, default=list(TRACES))
    parser.add_argument("--sides", nargs="+", choices=("kernel", "live", "model"), default=["kernel", "live", "model"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--from", type=Path, dest="source")
    chosen = parser.parse_args()
    if chosen.source:
        found = json.loads(chosen.source.read_text())
        room, measured = found["room"], found["measured"]
    else:
        room, measured = chosen.room, measure(chosen.room, chosen.traces, chosen.sides)
    modelled = {}
    if "model" in chosen.sides:
        for name, kernel in measured["kernel"].items():
            modelled[name] = model.run(TRACES[name](room), kernel["zones"], kernel["times"])
    if chosen.json:
        chosen.json.write_text(json.dumps({"room": room, "measured": measured, "modelled": modelled}))
    print(table(measured, modelled, room))


if __name__ == "__main__":
    main()
