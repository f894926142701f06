"""Every wrapped call on tiered memory, with the result that it has on plain memory. `test_system_calls.py` runs this.

The process has user-mode faults served only: without a wrapper each of these calls is EFAULT, or short.
"""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import random
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from calls import (
    READERS,
    RECEIVERS,
    SENDERS,
    SEQUENTIAL,
    VECTORED,
    WRITERS,
    Buffer,
    C,
    Place,
    checked,
    header,
    messages,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thermocline import Memory
from thermocline.live import libc
from thermocline.live.address_space import address_space
from thermocline.live.userfaultfd import UserFaultFd, open_userfaultfd

MIB = 1 << 20
SIZES = [1, 4096, 4097, 2 * MIB + 17]
DATA = random.Random(7).randbytes(9 * MIB)


@pytest.fixture(scope="module")
def memory() -> Iterator[Memory]:
    with Memory("dram=1MiB, zstd=64MiB") as made:
        assert made.serves_system_calls
        yield made


@pytest.fixture(params=["tiered", "plain"])
def place(request: pytest.FixtureRequest, memory: Memory) -> Place:
    """Each test says what the result is; that plain memory has it proves the test."""
    return Place(memory if request.param == "tiered" else None)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.fixture(
    params=[socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET], ids=["stream", "dgram", "packet"]
)
def sockets(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    yield from _pair(request.param)


@pytest.fixture
def streams() -> Iterator[tuple[int, int]]:
    yield from _pair(socket.SOCK_STREAM)


@pytest.fixture
def datagrams() -> Iterator[tuple[int, int]]:
    yield from _pair(socket.SOCK_DGRAM)


def _pair(kind: int) -> Iterator[tuple[int, int]]:
    one, other = socket.socketpair(socket.AF_UNIX, kind)
    with one, other:
        yield one.fileno(), other.fileno()


def sizes_of(name: str, size: int) -> Sequence[int]:
    return (size // 3, size // 2, 0, size - size // 3 - size // 2) if name in VECTORED else (size,)


class Reader(threading.Thread):
    """Takes all that comes out of a descriptor, up to a number of bytes."""

    def __init__(self, fd: int, size: int) -> None:
        super().__init__()
        self._fd, self._size = fd, size
        self.got = bytearray()
        self.start()

    def run(self) -> None:
        while len(self.got) < self._size:
            self.got += os.read(self._fd, 1 << 16)


def test_without_the_wrapper_it_would_be_an_error(memory: Memory, file: int) -> None:
    opened = open_userfaultfd()
    os.close(opened.fd)
    assert not opened.serves_system_calls
    buffer = Place(memory).sink(Place(memory).buffer(1 << 17))
    C.syscall.restype = ctypes.c_long
    with pytest.raises(OSError, match="Bad address"):  # write(2), straight to the kernel
        checked(C.syscall(1, file, ctypes.c_void_p(buffer.address), ctypes.c_size_t(buffer.size)))


class TestFiles:
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("name", WRITERS)
    def test_are_written_whole(self, place: Place, file: int, name: str, size: int) -> None:
        buffer = place.sink(place.buffer(*sizes_of(name, size)).fill(DATA))
        os.write(file, b"before")
        assert WRITERS[name](file, buffer, 6) == size
        assert os.pread(file, size + 100, 0) == b"before" + DATA[:size]
        assert os.lseek(file, 0, os.SEEK_CUR) == (6 + size if name in SEQUENTIAL else 6)

    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("name", READERS)
    def test_are_read_until_the_buffer_is_full(self, place: Place, file: int, name: str, size: int) -> None:
        os.write(file, b"before" + DATA)
        os.lseek(file, 6, os.SEEK_SET)
        buffer = place.sink(place.buffer(*sizes_of(name, size)))
        assert READERS[name](file, buffer, 6) == size
        assert buffer.bytes() == DATA[:size]
        if name in SEQUENTIAL and "fread" not in name:  # stdio reads ahead
            assert os.lseek(file, 0, os.SEEK_CUR) == 6 + size

    @pytest.mark.parametrize("there", [0, 5000, MIB, MIB + 4095])
    @pytest.mark.parametrize("name", READERS)
    def test_are_read_to_their_end_and_no_byte_beyond_changes(
        self, place: Place, file: int, name: str, there: int
    ) -> None:
        os.pwrite(file, DATA[:there], 0)
        buffer = place.sink(place.buffer(*sizes_of(name, 2 * MIB)).fill(b"\x55" * 2 * MIB))
        assert READERS[name](file, buffer, 0) == there
        assert buffer.bytes() == DATA[:there] + b"\x55" * (2 * MIB - there)

    @pytest.mark.parametrize("name", [*READERS, *WRITERS])
    def test_an_error_is_the_kernels(self, place: Place, name: str) -> None:
        if name.startswith(("f", "__f")):
            pytest.skip("a FILE has a descriptor of its own")
        call = READERS.get(name) or WRITERS[name]
        for size in (100, 2 * MIB):
            with pytest.raises(OSError) as caught:
                call(-1, place.sink(place.buffer(size)), 0)
            assert caught.value.errno == errno.EBADF

    @pytest.mark.parametrize("name", ["pread", "pwrite", "preadv2", "pwritev"])
    def test_a_pipe_has_no_offset(self, place: Place, pipe: tuple[int, int], name: str) -> None:
        with pytest.raises(OSError) as caught:
            (READERS.get(name) or WRITERS[name])(pipe["w" in name], place.sink(place.buffer(9000)), 0)
        assert caught.value.errno == errno.ESPIPE

    def test_errno_stays_when_nothing_fails(self, place: Place, file: int) -> None:
        buffer = place.sink(place.buffer(2 * MIB).fill(DATA))
        ctypes.set_errno(77)
        WRITERS["write"](file, buffer, 0)
        assert ctypes.get_errno() == 77

    def test_an_offset_of_minus_one_is_the_files_own(self, place: Place, file: int) -> None:
        buffer = place.sink(place.buffer(3 * MIB).fill(DATA))
        os.lseek(file, 10, os.SEEK_SET)
        assert WRITERS["pwritev2"](file, buffer, -1) == 3 * MIB
        assert os.pread(file, 4 * MIB, 10) == DATA[: 3 * MIB]
        os.lseek(file, 10, os.SEEK_SET)
        assert READERS["preadv2"](file, place.sink(buffer), -1) == 3 * MIB
        assert buffer.bytes() == DATA[: 3 * MIB]

    def test_that_are_appended_to_grow_at_their_end(self, place: Place, tmp_path: Path) -> None:
        fd = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            for part in range(2):
                buffer = place.sink(place.buffer(9 * MIB // 2).fill(DATA[part * 9 * MIB // 2 :]))
                os.lseek(fd, 0, os.SEEK_SET)
                assert WRITERS["write"](fd, buffer, 0) == 9 * MIB // 2
            assert os.pread(fd, 10 * MIB, 0) == DATA
        finally:
            os.close(fd)

    def test_of_direct_io_are_written_and_read(self, place: Place, tmp_path: Path) -> None:
        try:
            fd = os.open(tmp_path / "direct", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
        except OSError:
            pytest.skip("this file system has no O_DIRECT")
        try:
            buffer = place.buffer(3 * MIB + 4096)
            parts = buffer.parts[0]
            aligned = Buffer(parts[-parts.ctypes.data % 4096 :][: 3 * MIB])
            aligned.fill(DATA)
            place.sink(buffer)
            assert WRITERS["write"](fd, aligned, 0) == 3 * MIB
            aligned.fill(bytes(3 * MIB))
            place.sink(buffer)
            assert READERS["pread"](fd, aligned, 0) == 3 * MIB
            assert aligned.bytes() == DATA[: 3 * MIB]
            small = Buffer(aligned.parts[0][:4096])
            assert READERS["pread"](fd, small, 8192) == 4096
            assert small.bytes() == DATA[8192:12288]
        finally:
            os.close(fd)

    def test_that_may_not_grow_are_written_as_far_as_they_may(self, place: Place, file: int) -> None:
        import resource

        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIB + 100, before[1]))
        try:
            assert WRITERS["write"](file, place.sink(place.buffer(3 * MIB)), 0) == MIB + 100
            with pytest.raises(OSError) as caught:
                WRITERS["write"](file, place.buffer(3 * MIB), 0)
            assert caught.value.errno == errno.EFBIG
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    def test_more_vectors_than_the_kernel_takes_are_refused(self, place: Place, file: int) -> None:
        buffer = place.buffer(*[10] * 1025)
        with pytest.raises(OSError) as caught:
            WRITERS["writev"](file, buffer, 0)
        assert caught.value.errno == errno.EINVAL

    @pytest.mark.parametrize("size", [100_000, 3 * MIB])
    def test_without_room_for_a_bounce_buffer_are_written_and_read(self, place: Place, file: int, size: int) -> None:
        import resource

        buffer = place.sink(place.buffer(size).fill(DATA))
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (MIB, before[1]))
        try:
            written = WRITERS["write"](file, buffer, 0)
            read = READERS["pread"](file, place.sink(buffer), 0)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
        assert (written, read) == (size, size)
        assert buffer.bytes() == DATA[:size]
        assert os.pread(file, 4 * MIB, 0) == DATA[:size]


class TestStreamsOfTheCLibrary:
    def test_count_whole_items(self, place: Place, file: int) -> None:
        os.pwrite(file, DATA[: 2 * MIB + 5], 0)
        buffer = place.sink(place.buffer(3 * MIB))
        C.fread.restype = ctypes.c_size_t
        stream = ctypes.c_void_p(C.fdopen(os.dup(file), b"r"))
        try:
            count = C.fread(ctypes.c_void_p(buffer.address), ctypes.c_size_t(10), ctypes.c_size_t(300_000), stream)
            assert count == (2 * MIB + 5) // 10
            assert C.feof(stream) and not C.ferror(stream)
            assert C.ftell(stream) == 2 * MIB + 5
        finally:
            C.fclose(stream)
        assert buffer.bytes()[: 2 * MIB + 5] == DATA[: 2 * MIB + 5]

    def test_go_on_where_the_last_call_ended(self, place: Place, file: int) -> None:
        os.pwrite(file, DATA, 0)
        stream = ctypes.c_void_p(C.fdopen(os.dup(file), b"r"))
        C.fread.restype = ctypes.c_size_t
        got = b""
        try:
            for size in (10, MIB + 3, 1, 5000, 2 * MIB):
                buffer = place.sink(place.buffer(size))
                assert (
                    C.fread(ctypes.c_void_p(buffer.address), ctypes.c_size_t(1), ctypes.c_size_t(size), stream) == size
                )
                got += buffer.bytes()
                assert C.ftell(stream) == len(got)
        finally:
            C.fclose(stream)
        assert got == DATA[: len(got)]

    def test_say_that_a_disk_is_full(self, place: Place) -> None:
        fd = os.open("/dev/full", os.O_WRONLY)
        try:
            with pytest.raises(OSError) as caught:
                WRITERS["fwrite"](fd, place.sink(place.buffer(2 * MIB)), 0)
            assert caught.value.errno == errno.ENOSPC
        finally:
            os.close(fd)


class TestPipes:
    @pytest.mark.parametrize("name", ["write", "writev", "fwrite"])
    def test_take_all_that_is_written(self, place: Place, pipe: tuple[int, int], name: str) -> None:
        buffer = place.sink(place.buffer(*sizes_of(name, 3 * MIB)).fill(DATA))
        reader = Reader(pipe[0], 3 * MIB)
        assert WRITERS[name](pipe[1], buffer, 0) == 3 * MIB
        reader.join()
        assert reader.got == DATA[: 3 * MIB]

    @pytest.mark.parametrize("name", ["read", "__read_chk", "readv"])
    def test_give_what_is_there(self, place: Place, pipe: tuple[int, int], name: str) -> None:
        os.write(pipe[1], DATA[:50_000])
        buffer = place.sink(place.buffer(*sizes_of(name, 3 * MIB)))
        assert READERS[name](pipe[0], buffer, 0) == 50_000
        assert buffer.bytes()[:50_000] == DATA[:50_000]

    def test_give_as_much_in_one_call_as_they_hold(self, place: Place, pipe: tuple[int, int]) -> None:
        held = fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, MIB)
        os.write(pipe[1], DATA[:held])
        buffer = place.sink(place.buffer(3 * MIB))
        assert READERS["read"](pipe[0], buffer, 0) == held

    def test_that_do_not_block_take_what_there_is_room_for(self, place: Place, pipe: tuple[int, int]) -> None:
        os.set_blocking(pipe[1], False)
        room = fcntl.fcntl(pipe[1], fcntl.F_GETPIPE_SZ)
        buffer = place.sink(place.buffer(3 * MIB).fill(DATA))
        assert WRITERS["write"](pipe[1], buffer, 0) == room
        with pytest.raises(BlockingIOError):
            WRITERS["write"](pipe[1], place.sink(buffer), 0)
        assert os.read(pipe[0], 3 * MIB) == DATA[:room]

    def test_that_do_not_block_and_are_empty_say_so(self, place: Place, pipe: tuple[int, int]) -> None:
        os.set_blocking(pipe[0], False)
        with pytest.raises(BlockingIOError):
            READERS["read"](pipe[0], place.sink(place.buffer(2 * MIB)), 0)

    def test_whose_reader_is_gone_say_so(self, place: Place) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        try:
            with pytest.raises(BrokenPipeError):  # Python ignores SIGPIPE
                WRITERS["write"](writer, place.sink(place.buffer(2 * MIB)), 0)
        finally:
            os.close(writer)

    def test_a_signal_interrupts(self, place: Place, pipe: tuple[int, int]) -> None:
        buffer = place.buffer(2 * MIB)
        with signalled():
            with pytest.raises(InterruptedError):
                READERS["read"](pipe[0], buffer, 0)
            full = fcntl.fcntl(pipe[1], fcntl.F_GETPIPE_SZ)
            assert WRITERS["write"](pipe[1], buffer, 0) == full


class signalled:
    """A signal comes again and again, which is caught, and no call is restarted after it (sigaction(2))."""

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGALRM, lambda *_: None)
        signal.siginterrupt(signal.SIGALRM, True)
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)


class TestSockets:
    @pytest.mark.parametrize("receive", RECEIVERS)
    @pytest.mark.parametrize("send", SENDERS)
    def test_pass_a_message_on(self, place: Place, sockets: tuple[int, int], send: str, receive: str) -> None:
        size = 70_001
        sent = place.sink(place.buffer(*((30_000, 40_000, 1) if "msg" in send else (size,))).fill(DATA))
        got = place.sink(place.buffer(*((10, 60_000, 9_992) if "msg" in receive else (size + 1,))))
        assert SENDERS[send](sockets[0], sent, 0) == size
        assert RECEIVERS[receive](sockets[1], got, 0) == size
        assert got.bytes()[:size] == DATA[:size]

    @pytest.mark.parametrize("send", [*SENDERS, "write", "writev"])
    def test_streams_take_all_that_is_sent(self, place: Place, streams: tuple[int, int], send: str) -> None:
        sizes = (MIB, 7, 2 * MIB - 7) if "v" in send or "msg" in send else (3 * MIB,)
        buffer = place.sink(place.buffer(*sizes).fill(DATA))
        reader = Reader(streams[1], 3 * MIB)
        assert (SENDERS.get(send) or WRITERS[send])(streams[0], buffer, 0) == 3 * MIB
        reader.join()
        assert reader.got == DATA[: 3 * MIB]

    @pytest.mark.parametrize("receive", RECEIVERS)
    def test_streams_give_all_that_is_waited_for(self, place: Place, streams: tuple[int, int], receive: str) -> None:
        writer = threading.Thread(target=lambda: os.write(streams[0], DATA[: 3 * MIB]))
        writer.start()
        sizes = (MIB, 7, 2 * MIB - 7) if "msg" in receive else (3 * MIB,)
        buffer = place.sink(place.buffer(*sizes))
        assert RECEIVERS[receive](streams[1], buffer, socket.MSG_WAITALL) == 3 * MIB
        writer.join()
        assert buffer.bytes() == DATA[: 3 * MIB]

    @pytest.mark.parametrize("receive", [*RECEIVERS, "read", "readv"])
    def test_streams_give_what_is_there(self, place: Place, streams: tuple[int, int], receive: str) -> None:
        os.write(streams[0], DATA[:100_000])
        buffer = place.sink(place.buffer(3 * MIB))
        assert (RECEIVERS.get(receive) or READERS[receive])(streams[1], buffer, 0) == 100_000
        assert buffer.bytes()[:100_000] == DATA[:100_000]

    def test_that_do_not_block_send_a_part(self, place: Place, streams: tuple[int, int]) -> None:
        buffer = place.sink(place.buffer(8 * MIB).fill(DATA))
        sent = SENDERS["send"](streams[0], buffer, socket.MSG_DONTWAIT)
        assert 0 < sent < 8 * MIB
        with pytest.raises(BlockingIOError):
            SENDERS["send"](streams[0], place.sink(buffer), socket.MSG_DONTWAIT)
        reader = Reader(streams[1], sent)
        reader.join()
        assert reader.got == DATA[:sent]

    def test_a_message_that_is_too_long_is_refused(self, place: Place, datagrams: tuple[int, int]) -> None:
        with pytest.raises(OSError) as caught:
            SENDERS["send"](datagrams[0], place.sink(place.buffer(8 * MIB)), 0)
        assert caught.value.errno == errno.EMSGSIZE

    def test_a_large_message_is_one(self, place: Place, datagrams: tuple[int, int]) -> None:
        # An ordinary user may not ask for the room that more than one piece takes: as large as can be.
        with socket.socket(fileno=os.dup(datagrams[0])) as sender:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MIB)
            size = sender.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) - 512
        size = min(size, 2 * MIB)
        buffer = place.sink(place.buffer(size).fill(DATA))
        assert SENDERS["send"](datagrams[0], buffer, 0) == size
        got = place.sink(place.buffer(3 * MIB))
        assert RECEIVERS["recv"](datagrams[1], got, 0) == size
        assert got.bytes()[:size] == DATA[:size]

    @pytest.mark.parametrize("receive", RECEIVERS)
    def test_a_message_that_is_longer_than_the_buffer_is_cut(
        self, place: Place, datagrams: tuple[int, int], receive: str
    ) -> None:
        for flags, told in ((0, 5000), (socket.MSG_TRUNC, 9000)):
            os.write(datagrams[0], DATA[:9000])
            buffer = place.sink(place.buffer(5000))
            assert RECEIVERS[receive](datagrams[1], buffer, flags) == told
            assert buffer.bytes() == DATA[:5000]

    @pytest.mark.parametrize("receive", RECEIVERS)
    def test_what_is_peeked_at_stays(self, place: Place, sockets: tuple[int, int], receive: str) -> None:
        os.write(sockets[0], DATA[:9000])
        for flags in (socket.MSG_PEEK, socket.MSG_PEEK, 0):
            buffer = place.sink(place.buffer(10_000))
            assert RECEIVERS[receive](sockets[1], buffer, flags) == 9000
            assert buffer.bytes()[:9000] == DATA[:9000]

    def test_that_drop_what_comes_leave_the_buffer_alone(self, place: Place) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            sender = socket.create_connection(server.getsockname())
            receiver = server.accept()[0]
        with sender, receiver:
            sender.sendall(DATA[:6000])
            buffer = place.sink(place.buffer(6000).fill(b"\x55" * 6000))
            assert RECEIVERS["recv"](receiver.fileno(), buffer, socket.MSG_TRUNC | socket.MSG_WAITALL) == 6000
            assert buffer.bytes() == b"\x55" * 6000

    def test_what_comes_beside_a_message_is_passed_on_once(self, place: Place, streams: tuple[int, int]) -> None:
        payload = place.sink(place.buffer(2 * MIB).fill(DATA))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, np.array([streams[0]], "i4").tobytes())]

        def send() -> None:
            with socket.socket(fileno=os.dup(streams[0])) as sender:
                sender.sendmsg([payload.parts[0]], rights)

        sender = threading.Thread(target=send)
        sender.start()
        got, descriptors = b"", []
        while len(got) < 2 * MIB:
            into = place.sink(place.buffer(3 * MIB))
            message = header(into, control=64)
            size = checked(C.recvmsg(streams[1], ctypes.byref(message), 0))
            got += into.bytes()[:size]
            control = bytes(message.kept[1])[: message.control_length]
            descriptors += np.frombuffer(control[16:20], "i4").tolist()  # behind struct cmsghdr
        sender.join()
        for descriptor in descriptors:
            os.close(descriptor)
        assert got == DATA[: 2 * MIB]
        assert len(descriptors) == 1

    def test_the_senders_name_comes_along(self, place: Place, tmp_path: Path) -> None:
        with (
            contextlib.chdir(tmp_path),  # its path may be longer than a socket's name
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as two,
        ):
            one.bind("one")
            two.bind("two")
            buffer = place.sink(place.buffer(9000).fill(DATA))
            assert one.sendto(buffer.parts[0], "two") == 9000
            into = place.sink(place.buffer(10_000))
            assert two.recvfrom_into(into.parts[0]) == (9000, "one")
            assert into.bytes()[:9000] == DATA[:9000]
            assert one.sendmsg([buffer.parts[0]], [], 0, "two") == 9000
            message = header(place.sink(into), name=110)
            assert checked(C.recvmsg(two.fileno(), ctypes.byref(message), 0)) == 9000
            assert bytes(message.kept[2])[2 : message.name_length].rstrip(b"\0") == b"one"

    def test_many_messages_in_one_call(self, place: Place, datagrams: tuple[int, int]) -> None:
        sizes = [1, 5000, 0, 9000, 20_000]
        batch = messages([place.sink(place.buffer(size // 2, size - size // 2).fill(DATA)) for size in sizes])
        assert checked(C.sendmmsg(datagrams[0], batch, len(sizes), 0)) == len(sizes)
        assert [message.length for message in batch] == sizes
        buffers = [place.sink(place.buffer(4000, 4000)) for _ in range(7)]
        batch = messages(buffers)
        assert checked(C.recvmmsg(datagrams[1], batch, 7, socket.MSG_DONTWAIT, None)) == len(sizes)
        assert [message.length for message in batch] == [min(size, 8000) for size in sizes] + [0, 0]
        assert [bool(message.header.flags & socket.MSG_TRUNC) for message in batch][:5] == [
            size > 8000 for size in sizes
        ]
        for buffer, size in zip(buffers, sizes, strict=False):
            assert buffer.bytes()[: min(size, 8000)] == DATA[: min(size, 8000)]
        with pytest.raises(BlockingIOError):
            checked(C.recvmmsg(datagrams[1], batch, 7, socket.MSG_DONTWAIT, None))

    def test_a_signal_interrupts(self, place: Place, streams: tuple[int, int]) -> None:
        with signalled(), pytest.raises(InterruptedError):
            RECEIVERS["recv"](streams[0], place.buffer(2 * MIB), 0)


class TestASignalBetweenTwoPieces:
    """It comes while a piece is copied: the buffer is covered as tiered memory is, and its faults are served here."""

    def test_ends_a_write_with_what_has_been_written(self, pipe: tuple[int, int]) -> None:
        with signalling(3 * MIB, at=MIB + 4096) as buffer:
            reader = Reader(pipe[0], MIB)
            with unstuck(lambda: Reader(pipe[0], 2 * MIB)):
                assert WRITERS["write"](pipe[1], buffer, 0) == MIB
            reader.join()

    def test_ends_a_receive_that_waits_for_all_with_what_has_come(self, streams: tuple[int, int]) -> None:
        with signalling(3 * MIB, at=4096) as buffer:
            sender = threading.Thread(target=os.write, args=(streams[1], DATA[:MIB]))
            sender.start()
            with unstuck(lambda: os.write(streams[1], DATA[: 2 * MIB])):
                assert RECEIVERS["recv"](streams[0], buffer, socket.MSG_WAITALL) == MIB
            sender.join()
            # Not more of it: a fault of a thread that holds the GIL could not be served by another one.
            assert buffer.parts[0][:MIB].tobytes() == DATA[:MIB]

    @pytest.mark.parametrize("ignored", [signal.SIG_IGN, signal.SIG_DFL])
    def test_that_does_nothing_ends_no_call(self, pipe: tuple[int, int], ignored: signal.Handlers) -> None:
        with signalling(3 * MIB, at=MIB + 4096, handler=ignored, number=signal.SIGWINCH) as buffer:
            reader = Reader(pipe[0], 3 * MIB)
            assert WRITERS["write"](pipe[1], buffer, 0) == 3 * MIB
            reader.join()


@contextlib.contextmanager
def signalling(
    size: int, *, at: int, number: int = signal.SIGALRM, handler: object = lambda *_: None
) -> Iterator[Buffer]:
    """A buffer that is covered. A touch of one of its pages sends a signal to this thread before it is served."""
    uffd = UserFaultFd(open_userfaultfd().fd)
    address = libc.mmap(None, size, libc.PROT_READ | libc.PROT_WRITE, libc.MAP_PRIVATE | libc.MAP_ANONYMOUS)
    uffd.register(address, size)
    thread, ends, over = threading.get_ident(), select.poll(), os.eventfd(0)
    ends.register(uffd.fd, select.POLLIN)
    ends.register(over, select.POLLIN)

    def serve() -> None:
        while over not in (ready for ready, _ in ends.poll()):
            for fault in uffd.read():
                if fault.address == address + at:
                    signal.pthread_kill(thread, number)
                uffd.zero(fault.address, mmap.PAGESIZE)

    server = threading.Thread(target=serve)
    server.start()
    before = signal.signal(number, handler)
    space = address_space()
    C.tc_syscalls_cover(ctypes.c_size_t(address), ctypes.c_size_t(address + size))
    try:
        yield Buffer(np.frombuffer((ctypes.c_uint8 * size).from_address(address), "u1"))
    finally:
        C.tc_syscalls_cover(ctypes.c_size_t(space.low), ctypes.c_size_t(space.high))
        signal.signal(number, before)
        os.eventfd_write(over, 1)
        server.join()
        libc.munmap(address, size)
        for fd in (uffd.fd, over):
            os.close(fd)


@contextlib.contextmanager
def unstuck(help: Callable[[], object]) -> Iterator[None]:
    """Help a call that waits for ever, so that the test fails instead."""
    timer = threading.Timer(10, help)
    timer.start()
    yield
    timer.cancel()


class TestABufferThatIsPartlyTiered:
    """The wrappers are told that tiered memory begins, or ends, in the midst of an array."""

    @pytest.mark.parametrize("begins", [True, False])
    @pytest.mark.parametrize("size", [3000, 3 * MIB])
    def test_is_written_and_read(self, memory: Memory, file: int, size: int, begins: bool) -> None:
        place = Place(memory)
        buffer = place.buffer(size).fill(DATA)
        middle, space = buffer.address + size - 100 if begins else buffer.address + 100, address_space()
        low, high = (middle, space.high) if begins else (space.low, middle)
        C.tc_syscalls_cover(ctypes.c_size_t(low), ctypes.c_size_t(high))
        try:
            assert WRITERS["write"](file, place.sink(buffer), 0) == size
            assert os.pread(file, size + 1, 0) == DATA[:size]
            place.sink(buffer.fill(bytes(size)))
            assert READERS["readv"](file, buffer, 0) == 0
            assert READERS["pread"](file, buffer, 0) == size
            assert buffer.bytes() == DATA[:size]
        finally:
            C.tc_syscalls_cover(ctypes.c_size_t(space.low), ctypes.c_size_t(space.high))


@given(
    parts=st.lists(st.integers(0, 300_000), min_size=1, max_size=8),
    there=st.integers(0, 1_500_000),
    offset=st.integers(0, 5000),
    write=st.sampled_from(sorted(set(WRITERS) & VECTORED)),
    read=st.sampled_from(sorted(set(READERS) & VECTORED)),
)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_vector_is_written_and_read_as_in_plain_memory(
    memory: Memory, parts: list[int], there: int, offset: int, write: str, read: str
) -> None:
    place, plain = Place(memory), Place(None)
    fd, twin = os.memfd_create("tiered"), os.memfd_create("plain")
    try:
        results = []
        for file, maker in ((fd, place), (twin, plain)):
            os.write(file, DATA[:there])
            os.lseek(file, offset, os.SEEK_SET)
            buffer = maker.sink(maker.buffer(*parts).fill(DATA[::-1]))
            wrote = WRITERS[write](file, buffer, offset)
            os.lseek(file, offset // 2, os.SEEK_SET)
            got = READERS[read](file, maker.sink(buffer), offset // 2)
            size = os.fstat(file).st_size
            results.append((wrote, got, buffer.bytes(), os.pread(file, size, 0), os.lseek(file, 0, os.SEEK_CUR)))
        assert results[0] == results[1]
    finally:
        os.close(fd)
        os.close(twin)


def test_mapped_files_are_no_matter(memory: Memory, file: int) -> None:
    """Copies between mappings never were system calls."""
    os.ftruncate(file, MIB)
    with mmap.mmap(file, MIB) as mapped:
        mapped[:] = memory.array(np.frombuffer(DATA[:MIB], "u1")).tobytes()
    assert os.pread(file, MIB, 0) == DATA[:MIB]
