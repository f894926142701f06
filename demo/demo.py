"""The same program twice: in plain memory, and with its large arrays in a fraction of the DRAM.

`topics.py` knows nothing of thermocline. First it runs as it is; then under `thermocline run`, with less
than a quarter of the DRAM that its arrays took. The two results must be the same to the last bit.

    python demo.py
    python demo.py --share 8          an eighth instead
    python demo.py --documents 8000   a smaller matrix

Exit status: 0 if the results are identical, 1 if they differ, 2 if a run could not be made.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

TOPICS = Path(__file__).with_name("topics.py")
STAGE = "topics: "  # begins the lines in which topics.py tells how far it is
MIB = 1 << 20

# Threads add partial sums in the order in which they finish. One thread makes two runs alike to the last bit.
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "BLIS")}


class Failure(Exception):
    """A run that could not be made; the message says why."""


class Display(Protocol):
    """Whoever shows a person how far a run is."""

    def __call__(self, stage: str) -> None: ...


@dataclass
class Run:
    """What one run of a program took and said."""

    seconds: float = 0.0
    peak: int = 0
    """Bytes: the largest resident set of the program, or of a child it waited for."""
    output: str = ""
    remarks: list[str] = field(default_factory=list)
    """Lines on stderr that are not stages."""
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds that each stage took, in order."""


@contextlib.contextmanager
def display(console: Console, title: str) -> Iterator[Display]:
    """Show the stages of a run: one living line on a terminal, a line for each stage elsewhere."""
    if not console.is_terminal:
        yield lambda stage: console.print(f"{title}: {stage}", highlight=False)
        return
    columns = SpinnerColumn(finished_text="✓"), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=1)
        yield lambda stage: progress.update(task, description=f"{title}: {stage}")
        progress.update(task, description=title, completed=1)


def listen(stream: IO[str], run: Run, show: Display) -> None:
    """Read the stderr of a run to its end: stages go to the display and are timed, the rest is kept."""
    current, since = "starting", time.monotonic()

    def end() -> None:
        run.stages[current] = run.stages.get(current, 0.0) + time.monotonic() - since

    for line in stream:
        if line.startswith(STAGE):
            end()
            current, since = line.removeprefix(STAGE).strip(), time.monotonic()
            show(current)
        else:
            run.remarks.append(line.rstrip())
    end()


def measured(command: list[str], show: Display) -> Run:
    """Run a command to its end and measure it. Whatever interrupts us ends the command too.

    Raises `Failure` if the command fails.
    """
    run = Run()
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:  # a file and not a pipe: nobody need read it meanwhile
        process = subprocess.Popen(
            command,
            env=os.environ | ONE_THREAD,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            process_group=0,  # Ctrl-C reaches us alone, and we pass it on once
        )
        assert process.stderr is not None
        listener = threading.Thread(target=listen, args=(process.stderr, run, show), daemon=True)
        listener.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            end(process)
            raise
        run.seconds = time.monotonic() - started
        run.peak = usage.ru_maxrss * 1024
        listener.join(timeout=5)  # a helper process may hold stderr a little longer than the program
        output.seek(0)
        run.output = output.read()
    if process.returncode:
        said = "\n".join(run.remarks[-20:])
        raise Failure(f"{' '.join(command)}\nended with status {process.returncode}\n{said}")
    return run


def end(process: subprocess.Popen[str]) -> None:
    """End a command politely, so that it cleans up; after ten seconds, without a question."""
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def differences(plain: dict[str, Any], tiered: dict[str, Any]) -> list[str]:
    """What differs between two results of topics.py, in words; empty if nothing does."""
    if plain["documents"] != tiered["documents"]:
        return ["the text on this machine changed meanwhile (is something being installed?): run it again"]
    found = []
    for key, expected in plain.items():
        actual = tiered[key]
        if actual == expected:
            continue
        if key == "labels":
            count = sum(a != b for a, b in zip(expected, actual, strict=True))
            found.append(f"labels: {count:,} of {len(expected):,} documents are in another cluster")
        else:
            found.append(f"{key}:\n    plain   {str(expected)[:300]}\n    tiered  {str(actual)[:300]}")
    return found


def size(count: float) -> str:
    """A number of bytes for a reader."""
    return f"{count / MIB:,.0f} MiB"


def duration(seconds: float) -> str:
    """A time for a reader, in the unit that fits."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:,.1f} {unit}"
    return f"{seconds / 1e-6:,.1f} µs"


def comparison(plain: Run, tiered: Run, footprint: int, budget: int, stat: dict[str, Any]) -> Table:
    """Memory and time of both runs, side by side."""
    lower = {name: node for name, node in stat["nodes"].items() if name != "dram"}
    table = Table(title="The same program, the same result")
    table.add_column()
    table.add_column("plain", justify="right")
    table.add_column("tiered", justify="right")
    table.add_row("DRAM of the data, at most", size(footprint), size(stat["arena"]["peak_resident"]))
    table.add_row("  its limit", "none", size(budget))
    for name, node in lower.items():
        title = "on disk" if name.startswith("file") else f"compressed in DRAM ({name})"
        table.add_row(f"  {title}, at most", "", size(node["peak"]))
    table.add_row("whole program resident, at most", size(plain.peak), size(tiered.peak), end_section=True)
    for stage, seconds in tiered.stages.items():
        table.add_row(f"  {stage}", duration(plain.stages.get(stage, 0.0)), duration(seconds))
    table.add_row("time", duration(plain.seconds), duration(tiered.seconds))
    table.add_row("  ratio", "1", f"{tiered.seconds / plain.seconds:.1f}")
    return table


def counters(stat: dict[str, Any]) -> Table:
    """What thermocline did: the counters that moved, and how long a fault took."""
    wanted = re.compile(r"pgfault|pgdemote|pgpromote|allocstall|workingset_refault|readahead|shadow")
    table = Table(title="What it took (the kernel's names; base pages)")
    table.add_column("counter")
    table.add_column("count", justify="right")
    for name, count in stat["vmstat"].items():
        if wanted.match(name) and count:
            table.add_row(name, f"{count:,}")
    table.add_section()
    for name, seconds in stat["fault_seconds"].items():
        table.add_row(f"a fault, {name}", f"{seconds:,}" if name == "count" else duration(seconds))
    return table


def disk() -> str | None:
    """A folder on a disk for the file tier. /tmp is often memory, and that would be cheating."""
    return "/var/tmp" if os.access("/var/tmp", os.W_OK) else None


def demonstration(args: argparse.Namespace, console: Console, folder: Path) -> int:
    """Make both runs, print what they say and took; the exit status."""
    python = sys.executable
    script = [str(TOPICS), "--documents", str(args.documents), "--terms", str(args.terms), "--progress"]

    with display(console, "the plain run") as show:
        imports = measured([python, str(TOPICS), "--help"], show)
        plain = measured([python, *script, "--out", str(folder / "plain.json")], show)
    footprint = plain.peak - imports.peak  # bytes; a twentieth of it is text and word lists, not arrays
    budget = max(footprint // args.share // MIB, 1) * MIB
    memory = f"dram={budget // MIB}MiB, zstd={budget // MIB}MiB, file:{folder}={2 * footprint // MIB}MiB"

    with display(console, f"the tiered run, in {size(budget)}") as show:
        under = [
            python,
            "-m",
            "thermocline.cli",
            "run",
            "--memory",
            memory,
            "--stat",
            str(folder / "stat.json"),
        ]
        tiered = measured([*under, "--", *script, "--out", str(folder / "tiered.json")], show)

    console.print(plain.output, highlight=False, markup=False, soft_wrap=True)
    results = [json.loads((folder / name).read_text()) for name in ("plain.json", "tiered.json")]
    different = differences(*results)
    if plain.output != tiered.output and not different:
        different = ["the printed answers"]
    if different:
        console.print("The tiered run came to another result.", style="bold red")
        for difference in different:
            console.print(f"  {difference}", highlight=False, markup=False)
        return 1

    stat = json.loads((folder / "stat.json").read_text())
    console.print(comparison(plain, tiered, footprint, budget, stat))
    console.print(counters(stat))
    console.print(f'--memory "{memory}"', highlight=False, markup=False)
    console.print("Both runs have one BLAS thread, so that sums are added in one order and compare exactly.")
    for remark in tiered.remarks:
        console.print(remark, highlight=False, markup=False, style="dim")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--documents", type=int, default=24_000, help="rows of the matrix (%(default)s)")
    parser.add_argument("--terms", type=int, default=4_000, help="columns of the matrix (%(default)s)")
    parser.add_argument("--share", type=int, default=5, help="DRAM is the footprint over this (%(default)s)")
    args = parser.parse_args()
    if args.share < 1:
        parser.error("--share must be 1 or more")
    console = Console()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that `with` blocks clean up
    try:
        with tempfile.TemporaryDirectory(prefix="thermocline-demo-", dir=disk()) as folder:
            return demonstration(args, console, Path(folder))
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
