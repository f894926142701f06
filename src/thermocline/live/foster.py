"""A parent for the helpers of a program that adopts orphans: PID 1 of its container, or a subreaper.

Helpers leave the program's family at once, and become children of whatever adopts orphans. Where that is the program
itself, its wait(2) must not meet them: see ``native/foster.c``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Iterable, Sequence

from thermocline.errors import is_ours
from thermocline.live import libc
from thermocline.live.descriptor import moved_up
from thermocline.native import library

#: waitpid(2): a child that sends no SIGCHLD. Without it, none is met.
_WCLONE = -(1 << 31)

#: Foster parents that have not been seen to end.
_parents: list[int] = []


class Starter(ctypes.Structure):
    """``struct tc_starter`` of ``native/thermocline.h``."""

    _fields_ = (
        ("path", ctypes.c_char_p),
        ("arguments", ctypes.POINTER(ctypes.c_char_p)),
        ("environment", ctypes.POINTER(ctypes.c_char_p)),
        ("kept", ctypes.POINTER(ctypes.c_int)),
        ("kept_count", ctypes.c_size_t),
        ("input", ctypes.c_int32),
        ("report", ctypes.c_int32),
    )


def is_needed() -> bool:
    """Whether this process is the one that adopts orphans (pid_namespaces(7))."""
    return os.getpid() == 1 or libc.is_subreaper()


def run(arguments: Sequence[str], text: str, keep: Sequence[int]) -> int:
    """Run a program that starts helpers, and wait for it -> its exit status, negative for a signal.

    It runs in a session of its own. What it leaves behind are its parent's children, and not this process's.

    Parameters
    ----------
    arguments
        Its path, and what follows.
    text
        What it has on its standard input.
    keep
        Descriptors that it has open.

    Raises
    ------
    OSError
        No process can be made.
    """
    reap()
    source = moved_up(os.memfd_create("thermocline-input", os.MFD_CLOEXEC))
    try:
        os.pwrite(source, text.encode(), 0)
        reader, writer = (moved_up(fd) for fd in os.pipe())
        try:
            starter = Starter(
                os.fsencode(arguments[0]),
                _strings(map(os.fsencode, arguments)),
                _strings(name + b"=" + value for name, value in os.environb.items()),
                (ctypes.c_int * len(keep))(*keep),
                len(keep),
                source,
                writer,
            )
            parent = library().tc_foster(ctypes.byref(starter))
            if parent < 0:
                raise OSError(-parent, os.strerror(-parent))
            _parents.append(parent)
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        with open(reader, "rb") as report:
            status = report.read()
    finally:
        os.close(source)
    if len(status) != ctypes.sizeof(ctypes.c_int):
        raise OSError(errno.ECHILD, os.strerror(errno.ECHILD))
    return os.waitstatus_to_exitcode(int.from_bytes(status, sys.byteorder))


def _strings(items: Iterable[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    texts = [*items, None]
    return (ctypes.c_char_p * len(texts))(*texts)


def reap() -> None:
    """Let the kernel forget foster parents that have ended: a little after the last helper."""
    for parent in list(_parents):
        try:
            ended = os.waitpid(parent, os.WNOHANG | _WCLONE)[0]
        except ChildProcessError as error:
            if not is_ours(error):
                raise
            # A forked child: they are its parent's.
            ended = parent
        if ended:
            _parents.remove(parent)
