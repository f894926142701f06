"""When a program's work begins and ends. The programs know nothing else of how they are run.

``BENCH_CGROUP`` names the cgroup in which it is, ``BENCH_LIMIT`` bytes to which the work is to be limited, if any.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from limits import Cgroup


class Stage:
    """The work of a program, from now on: all is imported."""

    def __init__(self) -> None:
        self._cgroup = Cgroup(Path(os.environ["BENCH_CGROUP"]))
        limit = int(os.environ.get("BENCH_LIMIT", "0"))
        self._before = self._cgroup.leave_to_data(limit) if limit else self._cgroup.used()
        self._begun = time.perf_counter()

    def end(self, *results: float) -> None:
        """Say what came out, and what it took."""
        seconds = time.perf_counter() - self._begun
        spent = self._cgroup.most() - self._before
        print(json.dumps({"seconds": seconds, "results": list(map(float, results)), "spent": spent}), flush=True)
