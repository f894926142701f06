"""The fence, in processes that end by it: addresses that nothing is mapped at, and handlers that were there before."""

import signal
import subprocess
import sys
import textwrap

import pytest

TOUCHED = "this forked child has touched a tiered array"

PRELUDE = """
import ctypes, faulthandler, mmap, os, resource, signal
from thermocline.live import fence, libc

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
SIZE = 1 << 16
low = libc.mmap(None, SIZE, libc.PROT_NONE, libc.MAP_PRIVATE | libc.MAP_ANONYMOUS)

def touch(address):
    ctypes.c_char.from_address(address).value
"""


def ended(program: str) -> tuple[int, str]:
    """Run a program that writes nothing to stdout -> its status and stderr."""
    command = [sys.executable, "-c", PRELUDE + textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.mark.parametrize("offset", ["0", "SIZE - 1"])
@pytest.mark.parametrize("before", ["pass", "faulthandler.enable()"])
def test_a_touch_inside_writes_the_message_once_and_ends_the_process(offset: str, before: str) -> None:
    status, said = ended(f"""
        {before}
        fence.prepare(low, low + SIZE)
        fence.install()
        touch(low + {offset})
    """)
    assert status == -signal.SIGSEGV
    assert said.count(TOUCHED) == 1
    assert said.count("\n") == 2
    assert "Segmentation fault" not in said


@pytest.mark.parametrize("offset", ["-1", "SIZE"])
def test_a_fault_beside_it_ends_the_process_without_the_message(offset: str) -> None:
    status, said = ended(f"""
        libc.munmap(low, SIZE)
        low = libc.mmap(None, 3 * SIZE, libc.PROT_NONE, libc.MAP_PRIVATE | libc.MAP_ANONYMOUS) + SIZE
        fence.prepare(low, low + SIZE)
        fence.install()
        touch(low + {offset})
    """)
    assert (status, said) == (-signal.SIGSEGV, "")


@pytest.mark.parametrize("harm", ["touch(8)", "os.kill(os.getpid(), signal.SIGSEGV)"])
def test_another_fault_and_a_signal_that_is_sent_go_to_the_handler_before(harm: str) -> None:
    status, said = ended(f"""
        faulthandler.enable()
        fence.prepare(low, low + SIZE)
        fence.install()
        {harm}
    """)
    assert status == -signal.SIGSEGV
    assert said.count("Fatal Python error: Segmentation fault") == 1
    assert TOUCHED not in said


def test_a_signal_that_is_sent_is_ignored_where_it_was_ignored() -> None:
    assert ended("""
        signal.signal(signal.SIGSEGV, signal.SIG_IGN)
        fence.prepare(low, low + SIZE)
        fence.install()
        os.kill(os.getpid(), signal.SIGSEGV)
        os.kill(os.getpid(), signal.SIGSEGV)
    """) == (0, "")


def test_the_overflow_of_a_stack_reaches_the_handler_before() -> None:
    status, said = ended("""
        faulthandler.enable()
        fence.prepare(low, low + SIZE)
        fence.install()
        faulthandler._stack_overflow()
    """)
    assert status == -signal.SIGSEGV
    assert said.count("Fatal Python error: Segmentation fault") == 1


@pytest.mark.parametrize(
    "between", ["pass", "faulthandler.enable()", "faulthandler.enable(); fence.install(); faulthandler.enable()"]
)
def test_a_second_installation_makes_no_loop(between: str) -> None:
    """As in the child of a child, which inherits the handler."""
    status, said = ended(f"""
        fence.prepare(low, low + SIZE)
        fence.install()
        {between}
        fence.install()
        touch(8)
    """)
    assert status == -signal.SIGSEGV
    assert said.count("Fatal Python error: Segmentation fault") == ("enable" in between)


def test_the_sender_of_a_signal_is_no_address() -> None:
    """siginfo_t has the sender's process and user where it has the address of a fault."""
    status, said = ended("""
        fence.prepare(1, 1 << 63)
        fence.install()
        os.kill(os.getpid(), signal.SIGSEGV)
    """)
    assert (status, said) == (-signal.SIGSEGV, "")


def test_nothing_is_installed_before_it_is_prepared() -> None:
    assert ended("""
        fence.install()
        c = ctypes.CDLL(None)
        c.signal.restype = ctypes.c_void_p
        assert c.signal(signal.SIGSEGV, None) is None  # SIG_DFL, before and after
    """) == (0, "")


def test_the_first_range_counts() -> None:
    status, said = ended("""
        fence.prepare(low, low + SIZE)
        fence.prepare(1, 2)
        fence.install()
        touch(low)
    """)
    assert status == -signal.SIGSEGV
    assert TOUCHED in said


def test_it_is_inherited_and_errno_is_kept() -> None:
    """A previous handler that returns: the instruction that faulted runs again, with errno as it was."""
    status, said = ended("""
        fence.prepare(low, low + SIZE)
        fence.install()
        child = os.fork()
        if not child:
            touch(low)
        assert os.waitpid(child, 0)[1] == signal.SIGSEGV

        page = libc.mmap(None, SIZE, libc.PROT_NONE, libc.MAP_PRIVATE | libc.MAP_ANONYMOUS)
        c = ctypes.CDLL(None, use_errno=True)

        @ctypes.CFUNCTYPE(None, ctypes.c_int)
        def repair(_):
            libc.mmap(page, SIZE, libc.PROT_READ, libc.MAP_PRIVATE | libc.MAP_ANONYMOUS | libc.MAP_FIXED)

        child = os.fork()
        if not child:
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)
            c.signal(signal.SIGSEGV, repair)
            fence.install()
            ctypes.set_errno(77)
            c.strnlen(ctypes.c_void_p(page), ctypes.c_size_t(9))
            os._exit(ctypes.get_errno())
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 77
    """)
    assert status == 0, said
    assert said.count(TOUCHED) == 1


def test_a_message_that_is_too_long_is_refused() -> None:
    status, said = ended("""
        fence._MESSAGE = b"x" * 513
        fence.prepare(low, low + SIZE)
    """)
    assert status == 1
    assert said.endswith("OSError: [Errno 22] Invalid argument\n")
