"""The program of a calibration: a process that maps an arena and touches its pages when it is told to.

It is a process of its own, because the pager of a live memory is one: what a pager does to the pages of another
process costs more than what it does to its own. Here the calibrating process is the pager, and starts the program.

It cannot be left behind. A blocked touch goes on when the last descriptor of the userfaultfd is closed, which the
calibrating process holds, and after it the program finds the other end of its socket closed.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from thermocline.errors import ThermoclineError, UnsupportedError
from thermocline.live import libc
from thermocline.live.buffer import cast_column
from thermocline.live.mapping import Mapping
from thermocline.live.userfaultfd import UserFaultFd, open_userfaultfd

#: The most touches that can be ordered at once.
MOST_TOUCHES = 512
#: Columns of the sheet, a word for each touch: the byte to touch; when the touch began, and when it was over.
_WHERE, _BEGUN, _ENDED, _COLUMNS = range(4)
_SHEET_BYTES = -(-8 * _COLUMNS * MOST_TOUCHES // mmap.PAGESIZE) * mmap.PAGESIZE

#: An order: touches (0: run until the next message), whether they write, nanoseconds to sleep before each.
_ORDER = struct.Struct("=QQQ")
_HELLO = struct.Struct("=Q")
_DONE = b"done"
_MESSAGE_BYTES = 4096
#: Touches of a program that runs between two looks for a message.
_BETWEEN_LOOKS = 2000


class Program:
    """The program, as its pager sees it.

    Parameters
    ----------
    size : int
        Bytes of the arena. They take memory only where they are filled.

    Attributes
    ----------
    arena : int
        The memfd.
    address : int
        Where the program has mapped it.
    mapping : Mapping
        Where it has the arena, in base pages.
    uffd : UserFaultFd
        On which that mapping is registered.
    control : int
        Has news when the program has touched everything, and when it is gone.

    Raises
    ------
    UnsupportedError
        There is no userfaultfd to be had.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        with contextlib.ExitStack() as undo:
            self.arena = os.memfd_create("thermocline-calibration", os.MFD_CLOEXEC)
            undo.callback(os.close, self.arena)
            os.ftruncate(self.arena, size)
            sheet = os.memfd_create("thermocline-calibration", os.MFD_CLOEXEC)
            undo.callback(os.close, sheet)
            os.ftruncate(sheet, _SHEET_BYTES)
            self._sheet = cast_column(memoryview(mmap.mmap(sheet, _SHEET_BYTES)), "Q")
            undo.callback(self._sheet.release)
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(self._control.close)
            with theirs:
                self._process = _start(theirs.fileno(), self.arena, sheet)
            undo.callback(self._end)
            hello, fds, _, _ = socket.recv_fds(self._control, _MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
            if not fds:
                raise UnsupportedError(hello.decode() or "the program to measure with could not be started")
            undo.callback(os.close, fds[0])
            self.uffd = UserFaultFd(fds[0])
            (self.address,) = _HELLO.unpack(hello)
            self.mapping = Mapping(0, self.uffd, self.address, mmap.PAGESIZE, process=-1)
            self._undo = undo.pop_all()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def control(self) -> int:
        """See the class."""
        return self._control.fileno()

    def touch(self, offsets: Sequence[int], *, pause: float = 0.0) -> None:
        """Let it write a byte at each offset, one after the other, with a sleep before each -> at once."""
        for index, offset in enumerate(offsets):
            self._sheet[_WHERE * MOST_TOUCHES + index] = offset
        self._control.send(_ORDER.pack(len(offsets), round(pause * 1e9), 0))

    def touched(self, count: int) -> list[tuple[int, int]]:
        """Wait for the end of so many touches -> when each began and was over, in nanoseconds of `perf_counter_ns`.

        Raises
        ------
        ThermoclineError
            The program is gone.
        """
        self._listen()
        begun, ended = _BEGUN * MOST_TOUCHES, _ENDED * MOST_TOUCHES
        return list(zip(self._sheet[begun : begun + count], self._sheet[ended : ended + count], strict=True))

    @contextlib.contextmanager
    def running(self, offset: int) -> Iterator[None]:
        """Let it touch a resident page all the time: its processor has entries in the TLB then."""
        self._control.send(_ORDER.pack(0, 0, offset))
        self._listen()
        yield
        self._control.send(_DONE)
        self._listen()

    def _listen(self) -> None:
        if not self._control.recv(_MESSAGE_BYTES):
            raise ThermoclineError("the program to measure with has ended; calibrate again")

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Keep it on other processors than this thread, if there are any.

        A program of several threads runs on others than its pager. The one thread of this program would now and then be
        put on the same one: a quarter of the cost, or all of it, as chance will have it.
        """
        processors = os.sched_getaffinity(0)
        here = {min(processors)}
        if len(processors) == 1:
            yield
            return
        os.sched_setaffinity(0, here)
        try:
            os.sched_setaffinity(self.pid, processors - here)
            yield
        finally:
            os.sched_setaffinity(0, processors)
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(self.pid, processors)

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it, and free the arena."""
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _start(control: int, arena: int, sheet: int) -> subprocess.Popen[bytes]:
    """Start the process: an interpreter of its own, as the helpers of a live memory are."""
    path = [entry for entry in sys.path if entry]
    code = (
        f"import sys; sys.path[:] = {path!r}; "
        f"from thermocline.lab.calibration import program; program.main({control}, {arena}, {sheet})"
    )
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=(control, arena, sheet),
        start_new_session=True,  # Ctrl-C is for the process that measures
    )


# -- in the program ---------------------------------------------------------------------------------------------------


def main(control: int, arena: int, sheet: int) -> None:
    """Be the program until the other end of the control socket is closed."""
    pager = socket.socket(fileno=control)
    size = os.fstat(arena).st_size
    try:
        opened = open_userfaultfd()
    except UnsupportedError as error:
        pager.send(str(error).encode()[:_MESSAGE_BYTES])
        return
    address = libc.mmap(None, size, libc.PROT_READ | libc.PROT_WRITE, libc.MAP_SHARED | libc.MAP_NORESERVE, arena)
    UserFaultFd(opened.fd).register(address, size)
    socket.send_fds(pager, [_HELLO.pack(address)], [opened.fd])
    os.close(opened.fd)
    memory = memoryview((ctypes.c_ubyte * size).from_address(address)).cast("B")
    words = cast_column(memoryview(mmap.mmap(sheet, _SHEET_BYTES)), "Q")
    with contextlib.suppress(ConnectionError):
        while order := pager.recv(_MESSAGE_BYTES):
            count, pause, offset = _ORDER.unpack(order)
            if count:
                _touch(memory, words, count, pause / 1e9)
            else:
                pager.send(_DONE)
                _run(memory, pager, offset)
            pager.send(_DONE)


def _touch(memory: memoryview[int], words: memoryview[int], count: int, pause: float) -> None:
    clock, sleep = time.perf_counter_ns, time.sleep
    for index in range(count):
        offset = words[_WHERE * MOST_TOUCHES + index]
        if pause:
            sleep(pause)
        begun = clock()
        memory[offset] = 1
        ended = clock()
        words[_BEGUN * MOST_TOUCHES + index] = begun
        words[_ENDED * MOST_TOUCHES + index] = ended


def _run(memory: memoryview[int], pager: socket.socket, offset: int) -> None:
    news = select.poll()
    news.register(pager, select.POLLIN)
    while not news.poll(0):
        for _ in range(_BETWEEN_LOOKS):
            memory[offset]
    pager.recv(_MESSAGE_BYTES)
