"""Programs that allocate more than they touch: what is granted, and what happens where more is touched after all."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from comparison import TIERED, Script, assert_same, outcome, run
from pagers import children, find_supervisor
from thermocline import Memory, OutOfMemory, SpecError
from thermocline.live import overcommit

MIB = 1 << 20
SPEC = "dram=2MiB, zstd=2MiB, file:{}=8MiB"

SPARSE = """
    import numpy as np
    sparse = np.zeros((300, 300, 4096), "u2")
    sparse[150, 150, :] = 7
    sparse[3, 4, 5] = 1
    print(int(sparse[150].sum()) + int(sparse[3].sum()), int(sparse[::50, ::50, ::512].sum()))
    many = [np.zeros(1 << 24) for _ in range(10)]
    for number, array in enumerate(many):
        array[number << 10 : (number << 10) + 10] = number
    print([int(array.sum()) for array in many[:2]], [int(array[number << 10]) for number, array in enumerate(many)])
"""


@pytest.mark.parametrize("options", [[], ["--page-size", "4KiB", "--min-array", "4KiB"]], ids=["large", "small"])
def test_zeros_that_are_hardly_touched(script: Script, options: list[str]) -> None:
    program = script(SPARSE)
    assert outcome(run([*TIERED, *options, program])) == outcome(run([sys.executable, program]))


def test_what_the_kernel_refuses_is_a_memory_error(script: Script) -> None:
    assert_same(
        [
            script("""
        import numpy as np
        try:
            np.zeros(1 << 46, "u1")
        except MemoryError as error:
            print(error)
        print(np.ones(1 << 18).sum())
    """)
        ]
    )


def test_strict_commitment_can_be_asked_for(script: Script) -> None:
    program = script("""
        import numpy as np
        try:
            print(np.zeros(1 << 28, "u1").size)
        except MemoryError as error:
            print("MemoryError")
    """)
    assert run([*TIERED, program]).stdout == b"268435456\n"
    assert run([*TIERED, "--commit", "strict", program]).stdout == b"MemoryError\n"


def test_a_memory_is_strict_unless_it_is_asked(tmp_path: Path) -> None:
    with Memory(SPEC.format(tmp_path)) as memory, pytest.raises(OutOfMemory, match="commit="):
        memory.zeros(64 * MIB, "u1")
    with Memory(SPEC.format(tmp_path), commit="heuristic") as memory:
        assert memory.zeros(64 * MIB, "u1")[-1] == 0
    with pytest.raises(SpecError, match="strict or heuristic"):
        Memory(SPEC.format(tmp_path), commit="always")


def test_zeros_are_read_without_end(tmp_path: Path) -> None:
    """A page of zeros that was only read gives way: four times what the nodes hold is looked at."""
    with Memory(SPEC.format(tmp_path), commit="heuristic") as memory:
        full = memory.array(np.arange(MIB, dtype="u8"))
        zeros = memory.zeros(48 * MIB, "u1")
        assert not zeros.any()
        assert (full == np.arange(MIB)).all()
        assert memory.stat()["pager"]["starts"] == 1


def test_the_kernel_says_what_it_would_grant() -> None:
    assert overcommit.grants(MIB)
    assert not overcommit.grants(1 << 60)
    assert overcommit.machine_bytes() >= 64 * MIB


WRITER = """
    import os, sys, threading
    import numpy as np
    from thermocline import Memory
    memory = Memory("dram=2MiB, zstd=2MiB, file:/var/tmp=8MiB", commit="heuristic", page_size={page_size!r})
    noise = np.random.default_rng(0).random(1 << 16)
    kept = memory.array(np.arange(1 << 19))
    large = memory.zeros(1 << 23)
    written = 0

    def fill():
        global written
        for at in range(0, large.size, noise.size):
            large[at : at + noise.size] = noise
            written = at + noise.size

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    sys.stdin.readline()
    same = large[:written].reshape(-1, noise.size)[:, ::4096] == noise[::4096]
    print(bool((kept[::4096] == np.arange(0, 1 << 19, 4096)).all()), bool(same.all()))
    sys.stdout.flush()
    {then}
"""
ALL_IN_USE = "all that the nodes hold is in use"


def started(script: Script, then: str, page_size: str, patience: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, script(WRITER.format(then=then, page_size=page_size))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"THERMOCLINE_INJECT": f"patience {patience}"},
    )


@pytest.mark.parametrize("page_size", ["64KiB", "4KiB"])
def test_a_writer_that_finds_no_room_waits_and_then_ends(script: Script, page_size: str) -> None:
    """What was written before stays as it is, and can be read while it waits."""
    with started(script, "thread.join()", page_size, "8s") as process:
        assert process.stdin and process.stdout and process.stderr
        assert ALL_IN_USE in process.stderr.readline()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "True True\n"
        process.stdin.close()
        assert process.wait() == -signal.SIGBUS


def test_a_writer_goes_on_when_an_array_is_freed(script: Script) -> None:
    then = "before = written; del kept; sys.stdin.readline(); print(written > before); sys.stdout.flush(); os._exit(0)"
    with started(script, then, "64KiB", "60s") as process:
        assert process.stdin and process.stdout and process.stderr
        assert ALL_IN_USE in process.stderr.readline()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "True True\n"
        assert ALL_IN_USE in process.stderr.readline()  # once more: the writer has gone on until all was in use
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "True\n"
        assert process.wait() == 0


def test_a_successor_counts_what_is_held(script: Script) -> None:
    """The pager is killed while the writer waits: the next one lets nothing more in, and what was written is there."""
    with started(script, "os._exit(int(written == large.size))", "64KiB", "60s") as process:
        assert process.stdin and process.stdout and process.stderr
        assert ALL_IN_USE in process.stderr.readline()
        supervisor = find_supervisor(process.pid)
        for pager in children(supervisor):
            os.kill(pager, signal.SIGKILL)
        assert ALL_IN_USE in process.stderr.readline()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "True True\n"
        assert process.wait() == 0
