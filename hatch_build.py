"""The build hook: compiles the native library as a part of ``pip install`` and of every wheel."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE = Path("src", "thermocline", "native")
#: Each library, and the folder whose ``*.c`` it is compiled from.
LIBRARIES = {"libthermocline.so": ".", "libthermocline-syscalls.so": "syscalls"}
FLAGS = "-std=gnu11 -O2 -g -fPIC -shared -pthread -fvisibility=hidden -Wall -Wextra"


class NativeBuildHook(BuildHookInterface[Any]):
    """Compiles the C of ``src/thermocline/native`` into the libraries beside it."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and mark the wheel as one for this machine and any Python 3."""
        del version
        if self.target_name != "wheel":
            return
        native = Path(self.root) / NATIVE
        for library, folder in LIBRARIES.items():
            compile_library(native / folder, native / library)
            build_data["artifacts"].append(str(NATIVE / library))
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-linux_{platform.machine()}"


def compile_library(sources: Path, target: Path) -> None:
    """Compile the library whole or not at all.

    Raises
    ------
    SystemExit
        There is no C compiler, or it fails.
    """
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    if compiler is None:
        raise SystemExit("thermocline: no C compiler is found; install one: sudo apt-get install gcc libc6-dev")
    scratch = target.with_suffix(f".{os.getpid()}")
    files = sorted(str(path) for path in sources.glob("*.c"))
    command = [*compiler.split(), *FLAGS.split(), *os.environ.get("CFLAGS", "").split(), "-o", str(scratch), *files]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"thermocline: the C compiler failed: {' '.join(command)}\n{done.stderr}")
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)
