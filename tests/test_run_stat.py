"""The counters that `thermocline run` writes and prints at the end."""

import json
import os
import signal
import stat
import subprocess
import textwrap
from pathlib import Path

import pytest

from comparison import NUMPY, NUMPY_RESULT, SECONDS, TIERED, Script, outcome, run


class TestStat:
    def test_the_counters_are_written_as_json_beside_nothing_else(self, script: Script, tmp_path: Path) -> None:
        out = tmp_path / "out"
        out.mkdir()
        done = run([*TIERED, "--stat", str(out / "stat.json"), script(NUMPY)])
        assert outcome(done) == (0, NUMPY_RESULT, "")
        assert os.listdir(out) == ["stat.json"]
        counters = json.loads((out / "stat.json").read_text())
        assert set(counters) >= {"nodes", "arena", "vmstat", "fault_seconds"}
        assert list(counters["nodes"]) == ["dram", "zstd", "file:/var/tmp"]
        for node in counters["nodes"].values():
            assert set(node) >= {"capacity", "used", "peak"}
            assert 0 <= node["used"] <= node["peak"] <= node["capacity"]
        assert counters["nodes"]["dram"]["capacity"] == 4 * 1024**2
        assert 0 < counters["arena"]["peak_resident"] <= 4 * 1024**2
        assert counters["arena"]["page_tables"] > 0
        assert counters["vmstat"]["pgfault"] > 0
        assert set(counters["fault_seconds"]) >= {"p50", "p99", "p999", "max"}

    def test_the_array_size_from_which_on_to_tier_is_heeded(self, script: Script, tmp_path: Path) -> None:
        stat_file = tmp_path / "stat.json"
        run([*TIERED, "--min-array", "16MiB", "--stat", str(stat_file), script(NUMPY)])
        assert json.loads(stat_file.read_text())["vmstat"].get("pgfault", 0) == 0

    def test_a_program_that_dies_has_its_counters_too(self, script: Script, tmp_path: Path) -> None:
        stat_file = tmp_path / "stat.json"
        program = script(textwrap.dedent(NUMPY) + "import signal; signal.raise_signal(signal.SIGKILL)")
        assert run([*TIERED, "--stat", str(stat_file), program]).returncode == -signal.SIGKILL
        assert json.loads(stat_file.read_text())["vmstat"]["pgfault"] > 0

    @pytest.mark.parametrize(("umask", "mode"), [(0, 0o644), (0o077, 0o600)])
    def test_the_file_has_the_usual_mode(self, umask: int, mode: int, tmp_path: Path) -> None:
        stat_file = tmp_path / "stat.json"
        before = os.umask(umask)
        try:
            run([*TIERED, "--stat", str(stat_file), "-c", "pass"])
        finally:
            os.umask(before)
        assert stat.S_IMODE(stat_file.stat().st_mode) == mode

    def test_a_link_stays_and_what_it_points_to_is_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "there").mkdir()
        target, link = tmp_path / "there" / "target.json", tmp_path / "link.json"
        target.write_text("old")
        link.symlink_to(target)
        run([*TIERED, "--stat", str(link), "-c", "pass"])
        assert link.is_symlink()
        assert "nodes" in json.loads(target.read_text())

    def test_a_program_that_changes_its_directory_does_not_move_the_file(self, tmp_path: Path) -> None:
        run([*TIERED, "--stat", "stat.json", "-c", "import os; os.chdir('/')"], cwd=tmp_path)
        assert "nodes" in json.loads((tmp_path / "stat.json").read_text())

    @pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
    def test_standard_output_gets_them_after_the_programs_own(self, name: str, tmp_path: Path) -> None:
        piped = run([*TIERED, "--stat", name, "-c", "print('own')"]).stdout
        assert piped.startswith(b"own\n{")
        with open(tmp_path / "redirected", "wb") as stream:
            command = [*TIERED, "--stat", name, "-c", "print('own')"]
            subprocess.run(command, stdout=stream, timeout=SECONDS, check=True)
        text = (tmp_path / "redirected").read_text()
        assert "nodes" in json.loads(text.removeprefix("own\n"))

    def test_a_named_pipe_gets_them(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        with subprocess.Popen([*TIERED, "--stat", str(pipe), "-c", "pass"]) as process:
            assert "nodes" in json.loads(pipe.read_text())
            assert process.wait(SECONDS) == 0
        assert stat.S_ISFIFO(pipe.stat().st_mode)

    def test_the_summary_is_left_out_when_standard_error_is_closed(self) -> None:
        loud = [part for part in TIERED if part != "--quiet"]
        shell = ["/bin/sh", "-c", 'exec "$@" 2>&-', "sh", *loud, "-c", "print('own')"]
        assert outcome(run(shell)) == (0, "own\n", "")

    def test_the_summary_goes_to_standard_error_alone(self, script: Script) -> None:
        loud = [part for part in TIERED if part != "--quiet"]
        code, out, err = outcome(run([*loud, script(NUMPY)]))
        assert (code, len(out.splitlines())) == (0, 1)
        assert err.startswith("thermocline: arena at most ")
        for word in ("dram", "zstd", "file:/var/tmp", "faults", "p50", "demoted"):
            assert word in err

    @pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), 9)", "os._exit(3)", "os.closerange(3, 200)"])
    def test_a_program_that_ends_has_not_been_replaced(self, end: str, script: Script, tmp_path: Path) -> None:
        program = textwrap.dedent(NUMPY) + f"import os, sys; sys.stdout.flush(); {end}"
        for _ in range(3):
            run([*TIERED, "--stat", str(tmp_path / "stat"), script(program)])
            assert json.loads((tmp_path / "stat").read_text())["replaced"] is False

    @pytest.mark.parametrize("before", ["", "os.closerange(3, 200)"], ids=["", "closed"])
    def test_the_summary_says_so_when_another_program_has_replaced_this_one(self, before: str, script: Script) -> None:
        """What is in its place waits for the end of the first one's helpers, which say that it was replaced.

        It may have closed all that it did not know before, and what tells of such an end.
        """
        program = f"""
            import os, select, sys
            if "SUPERVISOR" not in os.environ:
                import numpy as np
                from pagers import find_supervisor
                assert np.ones(2**18).sum() == 2**18  # a fault was answered: its helpers are there
                os.environ["SUPERVISOR"] = str(find_supervisor(os.getpid()))
                {before}
                os.execv(sys.executable, [sys.executable, *sys.argv])
            try:
                print(*select.select([os.pidfd_open(int(os.environ["SUPERVISOR"]))], [], [])[1:])
            except ProcessLookupError:
                print([], [])
        """
        loud = [part for part in TIERED if part != "--quiet"]
        code, out, err = outcome(run([*loud, script(program)], PYTHONPATH=str(Path(__file__).parent)))
        assert (code, out) == (0, "[] []\n")
        assert "ran another one in its place" in err and "--min-array" not in err
