"""Programs that may be ended by anything, in a directory that is given back whatever they end by."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def victim(workload: Path, *arguments: object, **how: Any) -> Iterator[subprocess.Popen[Any]]:
    """Run a workload; its last argument is its directory. ``how`` is of ``subprocess.Popen``."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        command = [sys.executable, str(workload), *map(str, arguments), directory]
        with subprocess.Popen(command, stdout=subprocess.PIPE, **how) as process:
            yield process
