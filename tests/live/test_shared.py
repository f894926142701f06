"""Arrays that travel as handles: one copy, in whatever process, for as long as any process has it."""

import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import pickle
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from abilities import poisons
from families import forked, status_of, wait_for
from test_children import PAGE
from test_processes import helpers, wait_for_all

from thermocline import Memory
from thermocline.errors import ClosedError, SpecError
from thermocline.live.guest import Door, guest_of
from thermocline.live.shares import Shares
from thermocline.live.tables import Tables
from thermocline.shared import SharedArray

GUEST = """
import os, pickle, sys
import numpy as np
from thermocline.errors import ClosedError
def receive():
    size = int(sys.stdin.buffer.readline())
    return pickle.loads(sys.stdin.buffer.read(size))
def say(what):
    print(what, flush=True)
"""


@pytest.fixture(scope="module", autouse=True)
def processes_that_multiprocessing_keeps() -> None:
    """Until the interpreter ends: they are not what a test has left behind."""
    multiprocessing.resource_tracker.ensure_running()
    multiprocessing.forkserver.ensure_running()


class Guest:
    """Another program, that was started by itself."""

    def __init__(self, code: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", GUEST + textwrap.dedent(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def send(self, thing: Any) -> None:
        """What its next ``receive`` gets."""
        data = pickle.dumps(thing)
        assert self.process.stdin is not None
        self.process.stdin.write(b"%d\n%s" % (len(data), data))
        self.process.stdin.flush()

    def says(self) -> str:
        """What it says next."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()


@contextmanager
def guest(code: str) -> Iterator[Guest]:
    """A guest, until the end of a block."""
    made = Guest(code)
    with made.process:
        try:
            yield made
        finally:
            made.process.kill()


def test_two_programs_work_on_one_copy(memory: Memory) -> None:
    """More than DRAM, both at once: words of the same pages."""
    array = memory.zeros((256, 1 << 12), "i8")
    shared = memory.share(array)
    shared += 0
    assert type(shared) is SharedArray
    with guest("array = receive(); array[:, 1::2] += 7; say(array[:, 1::2].sum())") as other:
        other.send(shared)
        array[:, ::2] += 5
        assert other.says() == str(7 * (1 << 19))
        assert array.sum() == 12 * (1 << 19)
        assert other.process.wait(20) == 0
    wait_for(memory, processes=1)


def test_views_travel_as_they_are(memory: Memory) -> None:
    shared = memory.share(memory.array(np.arange(60, dtype="u2").reshape(3, 4, 5)))
    for view in (shared, shared[1:], shared[::-1, 1::2], shared.T, shared[2, 3, 4:], shared[:0], shared.view("u1")):
        data = pickle.dumps(view)
        received = pickle.loads(data)
        assert isinstance(received, SharedArray)
        assert np.array_equal(received, view) and received.strides == view.strides and received.dtype == view.dtype
        assert not view.size or np.shares_memory(received, view)
        assert len(data) < 400


def test_what_is_computed_travels_by_value(memory: Memory) -> None:
    shared = memory.share(memory.array(np.arange(10.0)))
    assert type(shared + 1) is np.ndarray and isinstance(shared.sum(), float)
    for computed in (shared + 1, shared.copy(), shared.sum(), shared.astype("i4"), np.sort(shared)):
        received = pickle.loads(pickle.dumps(computed))
        assert np.array_equal(received, computed)
        assert not np.shares_memory(received, shared)


def double(part: np.ndarray) -> np.ndarray:
    part *= 2
    return part[:2]


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_pools_take_and_return_them(method: str, memory: Memory) -> None:
    array = memory.array(np.arange(1 << 19).reshape(8, -1))
    shared = memory.share(array)
    with multiprocessing.get_context(method).Pool(2) as pool:
        returned = pool.map(double, list(shared))
    assert np.array_equal(array, 2 * np.arange(1 << 19).reshape(8, -1))
    assert all(np.shares_memory(part, array[row]) for row, part in enumerate(returned))


def test_joblib_works_on_one_copy() -> None:
    pytest.importorskip("joblib")
    code = """
        import joblib
        import numpy as np
        from test_shared import double
        from thermocline import Memory
        with Memory("dram=2MiB, zstd=8MiB") as memory:
            array = memory.array(np.arange(1 << 18).reshape(8, -1))
            joblib.Parallel(2)(joblib.delayed(double)(part) for part in memory.share(array))
            print(np.array_equal(array, 2 * np.arange(1 << 18).reshape(8, -1)))
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, text=True, check=False
    )
    assert ran.stdout == "True\n", ran.stderr


def test_whoever_has_one_keeps_it(memory: Memory) -> None:
    """The program frees it; it is given back when the last holder has let it go, and not before."""
    plain = np.arange(1 << 18)
    array = memory.array(plain)
    committed = memory._regions.commitment
    code = "array = receive(); say(1); receive(); say(array.sum()); del array; say(2); receive()"
    with guest(code) as other:
        other.send(memory.share(array))
        assert other.says() == "1"
        del array
        filler = memory.full(1 << 19, -1)  # it would be where the array was
        held = committed.committed
        other.send("go on")
        assert other.says() == str(plain.sum())
        assert other.says() == "2"
        while committed.committed == held:
            memory.stat()
        del filler
        memory.stat()
        assert committed.committed == 0


def test_whoever_dies_has_let_go(memory: Memory) -> None:
    array = memory.array(np.arange(1 << 18))
    with guest("array = receive(); say(1); receive()") as other:
        other.send(memory.share(array))
        assert other.says() == "1"
        del array
        memory.stat()
        assert memory._regions.commitment.committed > 0
        other.process.kill()
    while memory._regions.commitment.committed:
        memory.stat()


def test_a_ticket_is_for_one_region_of_a_slot() -> None:
    tables = Tables.create(16)
    shares = Shares(tables)
    shares.share(3, 7, 0, 2)
    assert shares.hold(1, 3, 7) == (0, 2)
    shares.inherit(child=2, parent=1)
    shares.unshare(3)
    shares.leave(1)
    assert tables.shares[3], "its child still has it"
    assert shares.hold(4, 3, 7) == (0, 2), "who has it may let others have it"
    shares.release(2, 3)
    shares.release(4, 3)
    assert not tables.shares[3]
    assert shares.hold(1, 3, 7) is None
    shares.share(3, 8, 5, 1)
    assert shares.hold(1, 3, 7) is None
    tables.close()


def test_a_handle_of_what_is_gone_is_an_error(memory: Memory) -> None:
    """Though its place is another array's by now, which is shared, too."""
    array = memory.full(1000, 1, "i8")
    handle = pickle.dumps(memory.share(array))
    del array
    memory.stat()
    while memory._regions.commitment.committed:
        memory.stat()
    other = memory.full(1000, 2, "i8")
    memory.share(other)
    with pytest.raises(ClosedError, match="a shared array is gone"):
        pickle.loads(handle)


def test_a_handle_of_a_memory_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with Memory("dram=2MiB, zstd=4MiB") as memory:
        handle = pickle.dumps(memory.share(memory.zeros(10)))
    code = """
        import pickle, sys
        from thermocline.errors import ClosedError
        try:
            pickle.loads(bytes.fromhex(sys.argv[1]))
        except ClosedError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), handle.hex()]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("the memory that this array is in is closed")


def test_plain_arrays_are_not_shared(memory: Memory) -> None:
    with pytest.raises(SpecError, match="not in this memory"):
        memory.share(np.zeros(10))


def test_a_guest_s_first_write_to_a_clean_page_is_seen(memory: Memory) -> None:
    array = memory.full(1000, 5, "i8")
    memory.advise(array, "cold")
    assert array[7] == 5
    with guest("array = receive(); array[7] = 6; say(1); receive()") as other:
        other.send(memory.share(array))
        assert other.says() == "1"
        memory.advise(array, "cold")
        assert array[7] == 6


def test_pagers_are_replaced_for_guests_too(memory: Memory) -> None:
    array = memory.array(np.arange(1 << 20))
    code = "array = receive(); say(array.sum()); receive(); say(array.sum()); receive()"
    with guest(code) as other:
        other.send(memory.share(array))
        assert other.says() == str(array.sum())
        os.kill(helpers(os.getpid())["thermocline-pager"], signal.SIGKILL)
        other.send("go on")
        assert other.says() == str(array.sum())
    del array
    assert memory.stat()["pager"]["starts"] == 2
    memory._regions.session.tables.header[2] = 1  # for the fixture: this death was asked for


def test_guests_outlive_the_program(tmp_path: Path) -> None:
    code = f"""
        import sys, pickle
        import numpy as np
        from thermocline import Memory
        memory = Memory("dram=2MiB, zstd=4MiB, file:{tmp_path}=64MiB")
        array = memory.array(np.arange(1 << 20))
        sys.stdout.write(pickle.dumps(memory.share(array)).hex() + "\\n")
        sys.stdout.flush()
        sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        handle = bytes.fromhex(program.stdout.readline())
        with guest("array = pickle.loads(receive()); say(1); receive(); say(array.sum())") as other:
            other.send(handle)
            assert other.says() == "1"
            found = helpers(program.pid)
            program.kill()
            program.wait()
            other.send("go on")
            assert other.says() == str(np.arange(1 << 20).sum())
            assert other.process.wait(20) == 0
        wait_for_all(list(found.values()))


def test_a_guest_s_child_holds_what_it_was_forked_with(memory: Memory) -> None:
    array = memory.array(np.arange(1 << 16))
    code = """
        array = receive()
        go, done = os.pipe(), os.pipe()
        child = os.fork()
        if not child:
            os.read(go[0], 1)
            os._exit(0 if array.sum() == (1 << 15) * ((1 << 16) - 1) else 1)
        del array
        say(1)
        receive()
        os.write(go[1], b".")
        say(os.waitpid(child, 0)[1])
        receive()
    """
    with guest(code) as other:
        other.send(memory.share(array))
        assert other.says() == "1"
        del array
        filler = memory.full(1 << 17, -1)
        other.send("go on")
        assert other.says() == "0"
        del filler


def test_the_first_thread_that_lets_go_takes_nothing_from_the_others(memory: Memory) -> None:
    """Two threads that receive the same array at once: each holds it, by a lease of its own."""
    array = memory.array(np.arange(1 << 20))
    code = """
        from thermocline.live.guest import _guests
        array = receive()
        for joined in _guests.values():
            joined._held.clear()  # as the second of them finds it
        same = receive()
        del array
        assert not receive().any()
        say(same.sum())
        receive()
    """
    with guest(code) as other:
        shared, empty = memory.share(array), memory.share(memory.zeros(1000))
        for thing in (shared, shared, empty):
            other.send(thing)
        assert other.says() == str((1 << 19) * ((1 << 20) - 1))


def test_a_forked_child_takes_them_by_the_mapping_it_has(memory: Memory) -> None:
    array = memory.array(np.arange(1000))
    handle = pickle.dumps(memory.share(array))

    def receive() -> bool:
        return np.shares_memory(pickle.loads(handle), array)

    assert status_of(forked(receive)) == 0


def test_an_array_that_came_back_keeps_its_memory_open(tmp_path: Path) -> None:
    """The program has freed it, and closed the memory; what it was sent back is all that it has."""
    memory = Memory(f"dram=2MiB, zstd=4MiB, file:{tmp_path}=64MiB")
    array = memory.share(memory.array(np.arange(1 << 19)))
    back = pickle.loads(pickle.dumps(array))
    del array
    memory.close()
    assert not memory._regions.session.closed
    assert np.array_equal(back, np.arange(1 << 19))
    del back
    assert memory._regions.session.closed


def test_an_array_comes_back_to_a_program_that_has_closed_its_memory(tmp_path: Path) -> None:
    """Another program still has it; the one that made it joins the memory as others do, then."""
    code = f"""
        from thermocline import Memory
        with Memory("dram=2MiB, zstd=4MiB, file:{tmp_path}=64MiB") as memory:
            array = memory.share(memory.array(np.arange(1 << 19)))
            say(pickle.dumps(array).hex())
            handle = receive()
            del array
        say(memory._regions.session.closed)
        say(pickle.loads(handle).sum())
    """
    with guest(code) as program, guest("array = pickle.loads(receive()); say(1); receive()") as other:
        handle = bytes.fromhex(program.says())
        other.send(handle)
        assert other.says() == "1"
        program.send(handle)
        assert program.says() == "True"
        assert program.says() == str(np.arange(1 << 19).sum())


def test_who_does_not_know_the_secret_is_not_let_in(memory: Memory) -> None:
    array = memory.zeros(10)
    memory.share(array)
    door = memory._regions.session.door
    assert door is not None
    with pytest.raises(ClosedError, match="not in"):
        guest_of(Door(door.name, door.secret ^ 1))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
        peer.connect(f"\0{door.name}")
        peer.send(b"hold 0 1")
        assert peer.recv(100) == b"refused"
    for nonsense in (b"join", b"join x", b"\xff\xff", b" ", b"attach 1", b"nonsense 1", b"close"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
            peer.connect(f"\0{door.name}")
            peer.send(nonsense)
    assert array.sum() == 0
    wait_for(memory, processes=1)


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0, reason="needs root to be another user")
def test_another_user_is_not_let_in(tmp_path: Path) -> None:
    """A process that does not use the memory: it was there before."""
    read, write = os.pipe()

    def as_nobody() -> bool:
        os.setuid(65534)
        address, secret = os.read(read, 200).decode().split("#")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
            peer.connect(address)
            try:
                peer.send(f"join {secret}".encode())
                return peer.recv(100) == b""
            except ConnectionError:
                return True

    stranger = forked(as_nobody)
    with Memory(f"dram=2MiB, file:{tmp_path}=64MiB") as memory:
        array = memory.share(memory.zeros(10))
        door = memory._regions.session.door
        os.write(write, f"\0{door.name}#{door.secret}".encode())
        assert status_of(stranger) == 0
        del array
    os.close(read)
    os.close(write)


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0, reason="needs root to be another user")
def test_a_child_that_has_become_another_user_may_fork(memory: Memory) -> None:
    array = memory.array(np.arange(1 << 18))

    def become_nobody() -> bool:
        os.setuid(65534)
        return status_of(forked(lambda: np.array_equal(array, np.arange(1 << 18)))) == 0

    assert status_of(forked(become_nobody)) == 0


@poisons
def test_poison_that_a_guest_has_met_is_not_met_again(tmp_path: Path) -> None:
    """A page of an array is lost; another array comes to lie there."""
    file = tmp_path / "numbers"
    file.write_bytes(bytes(range(256)) * 1024)
    with Memory("dram=2MiB, zstd=4MiB", page_size=PAGE) as memory:
        lost = memory.from_file(file, "u1")
        os.truncate(file, PAGE)
        code = """
            array = receive()
            r, w = os.pipe()
            try:
                os.write(w, array[8192:8193].data)
            except OSError:
                say("lost")
            del array
            say(receive().sum())
            receive()
        """
        with guest(code) as other:
            other.send(memory.share(lost))
            assert other.says() == "lost"
            where = lost.ctypes.data
            del lost
            while memory._regions.commitment.committed:
                memory.stat()
            array = memory.full(1 << 18, 1, "u1")
            assert array.ctypes.data == where
            other.send(memory.share(array))
            assert other.says() == str(1 << 18)
            del array


def test_a_read_only_view_arrives_read_only(memory: Memory) -> None:
    array = memory.array(np.arange(1000))
    array.flags.writeable = False
    shared = memory.share(array)
    with guest("array = receive(); say((array.flags.writeable, int(array[7])))") as process:
        process.send(shared)
        assert process.says() == "(False, 7)"
    received = pickle.loads(pickle.dumps(shared))
    with pytest.raises(ValueError, match="read-only"):
        received[0] = 1
    array.flags.writeable = True
    assert pickle.loads(pickle.dumps(memory.share(array))).flags.writeable


FEW_FILES = """
import pickle, resource, sys
import numpy
import thermocline.shared

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
refused = 0
for limit in range(3, 128):
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        array = pickle.loads(bytes.fromhex(sys.argv[1]))
    except Exception:
        refused += 1
    else:
        break
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(refused > 0, int(array.sum()))
"""


def test_a_process_that_may_open_too_few_files_is_refused_and_not_killed(memory: Memory) -> None:
    """Whichever descriptor it is that it cannot open: the kernel is to kill it only for what it has been given."""
    array = memory.share(memory.array(np.arange(100_000)))
    sent = pickle.dumps(array).hex()
    done = subprocess.run([sys.executable, "-c", FEW_FILES, sent], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"True {sum(range(100_000))}\n"), done.stderr
