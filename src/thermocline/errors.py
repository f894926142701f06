"""What can go wrong, as exceptions.

Every message is one line that says what is wrong and what to do instead: `thermocline run` prints it as it
stands. Each class is also an exception of Python's own, so that a program which knows nothing of us still
handles it (an allocator's caller catches `MemoryError`).
"""


class ThermoclineError(Exception):
    """The root of every error this library raises on purpose."""


class SpecError(ThermoclineError, ValueError):
    """A size, a node, a page size or their order is not what can be built."""


class UnsupportedError(ThermoclineError, OSError):
    """The machine lacks something tiering needs: a kernel feature, a privilege, an allowed system call."""


class OutOfMemory(ThermoclineError, MemoryError):
    """More memory is asked for than all nodes hold in the worst case, or than can be mapped. Nothing is touched."""


class StoreError(ThermoclineError, OSError):
    """A store cannot keep or return a page: a full disk, a read error, bytes that fail their checksum."""


class ClosedError(ThermoclineError, RuntimeError):
    """A memory, a group or a pin is used after it was closed."""


#: Packages and modules in whose code an error is that a call of ours has met: ours, and those of Python's that we call.
_CALLED = ("thermocline", "socket", "subprocess", "tempfile")


def is_ours(error: OSError) -> bool:
    """Whether the kernel has refused a call of our own, and no signal handler has raised this.

    A handler may raise an exception of any type, at any instruction: ``TimeoutError`` is an ``OSError``. Such an
    exception has come through the handler's own frame, or, from another thread, out of nowhere and without a number.
    Code that runs in a program's process and catches ``OSError`` asks this, and lets the program have what is not ours.
    """
    if error.errno is None:
        return False
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_globals.get("__name__", "").partition(".")[0] not in _CALLED:
            return False
        step = step.tb_next
    return True
