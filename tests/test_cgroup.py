import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from thermocline.cgroup import memory_limit, mounts

UNLIMITED = 9223372036854771712  # what version 1 shows where nothing is set
MIB, GIB = 1024**2, 1024**3


class Tree:
    """A made-up machine: what /proc says of this process, and the cgroup filesystems that it points to."""

    def __init__(self, root: Path) -> None:
        self.proc = root / "proc"
        self.root = root / "sys"
        (self.proc / "self").mkdir(parents=True)
        self._cgroup: list[str] = []
        self._mountinfo = ["1 0 8:1 / / rw,relatime - ext4 /dev/sda rw"]

    def process(self, *lines: str) -> None:
        (self.proc / "self" / "cgroup").write_text("".join(f"{line}\n" for line in lines))

    def mount(self, kind: str, point: str, root: str = "/", options: str = "rw") -> Path:
        where = self.root / point
        where.mkdir(parents=True)
        escaped = str(where).replace(" ", r"\040")
        self._mountinfo.append(f"30 1 0:30 {root} {escaped} rw,nosuid shared:9 master:2 - {kind} {kind} {options}")
        (self.proc / "self" / "mountinfo").write_text("".join(f"{line}\n" for line in self._mountinfo))
        return where

    def limit(self) -> int | None:
        return memory_limit(self.proc)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def write(directory: Path, name: str, text: object) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text(f"{text}\n")


def test_version_2_takes_the_tightest_of_the_group_and_its_ancestors(tree: Tree) -> None:
    tree.process("0::/user.slice/job/step")
    root = tree.mount("cgroup2", "cgroup")
    write(root / "user.slice", "memory.max", 2 * GIB)
    write(root / "user.slice/job", "memory.max", 512 * MIB)
    write(root / "user.slice/job/step", "memory.max", "max")
    assert tree.limit() == 512 * MIB
    write(root / "user.slice", "memory.max", 256 * MIB)
    assert tree.limit() == 256 * MIB


def test_version_2_without_a_limit_is_none(tree: Tree) -> None:
    tree.process("0::/")
    root = tree.mount("cgroup2", "cgroup")
    assert tree.limit() is None  # the root has no such file
    write(root, "memory.max", "max")
    assert tree.limit() is None


def test_a_sibling_does_not_count(tree: Tree) -> None:
    tree.process("0::/job")
    root = tree.mount("cgroup2", "cgroup")
    write(root / "job", "memory.max", GIB)
    write(root / "job2", "memory.max", MIB)
    write(root / "job/inner", "memory.max", MIB)
    assert tree.limit() == GIB


def test_version_1_takes_the_tightest_and_knows_unlimited(tree: Tree) -> None:
    tree.process("5:cpu,cpuacct:/docker/abc", "4:memory:/docker/abc", "1:name=systemd:/")
    tree.mount("cgroup", "cpu", options="rw,cpu,cpuacct")
    root = tree.mount("cgroup", "memory", options="rw,memory")
    write(root, "memory.limit_in_bytes", UNLIMITED)
    write(root / "docker/abc", "memory.limit_in_bytes", UNLIMITED)
    assert tree.limit() is None
    write(root / "docker", "memory.limit_in_bytes", 300 * MIB)
    assert tree.limit() == 300 * MIB


def test_version_1_on_large_pages_has_another_unlimited(tree: Tree) -> None:
    tree.process("4:memory:/")
    root = tree.mount("cgroup", "memory", options="rw,memory")
    write(root, "memory.limit_in_bytes", 0x7FFFFFFFFFFF0000)
    assert tree.limit() is None


def test_version_1_counts_ancestors_that_the_container_does_not_see(tree: Tree) -> None:
    tree.process("4:memory:/docker/abc")
    root = tree.mount("cgroup", "memory", root="/docker/abc", options="rw,memory")
    write(root, "memory.limit_in_bytes", 2 * GIB)
    write(root, "memory.stat", f"cache 1\nhierarchical_memory_limit {GIB}\ntotal_cache 1")
    assert tree.limit() == GIB


def test_a_container_without_a_namespace_of_its_own_reads_the_hosts_path(tree: Tree) -> None:
    tree.process("4:memory:/docker/abc/inner")
    root = tree.mount("cgroup", "memory", root="/docker/abc", options="rw,memory")
    write(root, "memory.limit_in_bytes", UNLIMITED)
    write(root / "inner", "memory.limit_in_bytes", GIB)
    assert tree.limit() == GIB


@pytest.mark.parametrize("path", ["/../other", "/elsewhere/entirely", "/docker/abcdef"])
def test_a_path_outside_of_what_is_mounted_falls_back_to_the_mount(path: str, tree: Tree) -> None:
    tree.process(f"0::{path}")
    root = tree.mount("cgroup2", "cgroup", root="/docker/abc")
    write(root, "memory.max", GIB)
    write(root / "def", "memory.max", MIB)
    assert tree.limit() == GIB


def test_a_path_that_climbs_out_of_the_namespace_falls_back_to_the_mount(tree: Tree) -> None:
    tree.process("0::/../other")
    root = tree.mount("cgroup2", "cgroup")
    write(root, "memory.max", GIB)
    write(root.parent / "other", "memory.max", MIB)
    assert tree.limit() == GIB


def test_on_a_hybrid_machine_whichever_version_has_the_controller_counts(tree: Tree) -> None:
    tree.process("4:memory:/job", "0::/job")
    one = tree.mount("cgroup", "memory", options="rw,memory")
    tree.mount("cgroup2", "unified")
    write(one / "job", "memory.limit_in_bytes", 700 * MIB)
    assert tree.limit() == 700 * MIB


def test_a_group_that_was_removed_leaves_its_ancestors(tree: Tree) -> None:
    tree.process("0::/job/gone")
    root = tree.mount("cgroup2", "cgroup")
    write(root / "job", "memory.max", GIB)
    assert tree.limit() == GIB


def test_a_mount_point_with_a_space_in_its_name_is_found(tree: Tree) -> None:
    tree.process("0::/")
    write(tree.mount("cgroup2", "my groups"), "memory.max", GIB)
    assert tree.limit() == GIB


def test_a_machine_without_control_groups_has_no_limit(tmp_path: Path) -> None:
    assert memory_limit(tmp_path) is None
    assert mounts(tmp_path) == []


def memory_controller() -> Path | None:
    """This process's own group in a version 1 memory hierarchy, if a group can be made below it."""
    if os.geteuid() != 0:
        return None
    points = [mount.point for mount in mounts() if mount.kind == "cgroup" and "memory" in mount.options]
    own = [
        line.split(":", 2)[2]
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        if "memory" in line.split(":")[1].split(",")
    ]
    group = points[0] / own[0].strip("/") if points and own else None
    return group if group is not None and os.access(group, os.W_OK) else None


CONTROLLER = memory_controller()


@pytest.mark.root
@pytest.mark.skipif(CONTROLLER is None, reason="needs root and a writable version 1 memory hierarchy")
class TestRealGroup:
    """In a group of its own, below the one that the tests run in."""

    LIMIT = 320 * MIB

    @pytest.fixture
    def group(self) -> Iterator[Path]:
        assert CONTROLLER is not None
        directory = CONTROLLER / f"thermocline-test-{os.getpid()}"
        directory.mkdir()
        try:
            (directory / "memory.limit_in_bytes").write_text(str(self.LIMIT))
            yield directory
        finally:
            for pid in map(int, (directory / "cgroup.procs").read_text().split()):
                with suppress(ProcessLookupError):
                    handle = os.pidfd_open(pid)
                    select.select([handle], [], [], 20)
                    os.close(handle)
            directory.rmdir()  # fails while a process is left in it

    def inside(self, group: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The outcome of a command that runs in the group."""
        enter = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
        command = ["/bin/sh", "-c", enter, str(group), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def test_the_kernels_limit_is_what_a_process_in_the_group_reads(self, group: Path) -> None:
        program = "from thermocline.cgroup import memory_limit; print(memory_limit())"
        done = self.inside(group, sys.executable, "-c", program)
        assert (done.stdout, done.stderr) == (f"{self.LIMIT}\n", "")

    def test_a_group_inside_takes_the_limit_of_the_one_above(self, group: Path) -> None:
        inner = group / "inner"
        inner.mkdir()
        try:
            program = "from thermocline.cgroup import memory_limit; print(memory_limit())"
            assert self.inside(inner, sys.executable, "-c", program).stdout == f"{self.LIMIT}\n"
        finally:
            inner.rmdir()

    def test_run_in_a_group_takes_half_of_its_limit(self, group: Path, tmp_path: Path) -> None:
        thermocline = Path(sys.executable).with_name("thermocline")
        stat = tmp_path / "stat.json"
        done = self.inside(group, str(thermocline), "run", "--dram", "auto", "--stat", str(stat), "-c", "pass")
        assert done.returncode == 0, done.stderr
        assert f'"capacity": {self.LIMIT // 2},' in stat.read_text()

    def test_run_in_a_group_refuses_more_than_its_limit(self, group: Path) -> None:
        thermocline = Path(sys.executable).with_name("thermocline")
        done = self.inside(group, str(thermocline), "run", "--memory", "dram=400MiB", "-c", "print('ran')")
        assert (done.returncode, done.stdout) == (2, "")
        assert "above the container's limit of 320 MiB" in done.stderr
