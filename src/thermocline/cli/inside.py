"""What `thermocline run` does inside the program's process, before the program's first statement."""

import atexit
import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

from thermocline.errors import ThermoclineError

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h

# Entered for the whole life of the process; without a reference from here the context would end at once.
_entered = ExitStack()
atexit.register(_entered.close)  # at the very end, a generator that is still open would be closed without its modules


def begin(settings: Mapping[str, Any]) -> None:
    """Make the memory that `thermocline run` was asked for; tier NumPy's arrays as soon as NumPy is there.

    Parameters
    ----------
    settings
        `spec`, `page_size`, `min_array`, `design`, `commit`, `poll` as given to `thermocline run`, `report` (the
        descriptor for the final counters) and `wrapper` (the process id of `thermocline run`).
    """
    report: int = settings["report"]
    os.set_inheritable(report, False)
    _die_with(settings["wrapper"])
    try:
        from thermocline.live import system_calls
        from thermocline.memory import Memory

        memory = Memory(
            settings["spec"],
            page_size=settings["page_size"],
            design=settings["design"],
            commit=settings["commit"],
            poll=settings["poll"],
            report_fd=os.dup(report),
        )
        os.close(report)
    except BaseException as error:
        _refuse(error, report)

    if not memory.serves_system_calls:
        _say(
            "thermocline run: only page faults of the program itself are served here, so system calls on tiered arrays"
            f" fail (EFAULT), and their wrappers are not in place: {system_calls.why_missing()}\n"
        )

    def look_once_more() -> None:
        # A forked child cannot, and need not; nor can a program that may open no more files.
        with suppress(ThermoclineError, OSError):
            memory.stat()  # what only the program can see of itself goes into the final counters

    _entered.callback(look_once_more)

    # The wrapper is PID 1, in the program's place: what that would adopt, the program does.
    if settings["wrapper"] == 1:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    program = os.getpid()

    def tier() -> None:
        if os.getpid() != program:
            return  # a forked child that is the first to import NumPy: its new arrays are plain, as in any child
        number = ctypes.get_errno()
        try:
            _entered.enter_context(memory.numpy(min_array=settings["min_array"]))
        except BaseException as error:
            _refuse(error, report)
        ctypes.set_errno(number)

    if "numpy" in sys.modules:  # a .pth file imported it
        tier()
    else:
        sys.meta_path.insert(0, AfterImport("numpy", tier))
    ctypes.set_errno(0)  # that of a call of ours is no business of the program's


class AfterImport(MetaPathFinder):
    """Calls a function once, right after a module was first imported.

    The module is found and loaded by the same finder and loader as without this; only the execution of its code is
    followed.
    An eager import is out of the question: programs set OMP_NUM_THREADS and the like before they import
    NumPy.

    Parameters
    ----------
    name
        The module's full name.
    action
        What to call. It runs in the importing thread, which holds the module's import lock.
    """

    def __init__(self, name: str, action: Callable[[], None]) -> None:
        self._name = name
        self._action = action

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec that the other finders give, with the loader's `exec_module` followed by the action."""
        if fullname != self._name:
            return None
        for finder in list(sys.meta_path):
            search = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = search and search(fullname, path, target)
            if spec is not None:
                self._follow(spec.loader)
                return spec
        return None

    def _follow(self, loader: Any) -> None:
        # On the loader's own instance, made for this one spec, and gone before the module can see it. A
        # program may ask for the spec without importing (importlib.util.find_spec), so this stays until a
        # module really ran.
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            del loader.exec_module
            execute(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
                self._action()

        loader.exec_module = exec_module


def _die_with(wrapper: int) -> None:
    """Have the kernel kill this process when `thermocline run` is killed: then no wrapper passes signals on to it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have died before the call, which then does nothing (prctl(2)).
    if os.getppid() != wrapper:
        os.kill(os.getpid(), signal.SIGKILL)


def _say(message: str) -> None:
    with suppress(OSError):  # a closed standard stream
        os.write(2, message.encode(errors="replace"))


def _refuse(error: BaseException, report: int) -> NoReturn:
    """End the process: a program that was to be tiered must not run on untiered and unsaid."""
    if isinstance(error, ThermoclineError):
        message = f"thermocline run: error: {error}\n"
    elif isinstance(error, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
        message = ""
    else:
        message = "".join(traceback.format_exception(error))
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    _say(message)
    with suppress(OSError):  # the supervisor has the pipe already
        os.write(report, b"null\n")  # no counters, and that is known
    os._exit(2)
