"""The filter's machine code: where it comes from, and how it becomes executable."""

import ctypes
import os
from collections.abc import Mapping

from thermocline.errors import UnsupportedError

FUNCTIONS = ("malloc", "calloc", "realloc", "free", "ask", "release", "enter", "collect")

_CHOICE = "THERMOCLINE_PLAIN_ALLOCATOR"
_ALIGNMENT = 16
_PROT_READ, _PROT_EXEC, _MAP_PRIVATE = 1, 4, 2
_MAP_FAILED = ctypes.c_void_p(-1).value


def filter_code() -> Mapping[str, bytes]:
    """The machine code of every function of the filter, for this machine.

    As compiled beforehand (`plain`), where it was; otherwise compiled now (`native`), which takes llvmlite,
    40 ms and 65 MiB. ``THERMOCLINE_PLAIN_ALLOCATOR`` in the environment allows the one only (``1``) or the
    other (``0``).

    Raises
    ------
    UnsupportedError
        Neither is to be had.
    """
    from thermocline.numpy_allocator import plain

    choice = os.environ.get(_CHOICE)
    code = None if choice == "0" else plain.compiled()
    if code is not None:
        return code
    machine = os.uname().machine
    if choice == "1":
        raise UnsupportedError(f"no filter is compiled beforehand for {machine}; unset {_CHOICE} and install llvmlite")
    from thermocline.numpy_allocator import native

    try:
        return native.compiled()
    except ImportError as error:
        raise UnsupportedError(
            f"tiering NumPy's arrays on {machine} takes llvmlite ({error}); run: pip install 'llvmlite>=0.44'"
        ) from error


def load(code: Mapping[str, bytes]) -> dict[str, int]:
    """Map code for execution, for ever, and return the address of each function.

    The pages are never writable: they are mapped from a memory file (memfd_create(2)), so systems that refuse
    memory which is both writable and executable allow it. NumPy may call the code until the process ends.

    Raises
    ------
    UnsupportedError
        The system refuses.
    """
    offsets = {}
    image = bytearray()
    for name in FUNCTIONS:
        image += bytes(-len(image) % _ALIGNMENT)
        offsets[name] = len(image)
        image += code[name]
    try:
        base = _mapped(image)
    except OSError as error:
        raise UnsupportedError(
            f"this system lets no program load code that it made ({error.strerror}); lift what denies PROT_EXEC"
        ) from error
    return {name: base + offset for name, offset in offsets.items()}


def _mapped(image: bytes | bytearray) -> int:
    descriptor = os.memfd_create("thermocline-filter")
    try:
        os.write(descriptor, image)
        base = _mmap(None, len(image), _PROT_READ | _PROT_EXEC, _MAP_PRIVATE, descriptor, 0)
        if base is None or base == _MAP_FAILED:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(descriptor)
    return int(base)


_mmap = ctypes.CFUNCTYPE(
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
    use_errno=True,
)(("mmap", ctypes.CDLL(None, use_errno=True)))
