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
