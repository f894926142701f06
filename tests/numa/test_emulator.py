"""The emulator itself, from outside: what goes in and what comes out. (Inside is test_slow_node.)"""

import io
import shutil
import subprocess
from pathlib import Path

import pytest
from emulator import MIB, Emulator, EmulatorFailed
from initramfs import initramfs
from kernel import PACKAGES, CannotRun, modules
from nodes import slow_nodes

boots = pytest.mark.skipif(
    bool(slow_nodes()) or not all(shutil.which(program) for program in PACKAGES),
    reason="QEMU is not installed (make test-numa does that), or this is the emulated machine already",
)


def module(path: Path, depends: str) -> None:
    path.write_bytes(b"\x7fELF...\0license=GPL\0depends=" + depends.encode() + b"\0name=it\0")


def test_a_module_comes_behind_all_that_it_depends_on(tmp_path: Path) -> None:
    module(tmp_path / "top.ko", "middle-one,bottom")
    module(tmp_path / "middle-one.ko", "bottom")
    module(tmp_path / "bottom.ko", "")
    module(tmp_path / "other.ko", "")
    assert [path.name for path in modules(tmp_path, ["top", "bottom"])] == ["bottom.ko", "middle-one.ko", "top.ko"]


def test_what_is_no_module_is_part_of_the_kernel(tmp_path: Path) -> None:
    module(tmp_path / "there.ko", "compiled_in")
    assert [path.name for path in modules(tmp_path, ["there", "compiled_in"])] == ["there.ko"]


@pytest.mark.skipif(not shutil.which("busybox"), reason="busybox is not installed")
def test_another_program_can_read_the_initramfs(tmp_path: Path) -> None:
    archive = initramfs({"bin": None, "bin/a": b"123", "init": b"#!/bin/a\n"})
    subprocess.run(["busybox", "cpio", "-i"], input=archive, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "bin" / "a").read_bytes() == b"123"
    assert (tmp_path / "init").read_bytes() == b"#!/bin/a\n"
    assert (tmp_path / "init").stat().st_mode & 0o777 == 0o755


def test_a_slow_node_of_no_whole_blocks_is_refused() -> None:
    with pytest.raises(CannotRun, match="multiple of 128M"):
        Emulator(slow=100 * MIB).run(["true"])


@boots
def test_output_status_and_results_come_back_and_nothing_else(tmp_path: Path) -> None:
    stdout, stderr = io.BytesIO(), io.BytesIO()
    (tmp_path / "there").write_text("as it was")
    script = "cat there; echo lost > there; echo kept > $RESULTS/made; echo $COLOUR >&2; uname -r >&2; exit 3"
    status = Emulator().run(
        ["sh", "-c", script],
        directory=tmp_path,
        environment={"COLOUR": "it's blue"},
        results=tmp_path / "results",
        stdout=stdout,
        stderr=stderr,
    )
    assert status == 3
    assert stdout.getvalue() == b"as it was"
    assert stderr.getvalue().startswith(b"it's blue\n6.")
    assert (tmp_path / "there").read_text() == "as it was"
    assert (tmp_path / "results" / "made").read_text() == "kept\n"


@boots
def test_a_machine_that_takes_too_long_is_ended() -> None:
    with pytest.raises(EmulatorFailed, match="killed after 6 seconds"):
        Emulator(timeout=6).run(["sleep", "1000"])


@boots
def test_the_console_says_why_a_machine_failed() -> None:
    with pytest.raises(EmulatorFailed, match=r"(?s)ended before the command did.*panic"):
        Emulator().run(["sh", "-c", "echo c > /proc/sysrq-trigger"])
