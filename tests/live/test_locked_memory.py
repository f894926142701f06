"""Programs that lock their memory (mlockall(2)): ordinary memory is locked, and tiered arrays are tiered as before."""

import ctypes
import mmap
import os
import resource
from pathlib import Path

import numpy as np
import pytest
from families import forked, status_of

from comparison import TIERED, Script, assert_same, outcome, run
from thermocline import Memory
from thermocline.live import libc

#: What the flags of mlockall(2) come to.
CURRENT, FUTURE, ON_FAULT = 1, 2, 4

LOCKS = """
    import ctypes, os
    import numpy as np
    libc = ctypes.CDLL(None, use_errno=True)
    before = np.arange(1_000_000.)
    print("mlockall", libc.mlockall({flags}), flush=True)
    print(before.sum())
    behind = np.ones(800_000)
    print(behind.sum())
    del before
    sparse = np.zeros(6_000_000)
    sparse[12345] = 3
    print(sparse.sum())
    child = os.fork()
    if not child:
        behind[0] = 5
        print("child", behind.sum(), sparse[12345], np.ones(300_000).sum(), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    print(behind.sum())
    del sparse
    print(np.ones(1_500_000).sum(), libc.munlockall(), behind.sum())
"""


@pytest.mark.root
@pytest.mark.parametrize("flags", range(1, 8))
def test_all_memory_is_locked(script: Script, flags: int) -> None:
    code, out, _ = assert_same([script(LOCKS.format(flags=flags))])
    assert code == 0
    assert ("mlockall 0" in out) == (flags != ON_FAULT)


@pytest.mark.root
def test_all_memory_was_locked_before_there_is_a_tiered_one(script: Script) -> None:
    """MCL_FUTURE brings up all of what is mapped later: of the arena it must not, and of its tables it need not."""
    program = script(f"""
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mlockall({CURRENT | FUTURE}) == 0
        from thermocline import Memory
        with Memory("dram=2MiB, zstd=4MiB, file:/var/tmp=4GiB", page_size="4KiB") as memory:
            array = memory.zeros(1 << 20)
            array += 1
            stat = memory.stat()
            print(array.sum(), stat["arena"]["peak_resident"] <= 2 << 20)
            with open("/proc/self/smaps") as lines:
                ours, locked = False, 0
                for line in lines:
                    if "-" in line.split()[0]:
                        ours = "memfd:thermocline" in line
                    elif ours and line.startswith("Locked:"):
                        locked += int(line.split()[1])
            print(locked)
    """)
    assert outcome(run([TIERED[0], program])) == (0, "1048576.0 True\n0\n", "")


@pytest.mark.parametrize("page_size", ["4KiB", "64KiB"])
def test_an_array_lies_in_several_mappings(tmp_path: Path, page_size: str) -> None:
    """mlock(2) sets what it locks apart. The kernel copies, protects and poisons within one mapping at a time."""
    with Memory(f"dram=2MiB, zstd=4MiB, file:{tmp_path}=64MiB", page_size=page_size) as memory:
        array = memory.zeros(1 << 20)
        begin = array.ctypes.data
        for at in range(5 * mmap.PAGESIZE, array.nbytes, 37 * mmap.PAGESIZE):
            libc.mlock(begin + at, mmap.PAGESIZE)
        expected = np.arange(1 << 20) * 3.5
        for _ in range(2):
            array[:] = expected
            memory.advise(array, "cold")
            assert (array == expected).all()
            array += 1
            expected += 1
            memory.advise(array, "cold")
            assert (array == expected).all()
        assert memory.stat()["pager"]["starts"] == 1
        del array
        again = memory.zeros(1 << 20)
        assert not again.any()


@pytest.mark.root
def test_what_was_locked_is_empty_when_it_is_allocated_again(tmp_path: Path) -> None:
    locks = ctypes.CDLL(None, use_errno=True)
    with Memory(f"dram=2MiB, zstd=4MiB, file:{tmp_path}=64MiB") as memory:
        array = memory.full(1 << 20, 7.0)
        assert locks.mlockall(CURRENT | ON_FAULT) == 0
        try:
            del array
            again = memory.zeros(1 << 20)
            assert not again.any()
        finally:
            assert locks.munlockall() == 0
        assert memory.stat()["pager"]["starts"] == 1


def test_a_limit_on_locked_memory_that_refuses_an_array_is_named(tmp_path: Path) -> None:
    def attempt() -> bool:
        with Memory(f"dram=2MiB, zstd=4MiB, file:{tmp_path}=64MiB") as memory:
            memory.zeros(1)
            locks = ctypes.CDLL(None, use_errno=True)
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 20, 1 << 20))
            if os.geteuid() == 0:  # who may lock all there is
                os.setresuid(65534, 65534, 65534)
            assert locks.mlockall(FUTURE | ON_FAULT) == 0
            with pytest.raises(MemoryError) as refused:
                memory.zeros(20 << 20, "u1")
            assert locks.munlockall() == 0
            return "(ulimit -l)" in str(refused.value) and not memory.zeros(20 << 20, "u1").any()

    assert status_of(forked(attempt)) == 0
