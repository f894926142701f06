"""One wheel in every Python that is here: it is installed into a fresh environment of each, and does its work there.

    python tests/wheel.py dist/*.whl

The work is the library example of the README, which a wheel has in its metadata, and a pool of forked processes over a
tiered array. Nothing of the source tree is used for it. `make wheel` builds the wheel and runs this.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

VERSIONS = ("3.11", "3.12", "3.13")

EXAMPLE = """
import doctest, re, sys
from importlib.metadata import metadata

import thermocline

assert thermocline.__file__.startswith(sys.prefix), thermocline.__file__
description = metadata("thermocline").get_payload()
(example,) = re.findall(r"^```python\\n(>>> .*?)^```$", description, re.MULTILINE | re.DOTALL)
test = doctest.DocTestParser().get_doctest(example, {}, "README.md", None, 0)
runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
assert runner.run(test).failed == 0
assert runner.tries >= 8
"""

POOL = """
import multiprocessing
import os

import numpy as np

import thermocline

ROWS = 64
with thermocline.Memory("dram=4MiB, zstd=16MiB, file:/var/tmp=64MiB") as memory:
    array = memory.zeros((ROWS, 1 << 16), "i4")  # 16 MiB: four times its DRAM
    array += np.arange(ROWS, dtype="i4")[:, None]

    def work(row):
        return os.getpid(), int(array[row].sum(dtype="i8"))

    with multiprocessing.get_context("fork").Pool(3) as pool:
        answers = pool.map(work, range(ROWS), chunksize=1)
    assert [total for _, total in answers] == [row << 16 for row in range(ROWS)]
    assert os.getpid() not in {process for process, _ in answers}
    assert memory.stat()["pager"]["starts"] == 1
    del array
"""


def interpreters() -> dict[str, Path]:
    """The Pythons of VERSIONS on the path or of pyenv that run."""
    found = {}
    for version in VERSIONS:
        of_pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
        for candidate in (*of_pyenv, Path(f"python{version}")):
            try:
                asked = subprocess.run([candidate, "-c", "import ssl, venv"], capture_output=True, check=False)
            except OSError:
                continue
            if asked.returncode == 0:
                found[version] = candidate
                break
    return found


def try_out(python: Path, wheel: Path, directory: Path) -> None:
    """Install a wheel into an environment of this Python, and use it. Raises CalledProcessError."""
    environment = directory / "environment"
    subprocess.run([python, "-m", "venv", "--without-pip", environment], check=True)
    own = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", own, "--disable-pip-version-check"]
    install = [*pip, "install", "--quiet", "--no-compile", "--only-binary=:all:", wheel]
    done = subprocess.run(install, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stderr)
    done.check_returncode()
    for name, program in (("example.py", EXAMPLE), ("pool.py", POOL)):
        (directory / name).write_text(program)
        subprocess.run([own, "-I", name], cwd=directory, timeout=100, check=True)


def main() -> int:
    (wheel,) = (Path(argument).resolve() for argument in sys.argv[1:])
    print(wheel.name)
    found = interpreters()
    for version in VERSIONS:
        if version not in found:
            print(f"Python {version}: skipped, none is here")
            continue
        with tempfile.TemporaryDirectory(prefix="thermocline-wheel-") as directory:
            try_out(found[version], wheel, Path(directory))
        print(f"Python {version}: the example and a forked pool work", flush=True)
    if not found:
        print(f"no Python of {', '.join(VERSIONS)} is here", file=sys.stderr)
    return not found


if __name__ == "__main__":
    sys.exit(main())
