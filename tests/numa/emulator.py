"""An emulated machine with a fast and a slow memory node, and one command run in it.

    python tests/numa/emulator.py [--fast 768M] [--slow 512M] [--results DIRECTORY] -- COMMAND...

Node 0 has two processors and the fast memory. Node 1 has no processor, is twice as far away, and is in a lower memory
tier: reclaim on node 0 demotes to it (``demotion_enabled``). The command runs as root in the current directory, and
sees the files of this machine; what it writes is gone afterwards, except for what it writes to the directory $RESULTS.
It has no network and an empty stdin.

The processors are emulated (QEMU's TCG), so no hardware is needed and nothing measures time: everything takes ten to
thirty times as long, and not everything equally. Counters are those of a real kernel.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from initramfs import initramfs
from kernel import CannotRun, install, kernel, modules

MIB = 1 << 20
#: Memory is added to a running system in blocks of this size (x86-64).
BLOCK = 128 * MIB
#: So much of the console is shown when the machine fails.
_LINES = 30
#: QEMU emulates "rep movsb" byte by byte, so neither kernel nor libc is told that this is the fast way to copy. A fifth
#: level of page tables, and checks of what the kernel accesses, would only be more to emulate.
_PROCESSOR = "max,-erms,-fsrm,-la57,-smap,-smep"
#: What the kernel is told. It takes "rep movsq" for fast on its own account, clears memory that nobody asked it to, and
#: panics at boot if another program keeps this machine from answering the test of its timer in time.
_KERNEL = (
    *("clearcpuid=rep_good", "init_on_alloc=0", "no_timer_check"),
    *("mitigations=off", "audit=0", "apparmor=0"),
)
#: What the command finds in its environment, unless told otherwise.
_ENVIRONMENT = {
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "RESULTS": "/run/exchange/results",
}


class EmulatorFailed(Exception):
    """The machine did not get as far as the end of the command: why, and what its console says of it."""


@dataclass(frozen=True)
class Emulator:
    """What the machine is made of.

    Attributes
    ----------
    fast : int
        Bytes of node 0. The kernel itself takes some 100 MiB of it.
    slow : int
        Bytes of node 1, in whole blocks of 128 MiB.
    timeout : float
        Seconds that starting it and the command may take together.
    """

    fast: int = 768 * MIB
    slow: int = 512 * MIB
    timeout: float = 900

    def run(
        self,
        command: Sequence[str],
        *,
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
        results: Path | None = None,
        stdout: BinaryIO | None = None,
        stderr: BinaryIO | None = None,
    ) -> int:
        """Start the machine, run a command, let the machine end -> the command's exit status.

        Parameters
        ----------
        command : sequence of str
            The program and its arguments; a program without a slash is looked for as on a plain system.
        directory : Path or None
            Where; None: the current one.
        environment : mapping or None
            What is in the command's environment besides HOME, LANG, PATH and RESULTS.
        results : Path or None
            Where what the command wrote to $RESULTS is copied to, whether it succeeded or not.
        stdout, stderr : file or None
            Where its output goes while it is produced; None: to this process's own.

        Raises
        ------
        CannotRun
            QEMU or the kernel is not there, and cannot be installed.
        EmulatorFailed
            The kernel did not start, or ended before the command did, or the time was up.
        """
        if self.slow % BLOCK or self.slow <= 0:
            raise CannotRun(f"the slow node has {self.slow} bytes; write a multiple of {BLOCK >> 20}M")
        install()
        home = kernel()
        with tempfile.TemporaryDirectory(prefix="thermocline-numa-") as name:
            scratch = Path(name)
            exchange = scratch / "exchange"
            (exchange / "results").mkdir(parents=True)
            variables = [f"{key}={value}" for key, value in (_ENVIRONMENT | dict(environment or {})).items()]
            (exchange / "command").write_text(
                f"cd {shlex.quote(str(directory or Path.cwd()))} || exit 126\n"
                f"exec env -i {shlex.join(variables)} {shlex.join(command)}\n"
            )
            (scratch / "initramfs").write_bytes(_first_files(home))
            failure = self._emulate(home, scratch, stdout or sys.stdout.buffer, stderr or sys.stderr.buffer)
            if results is not None:
                shutil.copytree(exchange / "results", results, dirs_exist_ok=True)
            if failure is not None:
                console = (scratch / "console").read_text(errors="replace") if (scratch / "console").exists() else ""
                raise EmulatorFailed("\n    ".join([f"{failure}; its console:", *_telling(console.splitlines())]))
            return int((exchange / "status").read_text())

    def _emulate(self, home: Path, scratch: Path, stdout: BinaryIO, stderr: BinaryIO) -> str | None:
        """Run QEMU until it ends -> what went wrong, if something did."""
        pairs = [socket.socketpair() for _ in range(3)]
        (stdout_end, stderr_end, monitor), theirs = zip(*pairs, strict=True)
        with stdout_end, stderr_end, monitor:
            emulator = subprocess.Popen(
                # Whatever becomes of this process, the emulator is not left behind.
                ["setpriv", "--pdeathsig", "KILL", *self._arguments(home, scratch, [end.fileno() for end in theirs])],
                stdin=subprocess.DEVNULL,
                pass_fds=[end.fileno() for end in theirs],
            )
            try:
                for end in theirs:
                    end.close()
                with contextlib.suppress(BrokenPipeError):  # it did not even start
                    monitor.sendall(b'{"execute": "qmp_capabilities"}')  # before that it tells nothing
                over = _forward({stdout_end: stdout, stderr_end: stderr}, time.monotonic() + self.timeout)
                if not over:
                    return f"it was killed after {self.timeout:g} seconds"
                # Its output has ended, so it has; or nearly.
                if emulator.wait(timeout=60):
                    return f"QEMU failed with status {emulator.returncode}"
                if not (scratch / "exchange" / "status").exists():
                    return f"it ended before the command did ({_reason(monitor)})"
                return None
            finally:
                emulator.kill()
                emulator.wait()

    def _arguments(self, home: Path, scratch: Path, sockets: Sequence[int]) -> list[str]:
        # A block more than is asked for: the description of the module's contents spoils the first.
        module = self.slow + BLOCK
        most = (self.fast + module) // MIB + 1024
        arguments = f"""
            qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot
            -machine q35,nvdimm=on -accel tcg,thread=multi -cpu {_PROCESSOR} -smp 2
            -m {self.fast // MIB}M,slots=1,maxmem={most}M
            -object memory-backend-ram,id=fast,size={self.fast}
            -object memory-backend-ram,id=slow,size={module}
            -numa node,nodeid=0,memdev=fast,cpus=0-1
            -numa node,nodeid=1
            -numa dist,src=0,dst=1,val=20
            -device nvdimm,memdev=slow,node=1
            -kernel {home}/vmlinux
            -serial file:{scratch}/console
            -device virtio-serial-pci
        """.split()
        arguments += ["-initrd", f"{scratch}/initramfs"]
        arguments += ["-append", " ".join(["console=ttyS0 quiet panic=-1", *_KERNEL])]
        shares = (("files", "/", "on"), ("exchange", f"{scratch}/exchange", "off"))
        for tag, path, readonly in shares:
            arguments += [
                *("-fsdev", f"local,id={tag},path={path},security_model=none,multidevs=remap,readonly={readonly}"),
                *("-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"),
            ]
        *outputs, monitor = sockets
        arguments += ["-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=control"]
        for number, descriptor in enumerate(outputs, 1):
            arguments += [
                *("-chardev", f"socket,id=output{number},fd={descriptor}"),
                *("-device", f"virtserialport,chardev=output{number},nr={number}"),
            ]
        return arguments


def _reason(monitor: socket.socket) -> str:
    """Why QEMU says that the machine ended: guest-shutdown, guest-reset (it crashed), host-signal (somebody's kill)."""
    told = b""
    with contextlib.suppress(ConnectionResetError):
        while data := monitor.recv(1 << 16):
            told += data
    reason = re.search(rb'"reason": "([a-z-]+)"', told)
    return reason[1].decode() if reason else "QEMU does not say why"


def _telling(console: Sequence[str]) -> Sequence[str]:
    """The lines that say why a machine failed: a panic and what follows, and otherwise the last ones.

    A panic's reason comes first and then its trace, which is of any length and may be cut short.
    """
    panic = next((number for number, line in enumerate(console) if "Kernel panic" in line), None)
    return console[-_LINES:] if panic is None else console[panic : panic + _LINES]


def _first_files(home: Path) -> bytes:
    """What the kernel starts from."""
    order = modules(home)
    busybox = shutil.which("busybox")
    assert busybox is not None  # installed
    files: dict[str, bytes | None] = dict.fromkeys(
        ("bin", "dev", "proc", "sys", "modules", "host", "written", "root"), None
    )
    files["bin/busybox"] = Path(busybox).read_bytes()
    files["init"] = Path(__file__).with_name("init.sh").read_bytes()
    files["modules/order"] = "".join(f"{path.name}\n" for path in order).encode()
    files |= {f"modules/{path.name}": path.read_bytes() for path in order}
    return initramfs(files)


def _forward(outputs: Mapping[socket.socket, BinaryIO], deadline: float) -> bool:
    """Pass on what comes from each socket until all have ended -> False if the time was up before."""
    with selectors.DefaultSelector() as selector:
        for end, file in outputs.items():
            selector.register(end, selectors.EVENT_READ, file)
        while selector.get_map():
            ready = selector.select(max(deadline - time.monotonic(), 0))
            if not ready:
                return False
            for key, _ in ready:
                data = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                if data:
                    key.data.write(data)
                    key.data.flush()
                else:
                    selector.unregister(key.fileobj)
    return True


def bytes_of(text: str) -> int:
    """The bytes of a size like 512M or 1G."""
    match = re.fullmatch(r"(\d+)([MG])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text} is no size; write 512M, or 1G")
    return int(match[1]) * (MIB if match[2] == "M" else 1024 * MIB)


def main() -> int:
    """Run the command of the command line; 125 if the machine itself failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS
    )
    parser.add_argument("--fast", type=bytes_of, default=Emulator.fast)
    parser.add_argument("--slow", type=bytes_of, default=Emulator.slow)
    parser.add_argument("--timeout", type=float, default=Emulator.timeout)
    parser.add_argument("--results", type=Path)
    parser.add_argument("command", nargs="+")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return Emulator(chosen.fast, chosen.slow, chosen.timeout).run(chosen.command, results=chosen.results)
    except (CannotRun, EmulatorFailed) as error:
        print(f"{os.path.basename(__file__)}: {error}", file=sys.stderr)
        return 125


if __name__ == "__main__":
    sys.exit(main())
