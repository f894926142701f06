"""The C library's calls that take buffers, as C programs make them; buffers that are tiered, plain, or both."""

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from thermocline import Memory
from thermocline.live import system_calls

#: The wrappers before the C library; where they are not preloaded, through their own handle.
C = ctypes.CDLL(None, use_errno=True)
if not hasattr(C, "tc_syscalls_abi"):
    C = ctypes.CDLL(str(system_calls.LIBRARY), use_errno=True)
C.fdopen.restype = C.fopen.restype = ctypes.c_void_p


class Vector(ctypes.Structure):
    """struct iovec."""

    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("vector", ctypes.c_void_p),
        ("vectors", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = [("header", Header), ("length", ctypes.c_uint)]


class Buffer:
    """Memory in parts that need not lie beside each other.

    Parameters
    ----------
    parts
        One dimension, bytes.
    """

    def __init__(self, *parts: "np.ndarray[Any, Any]") -> None:
        self.parts = parts
        self.size = sum(part.size for part in parts)
        self.tiered: list[Any] = []

    @property
    def address(self) -> int:
        (part,) = self.parts
        return part.ctypes.data

    def vector(self) -> Any:
        return (Vector * len(self.parts))(*((part.ctypes.data, part.size) for part in self.parts))

    def fill(self, data: bytes) -> "Buffer":
        for part in self.parts:
            part[:] = np.frombuffer(data[: part.size], "u1")
            data = data[part.size :]
        return self

    def bytes(self) -> bytes:
        return b"".join(part.tobytes() for part in self.parts)


class Place:
    """Makes buffers.

    Parameters
    ----------
    memory
        Tiered memory. None: all of them are plain.
    """

    def __init__(self, memory: Memory | None) -> None:
        self._memory = memory

    def buffer(self, *sizes: int) -> Buffer:
        """Parts of these sizes. Of several, each second is plain in any case."""
        buffer = Buffer(*(self._part(size, plain=index % 2 == 1) for index, size in enumerate(sizes)))
        buffer.tiered = [
            part.base for index, part in enumerate(buffer.parts) if self._memory and index % 2 == 0 and part.size
        ]
        return buffer

    def _part(self, size: int, plain: bool) -> "np.ndarray[Any, Any]":
        if self._memory is None or plain or not size:
            # From ctypes, which NumPy's allocator has no part in.
            return np.frombuffer((ctypes.c_uint8 * (size + 1)).from_buffer(bytearray(size + 1)), "u1")[1:]
        return self._memory.zeros(size + 64, "u1")[64:]

    def sink(self, buffer: Buffer) -> Buffer:
        """Let nothing of a buffer be in DRAM."""
        for array in buffer.tiered:
            assert self._memory is not None
            self._memory.advise(array, "cold")
        return buffer


def checked(result: int) -> int:
    """The result of a call, or the error that it stands for."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _off(offset: int) -> ctypes.c_longlong:
    return ctypes.c_longlong(offset)


def _size(size: int) -> ctypes.c_size_t:
    return ctypes.c_size_t(size)


def _single(name: str, *, room: bool = False) -> Callable[[int, Buffer, int], int]:
    function = getattr(C, name)
    function.restype = ctypes.c_ssize_t
    more = [_size(1 << 40)] if room else []
    return lambda fd, b, _: checked(function(fd, ctypes.c_void_p(b.address), _size(b.size), *more))


def _placed(name: str, *, room: bool = False) -> Callable[[int, Buffer, int], int]:
    function = getattr(C, name)
    function.restype = ctypes.c_ssize_t
    more = [_size(1 << 40)] if room else []
    return lambda fd, b, at: checked(function(fd, ctypes.c_void_p(b.address), _size(b.size), _off(at), *more))


def _vectored(name: str) -> Callable[[int, Buffer, int], int]:
    function = getattr(C, name)
    function.restype = ctypes.c_ssize_t
    return lambda fd, b, _: checked(function(fd, b.vector(), len(b.parts)))


def _placed_vector(name: str, *more: int) -> Callable[[int, Buffer, int], int]:
    function = getattr(C, name)
    function.restype = ctypes.c_ssize_t
    return lambda fd, b, at: checked(function(fd, b.vector(), len(b.parts), _off(at), *more))


@contextmanager
def stream(fd: int, mode: str) -> Iterator[ctypes.c_void_p]:
    """A FILE over a duplicate of a descriptor."""
    file = ctypes.c_void_p(C.fdopen(os.dup(fd), mode.encode()))
    yield file
    assert C.fclose(file) == 0


def _items(name: str, mode: str, *, room: bool = False) -> Callable[[int, Buffer, int], int]:
    function = getattr(C, name)
    function.restype = ctypes.c_size_t
    before = [_size(1 << 40)] if room else []

    def call(fd: int, buffer: Buffer, _: int) -> int:
        with stream(fd, mode) as file:
            done: int = function(ctypes.c_void_p(buffer.address), *before, _size(1), _size(buffer.size), file)
            if C.ferror(file):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
        return done

    return call


#: Name, and how a file is read at (or up to) an offset: descriptor, buffer, offset -> bytes.
READERS: dict[str, Callable[[int, Buffer, int], int]] = {
    "read": _single("read"),
    "__read_chk": _single("__read_chk", room=True),
    "pread": _placed("pread"),
    "pread64": _placed("pread64"),
    "__pread_chk": _placed("__pread_chk", room=True),
    "__pread64_chk": _placed("__pread64_chk", room=True),
    "fread": _items("fread", "r"),
    "fread_unlocked": _items("fread_unlocked", "r"),
    "__fread_chk": _items("__fread_chk", "r", room=True),
    "__fread_unlocked_chk": _items("__fread_unlocked_chk", "r", room=True),
    "readv": _vectored("readv"),
    "preadv": _placed_vector("preadv"),
    "preadv64": _placed_vector("preadv64"),
    "preadv2": _placed_vector("preadv2", 0),
    "preadv64v2": _placed_vector("preadv64v2", 0),
}
WRITERS: dict[str, Callable[[int, Buffer, int], int]] = {
    "write": _single("write"),
    "pwrite": _placed("pwrite"),
    "pwrite64": _placed("pwrite64"),
    "fwrite": _items("fwrite", "w"),
    "fwrite_unlocked": _items("fwrite_unlocked", "w"),
    "writev": _vectored("writev"),
    "pwritev": _placed_vector("pwritev"),
    "pwritev64": _placed_vector("pwritev64"),
    "pwritev2": _placed_vector("pwritev2", 0),
    "pwritev64v2": _placed_vector("pwritev64v2", 0),
}
VECTORED = {name for name in (*READERS, *WRITERS) if "v" in name}
#: Those that go by the descriptor's own position.
SEQUENTIAL = {name for name in (*READERS, *WRITERS) if not name.strip("_").startswith("p")}


def header(buffer: Buffer, control: int = 0, name: int = 0) -> Header:
    """A message's header, which keeps alive what it points to."""
    made = Header(vectors=len(buffer.parts), control_length=control, name_length=name)
    made.kept = made_vector, made_control, made_name = (  # type: ignore[attr-defined]
        buffer.vector(),
        ctypes.create_string_buffer(max(control, 1)),
        ctypes.create_string_buffer(max(name, 1)),
    )
    made.vector = ctypes.addressof(made_vector)
    made.control = ctypes.addressof(made_control) if control else None
    made.name = ctypes.addressof(made_name) if name else None
    return made


def messages(buffers: Sequence[Buffer]) -> Any:
    """Many messages, for sendmmsg and recvmmsg."""
    headers = [header(buffer) for buffer in buffers]
    made = (Message * len(buffers))(*(Message(header=each) for each in headers))
    made.kept = headers, buffers
    return made


def _addressed(name: str, *, room: bool = False) -> Callable[[int, Buffer, int], int]:
    function = getattr(C, name)
    function.restype = ctypes.c_ssize_t
    more = [_size(1 << 40)] if room else []
    return lambda fd, b, flags: checked(
        function(fd, ctypes.c_void_p(b.address), _size(b.size), *more, flags, None, None)
    )


def _flagged(name: str, *, room: bool = False) -> Callable[[int, Buffer, int], int]:
    function = getattr(C, name)
    function.restype = ctypes.c_ssize_t
    more = [_size(1 << 40)] if room else []
    return lambda fd, b, flags: checked(function(fd, ctypes.c_void_p(b.address), _size(b.size), *more, flags))


def _message(name: str) -> Callable[[int, Buffer, int], int]:
    function = getattr(C, name)
    function.restype = ctypes.c_ssize_t
    return lambda fd, b, flags: checked(function(fd, ctypes.byref(header(b)), flags))


def _many(name: str, *more: None) -> Callable[[int, Buffer, int], int]:
    function = getattr(C, name)

    def call(fd: int, buffer: Buffer, flags: int) -> int:
        batch = messages([buffer])
        assert checked(function(fd, batch, 1, flags, *more)) == 1
        length: int = batch[0].length
        return length

    return call


#: How a socket receives and sends: descriptor, buffer, flags -> bytes.
RECEIVERS: dict[str, Callable[[int, Buffer, int], int]] = {
    "recv": _flagged("recv"),
    "__recv_chk": _flagged("__recv_chk", room=True),
    "recvfrom": _addressed("recvfrom"),
    "__recvfrom_chk": _addressed("__recvfrom_chk", room=True),
    "recvmsg": _message("recvmsg"),
    "recvmmsg": _many("recvmmsg", None),
}
SENDERS: dict[str, Callable[[int, Buffer, int], int]] = {
    "send": _flagged("send"),
    "sendto": lambda fd, b, flags: checked(C.sendto(fd, ctypes.c_void_p(b.address), _size(b.size), flags, None, 0)),
    "sendmsg": _message("sendmsg"),
    "sendmmsg": _many("sendmmsg"),
}
