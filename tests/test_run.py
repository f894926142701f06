"""What `thermocline run` promises: as with plain python."""

import json
import os
import signal
import subprocess
import textwrap

import pytest

from comparison import (
    NUMPY,
    NUMPY_RESULT,
    PLAIN,
    SECONDS,
    THERMOCLINE,
    TIERED,
    Script,
    assert_same,
    outcome,
    run,
)
from thermocline.cgroup import memory_limit

SELF_PORTRAIT = """
    import json, os, signal, sys, threading, __main__
    print(json.dumps({
        "argv": sys.argv,
        "orig_argv": sys.orig_argv,
        "name": __name__,
        "file": globals().get("__file__"),
        "main": sorted(vars(__main__)),
        "spec": [getattr(__main__.__spec__, name, None) for name in ("name", "origin", "parent")],
        "path": sys.path,
        "flags": str(sys.flags),
        "executable": sys.executable,
        "prefix": [sys.prefix, sys.base_prefix],
        "warnings": sys.warnoptions,
        "environment": dict(os.environ),
        "cwd": os.getcwd(),
        "hooks": [sys.excepthook is sys.__excepthook__, sys.gettrace(), sys.getprofile()],
        "threads": [thread.name for thread in threading.enumerate()],
        "children": open("/proc/self/task/%d/children" % os.getpid()).read().split(),
        "handlers": {n: str(signal.getsignal(n)) for n in sorted(signal.valid_signals())},
        "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "limits": open("/proc/self/limits").read(),
        "streams": [sys.stdin.isatty(), sys.stdout.encoding, str(sys.stdout), sys.stdout.write_through],
        "modules": [m in sys.modules for m in ("numpy", "sitecustomize", "usercustomize")],
    }))
"""


class TestAProgramSeesWhatItSeesUnderPlainPython:
    def test_as_a_script(self, script: Script) -> None:
        code, out, _ = assert_same([script(SELF_PORTRAIT), "one", "--two", "-m", "--", "three four"])
        assert code == 0
        assert json.loads(out)["argv"][1:] == ["one", "--two", "-m", "--", "three four"]

    def test_as_a_script_of_this_directory(self, script: Script) -> None:
        script(SELF_PORTRAIT)
        assert_same(["script.py"], cwd=script.directory)

    def test_as_a_module(self, script: Script) -> None:
        script(SELF_PORTRAIT, "package/__main__.py")
        script("raise SystemExit(4)", "package/inner.py")
        _, out, _ = assert_same(["-m", "package", "--quiet", "x"], cwd=script.directory)
        assert json.loads(out)["argv"][1:] == ["--quiet", "x"]
        assert assert_same(["-m", "package.inner"], cwd=script.directory)[0] == 4

    def test_as_code(self) -> None:
        code, out, _ = assert_same(["-c", textwrap.dedent(SELF_PORTRAIT), "-c", "x"])
        assert (code, json.loads(out)["argv"]) == (0, ["-c", "-c", "x"])

    def test_from_standard_input(self) -> None:
        assert assert_same(["-", "x"], stdin=textwrap.dedent(SELF_PORTRAIT).encode())[0] == 0

    def test_as_a_directory(self, script: Script) -> None:
        script(SELF_PORTRAIT, "application/__main__.py")
        assert assert_same([str(script.directory / "application"), "x"])[0] == 0

    @pytest.mark.parametrize("options", [["-u"], ["-OO", "-B"], ["-X", "utf8", "-W", "ignore"], ["-Ps"]])
    def test_with_options_of_the_interpreter(self, options: list[str], script: Script) -> None:
        assert_same([*options, script(SELF_PORTRAIT), "x"])
        assert run([*TIERED, "--", *options, script("raise SystemExit(3)")]).returncode == 3

    @pytest.mark.parametrize("path", ["", "relative", "/no/such/place:relative:", None])
    def test_with_any_pythonpath(self, path: str | None, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
        environment = {} if path is None else {"PYTHONPATH": path}
        assert_same([script(SELF_PORTRAIT)], cwd=script.directory, **environment)

    def test_with_a_sitecustomize_of_its_own(self, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
        script("import sys; sys.own = __name__, __file__", "site/sitecustomize.py")
        program = script(SELF_PORTRAIT + "    import sitecustomize; print(sitecustomize.__file__, sys.own)\n")
        _, out, _ = assert_same([program], PYTHONPATH=str(script.directory / "site"))
        assert "('sitecustomize', '/" in out

    def test_with_a_sitecustomize_that_fails(self, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
        script("1/0", "site/sitecustomize.py")
        code, out, err = outcome(run([*TIERED, script(NUMPY)], PYTHONPATH=str(script.directory / "site")))
        # Once from the wrapper, which is a Python program too, and once from the program.
        assert (code, out, err.count("ZeroDivisionError")) == (0, NUMPY_RESULT, 2)

    def test_with_dashes_before_it_or_without(self, script: Script) -> None:
        program = [script("import sys; print(sys.argv[1:])"), "--", "-x"]
        assert outcome(run([*TIERED, *program])) == (0, "['--', '-x']\n", "")
        assert outcome(run([*TIERED, "--", *program])) == (0, "['--', '-x']\n", "")

    def test_and_so_do_its_children(self, script: Script) -> None:
        child = script(SELF_PORTRAIT, "child.py")
        program = f"""
            import subprocess, sys
            sys.exit(subprocess.run([sys.executable, {child!r}]).returncode)
        """
        assert assert_same([script(program)])[0] == 0

    def test_when_it_looks_for_numpy_before_it_imports_it(self, script: Script) -> None:
        program = """
            import sys
            import importlib.util
            spec = importlib.util.find_spec("numpy")
            print("numpy" in sys.modules, type(spec.loader))
            import numpy
            print(sorted(vars(numpy.__loader__)), type(numpy.__loader__), numpy.__spec__.origin)
            print([str(finder) for finder in sys.meta_path if "thermocline" in str(finder)])
        """
        assert assert_same([script(program)])[1].startswith("False <class")

    def test_when_it_has_no_numpy(self, script: Script) -> None:
        program = """
            import sys
            sys.modules["numpy"] = None
            import numpy
        """
        assert "ModuleNotFoundError" in assert_same([script(program)])[2]


class TestAProgramEndsAsItEndsUnderPlainPython:
    @pytest.mark.parametrize(
        ("text", "code"),
        [
            ("pass", 0),
            ("raise SystemExit(3)", 3),
            ("raise SystemExit('a message')", 1),
            ("import os; os._exit(7)", 7),
            ("import os; print('buffered'); os._exit(7)", 7),
            ("def f(n):\n    return f(n - 1) if n else 1 / n\nf(3)", 1),
            ("import no_such_module", 1),
            ("try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise KeyError(1) from e", 1),
            ("this is no python", 1),
            ("import atexit; atexit.register(print, 'bye'); raise SystemExit(5)", 5),
            ("import signal; signal.raise_signal(signal.SIGTERM)", -signal.SIGTERM),
            ("import signal; signal.raise_signal(signal.SIGKILL)", -signal.SIGKILL),
            ("import signal; signal.raise_signal(signal.SIGINT)", -signal.SIGINT),
            ("import signal; signal.raise_signal(signal.SIGSEGV)", -signal.SIGSEGV),
            ("import os; os.abort()", -signal.SIGABRT),
            ("raise KeyboardInterrupt", -signal.SIGINT),
            ("import threading; threading.Thread(target=print, args=('late',)).start()", 0),
        ],
    )
    def test_with_the_same_status_and_words(self, text: str, code: int, script: Script) -> None:
        assert assert_same([script(text)])[0] == code

    def test_when_there_is_no_such_script(self) -> None:
        assert assert_same(["/no/such/script.py"])[0] == 2

    def test_reading_its_standard_input(self, script: Script) -> None:
        program = script("import sys\nprint(sys.stdin.readline().strip() * 2)\nprint(len(sys.stdin.read()))")
        assert assert_same([program], stdin=b"first\n" + b"x" * 100_000)[1] == "firstfirst\n100000\n"

    def test_with_its_standard_streams_closed(self, script: Script) -> None:
        program = script("import os, sys\nos._exit({sys.stdin, sys.stdout, sys.stderr} == {None} and 9)")
        for command in (PLAIN, TIERED, [part for part in TIERED if part != "--quiet"]):
            shell = ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command, program]
            assert run(shell).returncode == 9

    def test_when_nobody_reads_the_summary(self, script: Script) -> None:
        loud = [part for part in TIERED if part != "--quiet"]
        reader, writer = os.pipe()
        os.close(reader)
        try:
            done = subprocess.run([*loud, script("raise SystemExit(6)")], stderr=writer, timeout=SECONDS, check=False)
        finally:
            os.close(writer)
        assert done.returncode == 6

    def test_while_a_daemon_of_its_lives_on(self, script: Script) -> None:
        """A process that the program leaves behind does not hold up the wrapper."""
        program = """
            import os, sys
            reader, writer = os.pipe()
            if os.fork() == 0:
                os.setsid()
                os.dup2(os.open(os.devnull, os.O_RDWR), 1)
                os.dup2(1, 2)
                sys.stdin.read()
                os._exit(0)
            os._exit(8)
        """
        process = subprocess.Popen([*TIERED, script(program)], stdin=subprocess.PIPE)
        try:
            assert process.wait(SECONDS) == 8
        finally:
            assert process.stdin is not None
            process.stdin.close()  # ends the daemon


class TestAWrongCallStartsNothing:
    """Exit status 2, and one line that says what to write instead."""

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ([], "no container sets a memory limit here"),
            (["--memory", "dram=4MiB, zsdt=1GiB"], 'write "zstd=1GiB"'),
            (["--memory", "zstd=1GiB"], "has no DRAM"),
            (["--memory", "dram=4MiB, file:/tmp=2MiB, zstd=1GiB"], 'write "zstd" before it'),
            (["--memory", "dram=4MiB, zstd=1GiB, zstd=1GiB"], "cycle"),
            (["--memory", "dram=4MiB, file:/no/such/place=1GiB"], "does not exist"),
            (["--memory", "dram=4MiB, file:/tmp=900PiB"], "write a smaller quota"),
            (["--memory", "dram=64KiB"], 'write "dram=1MiB" or more'),
            (["--dram", "2GBi"], "write 2GiB"),
            (["--dram", "1KiB"], "below the minimum"),
            (["--dram", "4MiB", "--memory", "dram=4MiB"], "not allowed with"),
            (["--dram", "4MiB", "--page-size", "5000"], "write 64KiB"),
            (["--dram", "4MiB", "--page-size", "4MiB"], "write 64KiB"),
            (["--dram", "4MiB", "--min-array", "1KiB"], "write 4 KiB or more"),
            (["--dram", "4MiB", "--min-array", "lots"], "is not a size"),
            (["--dram", "4MiB", "--design", "btach"], "batch"),
            (["--dram", "4MiB", "--stat", "/no/such/place/stat.json"], "No such file or directory"),
            (["--dram", "4MiB", "--stat", "/tmp"], "Is a directory"),
            (["--dram", "4MiB", "--stat", "/proc/self/stat.json"], "cannot be written"),
            (["--dram", "4MiB", "--stat", "/dev/fd/99"], "Bad file descriptor"),
            (["--darm", "--dram=4MiB"], "write --dram"),
            (["--dram", "4MiB", "-I"], "leave -I away"),
            (["--dram", "4MiB", "-uE"], "leave -E away"),
            (["--dram", "4MiB", "-X", "utf8", "-S"], "leave -S away"),
        ],
    )
    def test_with_wrong_options(self, options: list[str], says: str, script: Script) -> None:
        if not options and memory_limit() is not None:
            pytest.skip("a container limits this machine: its half is the default")
        marker = script.directory / "ran"
        program = script(f"open({str(marker)!r}, 'w')")
        code, out, err = outcome(run([THERMOCLINE, "run", *options, program]))
        assert (code, out) == (2, "")
        assert err.startswith("thermocline run: error: ")
        assert says in err
        assert err.count("\n") == 1
        assert not marker.exists()

    @pytest.mark.parametrize("rest", [[], ["--"], ["--dram", "4MiB"], ["--dram", "4MiB", "--"]])
    def test_without_a_program(self, rest: list[str]) -> None:
        code, _, err = outcome(run([THERMOCLINE, "run", *rest]))
        assert code == 2
        assert "no program is given" in err

    def test_without_a_value(self, script: Script) -> None:
        assert "expected one argument" in outcome(run([THERMOCLINE, "run", "--dram"]))[2]

    def test_options_of_the_program_are_not_looked_at(self, script: Script) -> None:
        program = script("import sys; print(sys.argv[1:])")
        assert outcome(run([*TIERED, program, "-I", "--dram", "-E"])) == (0, "['-I', '--dram', '-E']\n", "")
        assert outcome(run([*TIERED, "-c", "print('ran')", "-I"])) == (0, "ran\n", "")
        assert outcome(run([*TIERED, "-cprint('SIE')", "-I"])) == (0, "SIE\n", "")

    def test_an_unknown_command_is_met_with_the_one_that_is_meant(self) -> None:
        code, _, err = outcome(run([THERMOCLINE, "rum"]))
        assert (code, err) == (2, 'thermocline: error: the command "rum" is unknown; write thermocline run\n')

    def test_elsewhere_than_on_linux_it_says_what_it_needs(self) -> None:
        program = (
            "import sys; from thermocline.cli import main, run; sys.platform = 'win32'; sys.exit(main(['run', 'x']))"
        )
        code, out, err = outcome(run([*PLAIN, "-c", program]))
        assert (code, out) == (2, "")
        assert err.startswith("thermocline run: error: tiering needs Linux 5.19 or newer and this is win32; ")

    def test_help_and_version_are_no_errors(self) -> None:
        assert b"run" in run([THERMOCLINE, "--help"]).stdout
        assert run([THERMOCLINE]).returncode == 0
        assert run([THERMOCLINE, "--version"]).stdout.startswith(b"thermocline ")
        assert b"--min-array" in run([THERMOCLINE, "run", "--help"]).stdout


def test_importing_the_package_imports_no_numpy() -> None:
    program = "import thermocline, sys; thermocline.parse_spec('dram=4MiB'); print('numpy' in sys.modules)"
    assert run([*PLAIN, "-c", program]).stdout == b"False\n"


def test_the_package_names_what_it_exports() -> None:
    program = """if True:
        import thermocline as tc
        print([name for name in tc.__all__ if getattr(tc, name, None) is None or name not in dir(tc)])
    """
    assert outcome(run([*PLAIN, "-c", program])) == (0, "[]\n", "")


def test_numpy_may_be_imported_first_in_a_forked_worker(script: Script) -> None:
    """Whoever refused there would hang a pool, which replaces a worker that ends for ever."""
    program = """
        import multiprocessing, os, sys
        def work(n):
            import numpy as np
            return float(np.arange(float(n)).sum())
        if __name__ == "__main__":
            with multiprocessing.get_context("fork").Pool(2) as pool:
                print(pool.map(work, [300_000, 400_000]))
            assert "numpy" not in sys.modules
            child = os.fork()
            if not child:
                print(work(500_000), flush=True)
                sys.exit()
            os.waitpid(child, 0)
            print(work(600_000))
    """
    assert_same([script(program)])
    tiered = "import thermocline.numpy_allocator as n; print(bool(n._allocator._activations))"
    assert run([*TIERED, script(f"{program}    {tiered}")]).stdout.endswith(b"True\n")


@pytest.mark.parametrize("before", ["", "import numpy; a = numpy.ones(10**6)", "M('dram=2MiB, zstd=8MiB').zeros(9)"])
@pytest.mark.parametrize("command", [PLAIN, TIERED])
def test_a_forked_child_may_make_a_memory_of_its_own(script: Script, command: list[str], before: str) -> None:
    program = f"""
        import os, sys
        from thermocline import Memory as M
        {before}
        child = os.fork()
        if not child:
            import numpy as np
            own = M("dram=2MiB, zstd=16MiB")
            array = own.zeros(10**6)
            array += 1
            with own.numpy(), own.group("g").numpy():
                other = np.ones(10**6)
            assert other.ctypes.data >= own._regions.session.address
            print(array.sum(), other.sum(), own.stat()["arena"]["peak_resident"] <= 2 << 20, flush=True)
            sys.exit()
        print(os.waitpid(child, 0)[1])
        import numpy as np
        print(np.ones(10**6).sum())
    """
    done = run([*command, script(program)])
    assert outcome(done) == (0, "1000000.0 1000000.0 True\n0\n1000000.0\n", "")


def test_a_wrapper_that_is_killed_is_no_error_of_the_helpers(script: Script) -> None:
    """The supervisor writes the counters to a pipe that nobody reads any more."""
    program = script("import numpy as np, time; np.ones(2**20); print('ready', flush=True); time.sleep(60)")
    with subprocess.Popen([*TIERED, program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as wrapper:
        assert wrapper.stdout is not None
        assert wrapper.stdout.readline() == b"ready\n"
        wrapper.kill()
        assert wrapper.communicate(timeout=SECONDS)[1] == b""
