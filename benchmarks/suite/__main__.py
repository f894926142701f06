"""Thermocline beside what a user would pick instead: ratios of two sides, alternating in one run.

    python benchmarks/suite [--quick] [--rounds 5] [--sections NAME ...] [--sides SIDE ...] [--json FILE]
    python benchmarks/suite --render FILE [--page benchmarks/README.md]

Each section has a module, each side in it a process of its own for every round, and whatever is read is checked. What
cannot be run here is left out, and the reason is said. The second form writes what a run has found between the marks of
a page.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import allocation
import floor
import render
import resident
import scale
import spill
import start
import tiering
import whole_programs
from contents import KINDS
from plan import Plan, full, quick
from samples import Table
from sides import SIDES
from workloads import ALGORITHMS

_PAGE = Path(__file__).parents[1] / "README.md"
_PACKAGES = ("numpy", "blosc2", "scipy", "scikit-learn", "pandas", "zict", "distributed")
CONTENTS = (*KINDS, *ALGORITHMS)
Section = Callable[[Plan, list[str]], Iterator[tuple[str, Table]]]
SECTIONS: dict[str, Section] = {
    "arrays": tiering.measure,
    "programs": whole_programs.measure,
    "resident": resident.measure,
    "whole arrays": spill.measure,
    "allocation": allocation.measure,
    "floor": floor.measure,
    "scale": scale.measure,
    "start": start.measure,
}


def machine() -> str:
    """What this runs on, in a sentence."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    return f"{os.cpu_count()} processors ({model}), {memory:.0f} GiB, Linux {platform.release()}."


def versions() -> str:
    """Of what is compared, in a sentence."""
    found = [f"Python {platform.python_version()}"]
    for package in ("thermocline", *_PACKAGES):
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"no {package}")
    return f"{', '.join(found)}."


def measured(
    plan: Plan,
    sections: list[str],
    sides: list[str],
    earlier: dict[str, Any],
    write: Callable[[dict[str, Any]], None],
) -> None:
    """Measure section by section, and hand on what there is after each table: a long run may be interrupted."""
    begun = time.monotonic() - earlier.get("seconds", 0.0)
    results: dict[str, Any] = {
        "command": plan.name,
        "rounds": plan.rounds,
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": versions(),
        "seconds": 0.0,
        "left_out": {name: why for name, why in earlier.get("left_out", {}).items() if name not in sections},
        "tables": earlier.get("tables", {}),
    }
    for name in sections:
        since = time.monotonic()
        try:
            for key, table in SECTIONS[name](plan, sides):
                results["tables"][key] = table.as_dict()
                print(f"\n{render.markdown(table)}", flush=True)
                results["seconds"] = time.monotonic() - begun
                write(results)
        except OSError as error:
            results["left_out"][name] = str(error)
            print(f"{name}: not measured, {error}", flush=True)
        print(f"\n({name}: {time.monotonic() - since:.0f} s)", flush=True)
        write(results)


def main() -> None:
    """Measure, print and write; or render what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less data, and fewer workloads")
    parser.add_argument("--scale", type=float, default=1.0, help="make everything smaller, for a try")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sections", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--contents", nargs="+", choices=CONTENTS, default=CONTENTS, help="of those that there are")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--directory", default="/var/tmp", help="where files are made: on a disk (default /var/tmp)")
    parser.add_argument("--json", type=Path, help="write the results")
    parser.add_argument("--update", action="store_true", help="keep what is in that file of other sections")
    parser.add_argument("--render", type=Path, metavar="JSON", help="put results into the page, and measure nothing")
    parser.add_argument("--page", type=Path, default=_PAGE)
    options = parser.parse_args()
    if options.update and (options.json is None or not options.json.exists()):
        parser.error("there is nothing to update; write --json FILE, of an earlier run")
    if options.render is not None:
        render.into(options.page, render.page(json.loads(options.render.read_text())))
        return
    # Like Ctrl-C, a polite end undoes what the suite has set up: swap above all.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))

    def write(results: dict[str, Any]) -> None:
        if options.json is not None:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(results, indent=1) + "\n")

    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        plan = (quick if options.quick else full)(Path(directory), options.rounds)
        kinds = {kind: names for kind, names in plan.workloads.items() if kind in options.contents}
        plan = replace(plan, workloads=kinds)
        if options.scale != 1:
            plan = replace(plan.scaled(options.scale), name=f"{plan.name}, at {options.scale:g} of its size")
        earlier = json.loads(options.json.read_text()) if options.update else {}
        measured(plan, options.sections, options.sides, earlier, write)


if __name__ == "__main__":
    main()
