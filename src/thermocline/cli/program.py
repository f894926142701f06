"""The program as a child process, made to look like the wrapper itself.

The process that started the wrapper (a shell, a service manager, a test) sees the wrapper's process id, sends it
signals and waits for it. So signals are passed on, a stop and a continuation are mirrored, and the exit status is
repeated.

All signals are blocked here and taken one at a time from a queue (sigwaitinfo(2)), with what the kernel says
of their origin. That matters for Ctrl-C: the terminal sends it to the whole foreground process group, so the
program has it already, and a second copy would end programs that give the first one a meaning (siginfo's
`si_code` is above zero for what the kernel sends, tty_io.c, and not above zero for kill(2), sigqueue(3) and
tgkill(2)). A signal that is sent to the whole group with kill(2) cannot be told from one sent to the wrapper: it is
passed on and arrives twice.
"""

import os
import resource
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress

# Not passed on: what cannot be caught, what a process raises for its own faults and timers, and what concerns
# the wrapper's own children and pipes.
_OWN = {
    signal.SIGKILL,
    signal.SIGSTOP,
    signal.SIGCHLD,
    signal.SIGPIPE,
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGTRAP,
    signal.SIGSYS,
    signal.SIGXCPU,
    signal.SIGXFSZ,
    signal.SIGPROF,
    signal.SIGVTALRM,
}
_FORWARDED = set(signal.valid_signals()) - _OWN


class Program:
    """A running program.

    From here until `wait` returns, signals to this process are held for the program.

    Parameters
    ----------
    arguments
        The executable's absolute path and its arguments.
    environment
        Its environment.

    Raises
    ------
    OSError
        It cannot be started (posix_spawn(3)).
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        # If the process that started us ignores SIGCHLD, the kernel would discard the program's exit status (wait(2)).
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED | {signal.SIGCHLD})
        try:
            self.pid = os.posix_spawn(
                arguments[0],
                list(arguments),
                environment,
                # What we were started with. Handlers become the default by themselves (execve(2)).
                setsigmask=self._mask,
            )
        except OSError:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            raise

    def wait(self) -> int:
        """Pass signals on until the program ends; return its wait status."""
        while True:
            caught = signal.sigwaitinfo(_FORWARDED | {signal.SIGCHLD})
            if caught.si_signo == signal.SIGCHLD:
                status = self._reap()
                if status is not None:
                    break
            elif self._lacks(caught):
                # It may have changed its user; then the sender could not have reached it either.
                with suppress(PermissionError):
                    os.kill(self.pid, caught.si_signo)
        # From now on a signal is meant for us: Ctrl-C ends even a report that does not come.
        while signal.sigtimedwait(_FORWARDED | {signal.SIGCHLD}, 0) is not None:
            pass
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        return status

    def _lacks(self, caught: signal.struct_siginfo) -> bool:
        """Whether the program has not got this signal by itself."""
        if caught.si_code <= 0:
            return caught.si_pid != self.pid  # it signalled its own process group
        # The kernel signals the terminal's foreground group, but a hang-up only to the leader of the session
        # (tty_signal_session_leader, drivers/tty/tty_jobctrl.c), which the program would be in our place.
        return caught.si_signo == signal.SIGHUP and os.getsid(0) == os.getpid()

    def _reap(self) -> int | None:
        """The program's wait status, once it has ended."""
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            if pid == 0:
                return None
            if pid != self.pid:
                continue  # an orphan: this is the first process of a container
            if not os.WIFSTOPPED(status):
                return status
            if os.WSTOPSIG(status) != signal.SIGSTOP or _in_foreground():
                # The shell that waits for us learns that the job stopped, and continues the whole group. A
                # SIGSTOP where no shell watches was meant for the program alone (cpulimit, a debugger): its sender
                # will not continue us, so we stay.
                os.kill(os.getpid(), signal.SIGSTOP)


def end_likewise(status: int) -> int:
    """The exit code of a program with this wait status. If a signal killed it, that signal kills us."""
    if not os.WIFSIGNALED(status):
        return os.waitstatus_to_exitcode(status)
    number = os.WTERMSIG(status)
    # The program has dumped core if it was to; a second one, of the wrapper, would only overwrite it.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, ValueError):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    # Still here: the first process of a container is spared by signals that it does not handle
    # (pid_namespaces(7)).
    return 128 + number


def _in_foreground() -> bool:
    """Whether this process belongs to the foreground group of its terminal."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
