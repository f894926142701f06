"""The same traces on our live engine, in the same machine, with ``dram`` and ``numa:1``.

    python benchmarks/kernel/ours.py ROOM FILE TRACE...

A fault takes ten milliseconds there, so the room is better a small one. What comes out is a list of one object of JSON
for each trace: ``counted`` (our counters), ``used`` (pages in each node at the end), ``seconds``.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from traces import PIECE, TRACES, Process

import thermocline

PAGE = mmap.PAGESIZE


def touch(array: Any, process: Process) -> None:
    """Make a process's touches."""
    found = np.zeros(PIECE, np.uint8)
    for write, pages in process.pieces():
        if write:
            array[pages * PAGE] = 1
        else:
            np.take(array, pages * PAGE, out=found[: len(pages)], mode="clip")


def run(processes: list[Process], capacity: int) -> dict[str, Any]:
    """Run a trace in so many pages of DRAM; its processes but the first are forked."""
    spec = f"dram={capacity * PAGE}, numa:1={sum(process.pages for process in processes) * PAGE}"
    with thermocline.Memory(spec, page_size=PAGE, readahead=0) as memory:
        arrays = [memory.zeros(process.pages * PAGE, "u1") for process in processes]
        begun = time.monotonic()
        children = []
        for array, process in zip(arrays[1:], processes[1:], strict=True):
            child = os.fork()
            if not child:
                touch(array, process)
                os._exit(0)
            children.append(child)
        touch(arrays[0], processes[0])
        for child in children:
            if os.waitpid(child, 0)[1]:
                raise SystemExit("a process of the trace has died; see its message above")
        seconds = time.monotonic() - begun
        said = memory.stat()
        used = {name: node["used"] // PAGE for name, node in said["nodes"].items()}
        del arrays
    return {"counted": said["vmstat"], "used": used, "seconds": seconds}


def main() -> None:
    """Run the traces of the command line."""
    room, file, names = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    results = {}
    for name in names:
        results[name] = [run(TRACES[name](room), room)]
        print(f"{name}, ours: {results[name][0]['seconds']:.0f} s", file=sys.stderr, flush=True)
        file.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
