"""The build hook: compiles the native library as a part of ``pip install`` and of every wheel.

python hatch_build.py TARGET     compiles it alone; CFLAGS adds flags, CC names the compiler
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent
NATIVE = Path("src", "thermocline", "native")
LIBRARY = "libthermocline.so"
#: Each library, and the folder whose ``*.c`` it is compiled from.
LIBRARIES = {LIBRARY: ".", "libthermocline-syscalls.so": "syscalls"}
# -fexceptions: the end of a thread unwinds through us, where it waits for the GIL of an interpreter that shuts down.
FLAGS = "-std=gnu11 -O2 -g -fPIC -shared -pthread -fvisibility=hidden -fexceptions -Wall -Wextra"
COMPILERS = ("cc", "gcc", "clang")


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
    """Compile the library whole or not at all, and print the compiler's warnings.

    Raises
    ------
    SystemExit
        There is no C compiler, or it fails.
    """
    scratch = target.with_suffix(f".{os.getpid()}")
    files = sorted(str(path) for path in sources.glob("*.c"))
    flags = [*FLAGS.split(), *shlex.split(os.environ.get("CFLAGS", ""))]
    command = [*compiler(), *flags, "-o", str(scratch), *files]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            failed = f"thermocline: the C compiler failed (it needs libc6-dev as well): {shlex.join(command)}"
            raise SystemExit(f"{done.stdout}\n{failed}")
        print(done.stdout, end="", file=sys.stderr)
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)


def compiler() -> list[str]:
    """The command that is the C compiler: ``$CC``, or the first that is there.

    Raises
    ------
    SystemExit
        There is none.
    """
    named = shlex.split(os.environ.get("CC", ""))
    if named and not shutil.which(named[0]):
        raise SystemExit(f"thermocline: there is no C compiler {named[0]}; unset CC, or let it name one")
    found = named or [name for name in COMPILERS if shutil.which(name)][:1]
    if not found:
        raise SystemExit("thermocline: a C compiler is needed; run: sudo apt-get install gcc libc6-dev")
    return found


if __name__ == "__main__":
    wanted = Path(sys.argv[1])
    compile_library(ROOT / NATIVE / LIBRARIES.get(wanted.name, "."), wanted)
