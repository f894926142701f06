"""The fence around tiered memory in a forked child that could not be attached: who touches it is told why, and ends.

It shares neither the registration of its parent's memory nor anybody who would answer a fault. So nothing is mapped
there, a touch is a SIGSEGV, and a handler in machine code says what happened before that ends it.
"""

from __future__ import annotations

import ctypes
import signal
from pathlib import Path
from typing import Any

from thermocline.errors import UnsupportedError
from thermocline.live import libc
from thermocline.live.fence import plain
from thermocline.machine_code import MachineCode

FENCE = MachineCode(
    name="fence",
    purpose="telling a forked child why it ends",
    source=Path(__file__).with_name("fence.ll"),
    functions=("handler",),
    plain=plain.MACHINES,
    choice="THERMOCLINE_PLAIN_FENCE",
)

_MESSAGE = (
    b"thermocline: this forked child has touched a tiered array of its parent's, which it was not given; it ends.\n"
    b"thermocline: open files may have run out (ulimit -n), or userfaultfd be forbidden here; else pickle the array.\n"
)
#: Where the handler looks, which nobody can hand it anything: an address that is as good as never in use.
ADDRESS = 0x1EAF00000000
_SIZE = 4096
#: Where in that page the actions and the message are; struct sigaction is 152 bytes.
_DEFAULT, _PREVIOUS, _SAID = 512, 1024, 2048
_MAP_FIXED_NOREPLACE = 0x100000
_SA_SIGINFO = 4

_libc = ctypes.CDLL(None)


class _Fence(ctypes.Structure):
    """``%Fence`` of ``fence.ll``."""

    _fields_ = (
        ("low", ctypes.c_uint64),
        ("high", ctypes.c_uint64),
        ("message", ctypes.c_void_p),
        ("length", ctypes.c_uint64),
        ("write", ctypes.c_void_p),
        ("sigaction", ctypes.c_void_p),
        ("raise_", ctypes.c_void_p),
        ("default", ctypes.c_void_p),
        ("previous", ctypes.c_void_p),
    )


class _Action(ctypes.Structure):
    """``struct sigaction`` of the C library, on 64-bit Linux (sigaction(2))."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_char * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


_handler = 0


def prepare(low: int, high: int) -> None:
    """Make ready for children, in the parent, once: a child that was just forked had better do little.

    Where that cannot be (no code for this machine, no code may be loaded, the address is taken), a child ends all the
    same, and without a word.
    """
    global _handler  # noqa: PLW0603 - there is one handler a process
    if _handler:
        return
    try:
        address = FENCE.load()["handler"]
        flags = libc.MAP_PRIVATE | libc.MAP_ANONYMOUS | _MAP_FIXED_NOREPLACE
        if libc.mmap(ADDRESS, _SIZE, libc.PROT_READ | libc.PROT_WRITE, flags) != ADDRESS:
            return  # a kernel before 4.17 takes the address for a hint
    except (UnsupportedError, OSError):
        return
    ctypes.memmove(ADDRESS + _SAID, _MESSAGE, len(_MESSAGE))
    fence = _Fence.from_address(ADDRESS)
    fence.low, fence.high = low, high
    fence.message, fence.length = ADDRESS + _SAID, len(_MESSAGE)
    fence.write, fence.sigaction, fence.raise_ = (_function(name) for name in ("write", "sigaction", "raise"))
    fence.default, fence.previous = ADDRESS + _DEFAULT, ADDRESS + _PREVIOUS  # zeros: SIG_DFL
    _handler = address


def install() -> None:
    """In a forked child: let the handler meet whoever touches tiered memory; other faults go where they went."""
    if _handler:
        action = _Action(handler=_handler, flags=_SA_SIGINFO)
        _libc.sigaction(int(signal.SIGSEGV), ctypes.byref(action), ctypes.c_void_p(ADDRESS + _PREVIOUS))


def _function(name: str) -> int | None:
    function: Any = getattr(_libc, name)
    return ctypes.cast(function, ctypes.c_void_p).value
