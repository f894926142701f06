"""Debian's kernel, for a machine that is emulated: downloaded once, unpacked, kept in the user's cache.

A kernel of its own is what lets a test have two tiers of memory, whatever runs on the machine that it is started on;
and Debian's is built with everything that the slow node needs.
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

#: Debian packages by the program of theirs that is needed, here or by the tests in the machine.
PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "setpriv": "util-linux",
    "numactl": "numactl",
}

#: Drivers that the machine asks for by name; what these depend on comes with them. The first row is the way to the host
#: (its files, the output), the second the way from a persistent memory module to a NUMA node.
#: ``device_dax`` is not among them: it would take the device that ``kmem`` is to have.
DRIVERS = (
    *("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"),
    *("nfit", "nd_pmem", "dax_pmem", "kmem"),
)

_XZ = b"\xfd7zXZ\0"


class CannotRun(Exception):
    """What the machine needs is not to be had here: one line that says what to do."""


def install() -> None:
    """Have apt install the programs that are missing.

    Raises
    ------
    CannotRun
        There is no apt, or no right to use it, or it fails.
    """
    missing = [package for program, package in PACKAGES.items() if not shutil.which(program)]
    if not missing:
        return
    wanted = " ".join(missing)
    if not shutil.which("apt-get"):
        raise CannotRun(f"these programs are missing, and there is no apt-get to install them with: {wanted}")
    if os.geteuid():
        raise CannotRun(f"packages are missing; run: sudo apt-get install {wanted}")
    get = ["apt-get", "--quiet=2", "--yes", "--no-install-recommends", "install", *missing]
    if not _succeeds(get):  # on a fresh machine apt knows no packages yet
        _succeeds(["apt-get", "--quiet=2", "update"])
        if not _succeeds(get):
            raise CannotRun(f"apt-get could not install {wanted}; see what it says above")


def kernel() -> Path:
    """A folder with Debian's newest kernel as apt knows it, ``vmlinux``, and its modules ``*.ko``.

    Raises
    ------
    CannotRun
        None was kept from an earlier time, and none can be downloaded.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "thermocline", "kernels")
    kept = sorted(cache.glob("linux-image-*/vmlinux"), key=os.path.getmtime)
    if kept:
        return kept[-1].parent
    if not shutil.which("apt-get"):
        raise CannotRun("there is no apt-get to download Debian's kernel with")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as name:
        scratch = Path(name)
        package = _newest() or (_succeeds(["apt-get", "--quiet=2", "update"]) and _newest())
        if not package:
            raise CannotRun("apt knows no linux-image-amd64; is this Debian?")
        _succeeds(["apt-get", "--quiet=2", "-o", "APT::Sandbox::User=root", "download", package], scratch)
        archives = list(scratch.glob("*.deb"))
        if not archives or not _succeeds(["dpkg-deb", "--extract", archives[0].name, "."], scratch):
            raise CannotRun(f"apt-get download {package} failed; run apt-get update, and see what it says above")
        (ready := scratch / "ready").mkdir()
        for module in scratch.glob("lib/modules/**/*.ko"):
            module.rename(ready / module.name)
        image = next(scratch.glob("boot/vmlinuz-*")).read_bytes()
        # The kernel within its packing: to unpack it costs the emulated machine seconds at each start.
        (ready / "vmlinux").write_bytes(lzma.LZMADecompressor().decompress(image[image.index(_XZ) :]))
        try:
            return ready.rename(cache / package)
        except OSError:  # somebody else was faster
            return cache / package


def modules(home: Path, drivers: Sequence[str] = DRIVERS) -> list[Path]:
    """The modules of these drivers and all that they depend on, in the order in which they can be loaded.

    What is not there is part of this kernel's image.
    """
    found = {path.stem.replace("-", "_"): path for path in home.glob("*.ko")}
    order: list[Path] = []

    def add(name: str) -> None:
        path = found.get(name)
        if path is None or path in order:
            return
        depends = re.search(rb"\0depends=([^\0]*)\0", path.read_bytes())
        for other in depends[1].decode().split(",") if depends else ():
            add(other.replace("-", "_"))
        order.append(path)

    for driver in drivers:
        add(driver)
    return order


def _newest() -> str | None:
    """The package that Debian's name for its newest kernel stands for."""
    said = subprocess.run(["apt-cache", "depends", "linux-image-amd64"], capture_output=True, text=True, check=False)
    depends = re.search(r"Depends: (linux-image-\S+)", said.stdout)
    return depends[1] if depends else None


def _succeeds(command: Sequence[str], directory: Path | None = None) -> bool:
    """Run a command of apt's -> whether it succeeded. What it says on stderr is shown."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    ran = subprocess.run(command, cwd=directory, env=environment, stdout=subprocess.DEVNULL, check=False)
    return ran.returncode == 0
