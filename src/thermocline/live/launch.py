"""Starting the supervisor, and being ended when it ends."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from thermocline.errors import UnsupportedError, is_ours
from thermocline.live import foster
from thermocline.live.channel import Channel
from thermocline.live.config import Config

#: fcntl(2): which signal to send when a descriptor has news, and the flag that asks for it.
_F_SETSIG = 10


def start(config: Config) -> None:
    """Start the supervisor of a memory.

    It runs an interpreter of its own, without ``site`` (no user code runs in it) but with this one's module path,
    and leaves this process's family at once: a program that waits for its children never meets it. Where this process
    would adopt it, it has another parent.

    Raises
    ------
    UnsupportedError
        ``sys.executable`` does not start: it may be a program that embeds Python.
    OSError
        EMFILE: this process may not open more files. EAGAIN: its user may have no more processes. ENOMEM: there is no
        memory for one.
    """
    path = [entry for entry in sys.path if entry]
    # The fork comes before the imports, for until then this process waits.
    code = (
        "import os, sys\n"
        "if os.fork(): os._exit(0)\n"
        f"sys.path[:] = {path!r}\n"
        "from thermocline.live import supervisor\n"
        "supervisor.main(sys.stdin.read())"
    )
    keep = [*config.descriptors, config.program]
    command = [sys.executable or "", "-I", "-S", "-c", code]
    try:
        status = (foster.run if foster.is_needed() else _run)(command, config.dumps(), keep)
        failed = f"it ends with status {status}" if status else ""
    except OSError as error:
        if not is_ours(error) or error.errno in (errno.EMFILE, errno.EAGAIN, errno.ENOMEM):
            raise  # the interpreter is not to blame
        failed = str(error.strerror)
    if failed:
        raise UnsupportedError(
            f'"{sys.executable}" starts no supervisor ({failed}); set sys.executable to a Python interpreter'
        )


def _run(command: Sequence[str], text: str, keep: Sequence[int]) -> int:
    starter = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=keep,
        start_new_session=True,  # a signal to the program's process group is none of the helpers' business
        text=True,
    )
    starter.communicate(text)
    return starter.returncode


def hold_lifeline(lifeline: Channel) -> None:
    """Let the kernel kill this process when the other end of the socket is closed."""
    fd = lifeline.fileno()
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)


def let_go_of_lifeline(lifeline: Channel) -> None:
    """The opposite of :func:`hold_lifeline`. Nothing, if the program has closed it."""
    if lifeline.is_ours:
        fd = lifeline.number
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_ASYNC)
