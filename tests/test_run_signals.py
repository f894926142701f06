"""Signals and terminals: the program behaves as if it were not a child of `thermocline run`."""

import os
import pty
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import pytest

from comparison import PLAIN, SECONDS, TIERED, Script


@contextmanager
def started(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A running process whose program has said that it is ready."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


# These programs spin where one would expect them to sleep: a signal that comes between the interpreter's
# last look and a blocking system call waits for the end of that call, with plain python as well.
HANDLER = """
    import signal, sys
    def handler(number, frame):
        print("got", signal.Signals(number).name, flush=True)
        if number != signal.SIGUSR1:
            sys.exit(5)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, handler)
    print("ready", flush=True)
    while True:
        pass
"""
WAITER = """
    ready = False
    while True: ready = ready or not print("ready", flush=True)
"""


def without_marks(traceback: str) -> str:
    """A traceback without the marks below its lines: the interrupt comes at any point of a line."""
    return "".join(line for line in traceback.splitlines(True) if line.strip(" ~^\r\n"))


class TestASignalToTheWrapperReachesTheProgram:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
    def test_that_handles_it(self, number: signal.Signals, script: Script) -> None:
        with started([*TIERED, script(HANDLER)]) as process:
            process.send_signal(number)
            assert process.communicate(timeout=SECONDS) == (f"got {number.name}\n", "")
            assert process.returncode == 5

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR2])
    def test_that_does_not(self, number: signal.Signals, script: Script) -> None:
        ends = []
        for command in (PLAIN, TIERED):
            with started([*command, script(WAITER)]) as process:
                process.send_signal(number)
                out, err = process.communicate(timeout=SECONDS)
                ends.append((out, without_marks(err), process.returncode))
        assert ends[0] == ends[1]
        assert ends[0][-1] == -number

    def test_that_goes_on_afterwards(self, script: Script) -> None:
        with started([*TIERED, script(HANDLER)]) as process:
            assert process.stdout is not None
            for _ in range(3):
                process.send_signal(signal.SIGUSR1)
                assert process.stdout.readline() == "got SIGUSR1\n"
            process.send_signal(signal.SIGTERM)
            assert process.communicate(timeout=SECONDS) == ("got SIGTERM\n", "")

    def test_but_not_back_from_the_program_itself(self, script: Script) -> None:
        """`kill(0)` in the program reaches the wrapper as well, which must not send it a second time."""
        program = """
            import os, signal
            count = 0
            def handler(number, frame):
                global count
                count += 1
            signal.signal(signal.SIGUSR1, handler)
            signal.signal(signal.SIGUSR2, lambda *_: print(count, flush=True))
            os.kill(0, signal.SIGUSR1)
            print("ready", flush=True)
            while True:
                pass
        """
        command = [*TIERED, script(program)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdout=pipe, text=True, process_group=0) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
                # The wrapper takes pending signals in the order of their numbers: this one after the first.
                process.send_signal(signal.SIGUSR2)
                assert process.stdout.readline() == "1\n"
            finally:
                process.terminate()

    def test_and_if_the_wrapper_is_killed_outright_the_program_ends_too(self, script: Script) -> None:
        program = """
            import os, signal
            print("ready", flush=True)
            print(os.getpid(), flush=True)
            signal.pause()
        """
        with started([*TIERED, script(program)]) as process:
            assert process.stdout is not None
            handle = os.pidfd_open(int(process.stdout.readline()))
            try:
                process.kill()
                assert select.select([handle], [], [], SECONDS)[0]
            finally:
                os.close(handle)


class Terminal:
    """A terminal with a small shell in it, which runs one job in a process group of its own."""

    SHELL = """
        import os, signal, sys
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        job = os.fork()
        if job == 0:
            os.setpgid(0, 0)
            os.tcsetpgrp(0, os.getpid())
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)
            os.execv(sys.argv[1], sys.argv[1:])
        while True:
            _, status = os.waitpid(job, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                break
            os.tcsetpgrp(0, os.getpid())
            print("shell: stopped", flush=True)
            sys.stdin.readline()
            os.tcsetpgrp(0, job)
            os.killpg(job, signal.SIGCONT)
        os.tcsetpgrp(0, os.getpid())
        print("shell: status", os.waitstatus_to_exitcode(status), flush=True)
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.pid, self._descriptor = pty.fork()
        if self.pid == 0:
            os.execv(sys.executable, [sys.executable, "-c", textwrap.dedent(self.SHELL), *command])
        self._seen = ""

    def type(self, keys: bytes) -> None:
        os.write(self._descriptor, keys)

    def await_text(self, text: str) -> str:
        """Everything shown up to and with `text`, which must come within the time allowed."""
        while text not in self._seen:
            piece = b""
            with suppress(OSError):  # EIO: the last one has closed the terminal
                if select.select([self._descriptor], [], [], SECONDS)[0]:
                    piece = os.read(self._descriptor, 4096)
            assert piece, f"{text!r} did not come: {self._seen}"
            self._seen += piece.decode()
        before, _, self._seen = self._seen.partition(text)
        return before + text

    def close(self) -> None:
        os.close(self._descriptor)  # hangs up: whoever still runs in it ends
        os.waitpid(self.pid, 0)


@contextmanager
def terminal(command: Sequence[str]) -> Iterator[Terminal]:
    opened = Terminal(command)
    try:
        yield opened
    finally:
        opened.close()


class TestOnATerminal:
    def test_ctrl_c_reaches_the_program_once(self, script: Script) -> None:
        program = """
            import select, signal
            count = 0
            def interrupted(number, frame):
                global count
                count += 1
                print("interrupted", flush=True)
            signal.signal(signal.SIGINT, interrupted)
            signal.signal(signal.SIGUSR1, lambda *_: print(f"count {count}.", flush=True))
            print("ready", flush=True)
            while not select.select([0], [], [], 0.001)[0]:
                pass
            raise SystemExit(3)
        """
        with terminal([*TIERED, script(program)]) as tty:
            tty.await_text("ready")
            for count in (1, 2, 3):
                tty.type(b"\x03")
                tty.await_text("interrupted")
                # Through the wrapper, which takes a lower number first: a forwarded SIGINT would be there
                # before.
                os.kill(foreground(tty), signal.SIGUSR1)
                tty.await_text(f"count {count}.")
            tty.type(b"\x04")
            tty.await_text("shell: status 3")

    def test_ctrl_c_ends_a_program_with_its_traceback_and_signal(self, script: Script) -> None:
        shown = []
        for command in (PLAIN, TIERED):
            with terminal([*command, script(WAITER)]) as tty:
                tty.await_text("ready")
                tty.type(b"\x03")
                shown.append(without_marks(tty.await_text("shell: status -2")))
        assert shown[0] == shown[1]
        assert "KeyboardInterrupt" in shown[0]

    def test_ctrl_z_stops_the_job_and_the_shell_continues_it(self, script: Script) -> None:
        program = """
            import select, signal
            signal.signal(signal.SIGCONT, lambda *_: print("continued", flush=True))
            print("ready", flush=True)
            while not select.select([0], [], [], 0.001)[0]:
                pass
            print("read", input(), flush=True)
            raise SystemExit(4)
        """
        with terminal([*TIERED, script(program)]) as tty:
            tty.await_text("ready")
            for _ in range(2):
                tty.type(b"\x1a")
                tty.await_text("shell: stopped")
                tty.type(b"\n")  # fg
                tty.await_text("continued")
            tty.type(b"line\n")
            tty.await_text("read line")
            tty.await_text("shell: status 4")

    def test_a_hang_up_ends_the_program(self, script: Script) -> None:
        """The wrapper as the leader of the session, as in `docker run -t`: the kernel tells it alone."""
        program = script("import os\nprint(os.getpid(), 'pid', flush=True)\ninput()\n")
        pid, descriptor = pty.fork()
        if pid == 0:
            os.execv(sys.executable, [*TIERED, program])
        shown = b""
        while b"pid" not in shown:
            shown += os.read(descriptor, 4096)
        handle = os.pidfd_open(int(shown.split()[0]))
        os.close(descriptor)
        try:
            assert select.select([handle], [], [], SECONDS)[0]
        finally:
            os.close(handle)
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGHUP


def foreground(tty: Terminal) -> int:
    """The process id of the terminal's foreground job."""
    return os.tcgetpgrp(tty._descriptor)
