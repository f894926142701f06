import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermocline.budget import default_spec
from thermocline.errors import SpecError
from thermocline.spec import Compressed, Dram, File, NodeSpec, check_page_size, format_spec, parse_spec

MIB, GIB = 1024**2, 1024**3


def unlimited() -> int | None:
    return None


def limited(size: int) -> Callable[[], int | None]:
    return lambda: size


def refusal(spec: object, page_size: object = 65536, limit: Callable[[], int | None] = unlimited) -> str:
    """The error that `spec` meets, checked to be a single line."""
    with pytest.raises(SpecError) as caught:
        parse_spec(spec, page_size, limit=limit)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_may_be_told_to_be_slow(tmp_path: Path) -> None:
    slow = parse_spec(f"dram=1MiB, file:{tmp_path}=2MiB; latency=2.5ms", limit=unlimited)
    assert slow == (Dram(MIB), File(str(tmp_path), 2 * MIB, "2.5ms"))
    assert slow[1] == File(str(tmp_path), 2 * MIB, 0.0025)
    assert parse_spec(format_spec(slow), limit=unlimited) == slow
    assert "write a number and a unit" in refusal(f"dram=1MiB, file:{tmp_path}=2MiB;latency=2")
    assert "latency" in refusal(f"dram=1MiB, file:{tmp_path}=2MiB;latenzy=2ms")
    with pytest.raises(SpecError, match="from 0 on"):
        File(tmp_path, MIB, -1.0)


def test_a_file_is_encrypted_unless_told_otherwise(tmp_path: Path) -> None:
    nodes = parse_spec(f"dram=1MiB, file:{tmp_path}=2MiB", limit=unlimited)
    assert nodes[1] == File(tmp_path, 2 * MIB, encrypt=True) == File(tmp_path, 2 * MIB, 0.0, "on")
    plain = parse_spec(f"dram=1MiB, file:{tmp_path}=2MiB; encrypt = off; latency=2ms", limit=unlimited)
    assert plain[1] == File(tmp_path, 2 * MIB, "2ms", encrypt=False) == File(tmp_path, 2 * MIB, "2ms", "off")
    assert plain != parse_spec(f"dram=1MiB, file:{tmp_path}=2MiB; encrypt=on; latency=2ms", limit=unlimited)
    assert parse_spec(format_spec(plain), limit=unlimited) == plain
    assert "write on" in refusal(f"dram=1MiB, file:{tmp_path}=2MiB; encrypt=no")


def test_text_and_typed_objects_say_the_same(tmp_path: Path) -> None:
    nodes = (Dram(256 * MIB), Compressed(GIB, "zstd"), File(str(tmp_path), 2 * MIB))
    assert parse_spec(f"dram=256MiB, zstd=1GiB, file:{tmp_path}=2MiB", limit=unlimited) == nodes
    assert parse_spec([Dram("256MiB"), Compressed("1GiB", "zstd"), File(tmp_path, "2MiB")]) == nodes
    assert parse_spec(nodes) == nodes


def test_the_names_are_those_of_the_text(tmp_path: Path) -> None:
    nodes = parse_spec(f" dram = 4MiB ,lz4=2MiB,zstd=2MiB,file:{tmp_path}=2MiB", limit=unlimited)
    assert [node.name for node in nodes] == ["dram", "lz4", "zstd", f"file:{tmp_path}"]


def test_an_option_follows_its_node() -> None:
    dram, zstd = parse_spec("dram=4MiB, zstd=2MiB;incompressible=store", limit=unlimited)
    assert dram == Dram(4 * MIB)
    assert zstd == Compressed(2 * MIB, "zstd", "store")


def test_a_directory_may_have_an_equals_sign_in_its_name(tmp_path: Path) -> None:
    directory = tmp_path / "a=b"
    directory.mkdir()
    assert parse_spec(f"dram=4MiB, file:{directory}=2MiB", limit=unlimited)[1] == File(directory, 2 * MIB)


def test_capacities_are_whole_pages_and_never_more_than_asked_for() -> None:
    dram, zstd = parse_spec("dram=10MB, zstd=3000001", "64KiB", limit=unlimited)
    assert dram.capacity == 10_000_000 // 65536 * 65536
    assert zstd.capacity == 3_000_001 // 65536 * 65536


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("", "the spec is empty"),
        ("  ", "the spec is empty"),
        ("dram=4MiB,", "a comma too many"),
        ("=4MiB", "names no node"),
        ("drma=4MiB", 'the node "drma" is unknown; write "dram=4MiB"'),
        ("dram=4MiB, zsdt=1GiB", 'the node "zsdt" is unknown; write "zstd=1GiB"'),
        ("dram=4MiB, fil:/tmp=1GiB", 'write "file:/tmp=1GiB"'),
        ("DRAM=4MiB", 'write "dram=4MiB"'),
        ("dram=4MiB, tape=1GiB", "write dram, numa:NODE, zstd, lz4 or file:DIRECTORY"),
        ("dram", 'the node "dram" has no size; write "dram=2GiB"'),
        ("dram=", 'the node "dram" has no size'),
        ("dram=4MiB, file:/tmp", 'the node "file:/tmp" has no size'),
        ("dram=4MiB, file=1GiB", "has no directory"),
        ("dram=4MiB, zstd:/tmp=1GiB", 'takes no directory; write "zstd=1GiB"'),
        ("dram=4GBi", "write 4GiB"),
        ("dram=-4MiB", "negative"),
        ("dram=4MiB, zstd=1GiB;incompresible=store", "write incompressible"),
        ("dram=4MiB, zstd=1GiB;incompressible=stor", "write store"),
        ("dram=4MiB;zstd=1GiB", 'leave out ";zstd=1GiB" (a comma parts nodes)'),
        ("zstd=1GiB", "has no DRAM"),
        ("zstd=1GiB, dram=4MiB", 'write it before "zstd"'),
        ("dram=4MiB, dram=4MiB", "dram twice"),
        ("dram=4MiB, zstd=1GiB, zstd=2GiB", "the demotion path would be a cycle"),
        ("dram=4MiB, zstd=1GiB, lz4=1GiB, zstd=2GiB", "the demotion path would be a cycle"),
        ("dram=4MiB, file:/tmp=2MiB, zstd=1GiB", 'write "zstd" before it'),
        ("dram=4MiB, file:scratch=2MiB", '/scratch=2MiB"'),
        ("dram=4MiB, file:/no/such/place=2MiB", '"/no/such/place" does not exist'),
        (f"dram=4MiB, file:{__file__}=2MiB", "is no directory"),
        ("dram=4MiB, file:/proc/self=2MiB", "no file can be made"),
    ],
)
def test_a_spec_that_cannot_be_built_is_refused_with_what_to_write(spec: str, says: str) -> None:
    assert says in refusal(spec)


@pytest.mark.parametrize("name", ["dram", "zstd", "lz4"])
def test_a_node_holds_at_least_sixteen_pages(name: str) -> None:
    above = "" if name == "dram" else "dram=4MiB, "
    text = refusal(f"{above}{name}={1024 * 1024 - 1}")
    assert text.endswith(f'below the minimum of 1 MiB (16 pages of 64 KiB); write "{name}=1MiB" or more')
    assert parse_spec(f"{above}{name}=1MiB", limit=unlimited)[-1].capacity == MIB
    assert parse_spec("dram=64KiB", "4KiB", limit=unlimited) == (Dram(65536),)


def test_the_same_directory_by_another_name_is_the_same_node(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    assert "cycle" in refusal(f"dram=4MiB, file:{tmp_path}=2MiB, file:{tmp_path}/link=2MiB")


def test_two_directories_are_two_nodes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert len(parse_spec(f"dram=4MiB, file:{tmp_path}/a=2MiB, file:{tmp_path}/b=2MiB", limit=unlimited)) == 3


def test_a_quota_beyond_the_free_space_is_refused(tmp_path: Path) -> None:
    assert "more than is free there" in refusal(f"dram=4MiB, file:{tmp_path}=900PiB")


def test_nodes_on_the_same_disk_share_its_free_space(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    there = os.statvfs(tmp_path)
    most = there.f_bavail * there.f_frsize * 2 // 3
    assert "for all its nodes" in refusal(f"dram=4MiB, file:{tmp_path}/a={most}, file:{tmp_path}/b={most}")


def test_memory_beyond_the_containers_limit_is_refused_and_files_do_not_count(tmp_path: Path) -> None:
    assert "above the container's limit of 512 MiB" in refusal("dram=513MiB", limit=limited(512 * MIB))
    assert "above the container's limit" in refusal("dram=256MiB, zstd=257MiB", limit=limited(512 * MIB))
    assert parse_spec(f"dram=256MiB, zstd=256MiB, file:{tmp_path}=2MiB", limit=limited(512 * MIB))


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o755)
    program = (
        "import os, sys, tempfile\n"  # tempfile: while its file can still be read
        "from thermocline.spec import SpecError, parse_spec\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: parse_spec(sys.argv[1])\n"
        "except SpecError as error: print(error)\n"
    )
    # Not under tmp_path: pytest keeps the directories above it to root.
    spec = "dram=4MiB, file:/etc=2MiB"
    command = [sys.executable, "-c", program, spec]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.startswith('no file can be made in "/etc" (Permission denied)'), done.stderr


@pytest.mark.parametrize("page_size", ["4KiB", "64KiB", "2MiB", 8192])
def test_page_sizes_are_powers_of_two(page_size: str | int) -> None:
    assert check_page_size(page_size) in (4096, 65536, 2 * MIB, 8192)


@pytest.mark.parametrize("page_size", ["1KiB", "4MiB", 5000, "96KiB", 0])
def test_other_page_sizes_are_refused(page_size: str | int) -> None:
    assert refusal("dram=1GiB", page_size).startswith(f"the page size {page_size} is not a power of two")


@pytest.mark.parametrize("codec", ["zsdt", "gzip"])
def test_typed_objects_are_checked_too(codec: str) -> None:
    with pytest.raises(SpecError, match="the codec"):
        Compressed("1GiB", codec)  # type: ignore[arg-type]
    assert "is not a node" in refusal([Dram("4MiB"), "zstd=1GiB"])
    assert "has no DRAM" in refusal([])


sizes = st.integers(MIB // 65536, GIB // 65536).map(lambda pages: pages * 65536)
compressed = st.builds(Compressed, sizes, st.sampled_from(["lz4", "zstd"]), st.sampled_from(["demote", "store"]))


@given(sizes, st.lists(compressed, max_size=2, unique_by=lambda node: node.codec), st.booleans())
def test_a_spec_written_as_text_reads_back(dram: int, middle: list[Compressed], with_file: bool) -> None:
    nodes: list[NodeSpec] = [Dram(dram), *middle]
    if with_file:
        nodes.append(File("/tmp", 2 * MIB))
    assert parse_spec(format_spec(nodes), limit=unlimited) == tuple(nodes)


def test_a_directory_that_text_cannot_name_is_refused_as_text_and_accepted_as_an_object(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "a,b"
    directory.mkdir()
    nodes = parse_spec([Dram("4MiB"), File(directory, "2MiB")])
    with pytest.raises(SpecError, match="name another"):
        format_spec(nodes)


class TestDefaultSpec:
    def mountinfo(self, proc: Path, *lines: str) -> Path:
        (proc / "self").mkdir(parents=True)
        (proc / "self" / "mountinfo").write_text("".join(f"{line}\n" for line in lines))
        return proc

    def test_half_in_compressed_memory_and_sixteen_times_on_disk(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        proc = self.mountinfo(tmp_path / "proc", "1 0 8:1 / / rw - ext4 /dev/sda rw")
        assert default_spec("2MiB", limit=unlimited, proc=proc) == (
            Dram(2 * MIB),
            Compressed(MIB),
            File(tmp_path, 32 * MIB),
        )

    def test_a_budget_too_small_to_halve_has_no_compressed_memory(self) -> None:
        assert [type(node) for node in default_spec("1MiB", limit=unlimited)] in ([Dram], [Dram, File])

    def test_auto_is_half_of_the_limit_and_leaves_room_for_the_program(self) -> None:
        dram, zstd, *_ = default_spec("auto", limit=limited(GIB))
        assert (dram, zstd) == (Dram(GIB // 2), Compressed(GIB // 4))

    def test_auto_without_a_limit_asks_for_a_size(self) -> None:
        with pytest.raises(SpecError, match="write --dram 2GiB"):
            default_spec("auto", limit=unlimited)

    def test_compressed_memory_stays_within_the_limit(self) -> None:
        dram, zstd, *_ = default_spec("768MiB", limit=limited(GIB))
        assert (dram, zstd) == (Dram(768 * MIB), Compressed(128 * MIB))
        assert not any(isinstance(node, Compressed) for node in default_spec("1GiB", limit=limited(GIB)))

    def test_a_budget_above_the_limit_is_refused(self) -> None:
        with pytest.raises(SpecError, match="above the container's limit of 1 GiB"):
            default_spec("2GiB", limit=limited(GIB))

    def test_the_file_takes_at_most_four_fifths_of_the_free_space(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        proc = self.mountinfo(tmp_path / "proc", "1 0 8:1 / / rw - ext4 /dev/sda rw")
        there = os.statvfs(tmp_path)
        nodes = default_spec("1PiB", limit=unlimited, proc=proc)
        quota = nodes[-1].capacity
        assert isinstance(nodes[-1], File)
        assert 0.7 < quota / (there.f_bavail * there.f_frsize) < 0.81

    @pytest.mark.parametrize("kind", ["tmpfs", "ramfs"])
    def test_a_directory_in_memory_is_passed_over(
        self, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        disk = "1 0 8:1 / / rw - ext4 /dev/sda rw"
        memory = f"2 1 0:9 / {tmp_path} rw - {kind} {kind} rw"
        proc = self.mountinfo(tmp_path / "proc", memory, disk)
        names = [node.name for node in default_spec("2MiB", limit=unlimited, proc=proc)]
        assert f"file:{tmp_path}" not in names
        assert names[:2] == ["dram", "zstd"]

    def test_a_disk_mounted_over_memory_counts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        memory = f"2 1 0:9 / {tmp_path} rw - tmpfs tmpfs rw"
        disk = f"3 2 8:2 / {tmp_path} rw - ext4 /dev/sdb rw"
        proc = self.mountinfo(tmp_path / "proc", memory, disk)
        assert default_spec("2MiB", limit=unlimited, proc=proc)[-1].name == f"file:{tmp_path}"

    def test_the_default_can_be_written_as_text_wherever_tmpdir_lies(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        directory = tmp_path / "a,b"
        directory.mkdir()
        monkeypatch.setenv("TMPDIR", str(directory))
        nodes = default_spec("2MiB", limit=unlimited)
        assert parse_spec(format_spec(nodes), limit=unlimited) == nodes
