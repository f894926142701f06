"""The native library: what runs where Python must not be entered, or what must not hold the GIL.

It performs and decides nothing. It is C without ``Python.h``, compiled by ``pip install`` (``hatch_build.py``), and
loaded by ctypes: one library serves every Python of a machine. Each ``*.c`` beside this file is one noun;
``thermocline.h`` declares what they offer. ``syscalls/`` is another library, which is preloaded
(:mod:`thermocline.live.system_calls`): it defines ``read`` and its like.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from functools import cache
from pathlib import Path

from thermocline.errors import UnsupportedError
from thermocline.native.cpython import introduce

#: What :func:`library` and the library itself must agree on; ``TC_ABI`` in ``thermocline.h``.
ABI = 17

#: Addresses that the loader takes for itself, at most.
_ROOM = 1 << 20
_MAP_FAILED = ctypes.c_void_p(-1).value

_AGAIN = "install thermocline again, with a C compiler (gcc) at hand"


@cache
def library() -> ctypes.CDLL:
    """The native library, loaded when first asked for.

    ``THERMOCLINE_NATIVE`` names another build of it: the tests run against sanitized ones.

    Raises
    ------
    UnsupportedError
        It is missing, is of another machine, or of another version of this package; or a limit has no room for it.
    """
    path = os.environ.get("THERMOCLINE_NATIVE") or str(Path(__file__).with_name("libthermocline.so"))
    loaded = load(path)
    if isinstance(loaded, str):
        raise UnsupportedError(f"the native library {path} {_why_not(os.fsencode(path), loaded)}")
    if getattr(loaded, "tc_abi", int)() != ABI:
        raise UnsupportedError(f"the native library {path} is of another version; {_AGAIN}")
    introduce(loaded)
    return loaded


def load(path: str) -> ctypes.CDLL | str:
    """Load a library (dlopen(3)), or say why it is not, in the loader's words.

    The loader is called, and answers: of an OSError out of ``ctypes.CDLL`` it could not be said whether it is a signal
    handler's.
    """
    loader = ctypes.CDLL(None)
    loader.dlopen.restype = ctypes.c_void_p
    loader.dlerror.restype = ctypes.c_char_p
    handle = loader.dlopen(ctypes.c_char_p(os.fsencode(path)), ctypes.c_int(os.RTLD_NOW | os.RTLD_LOCAL))
    return os.fsdecode(loader.dlerror() or b"") if handle is None else ctypes.CDLL(path, handle=handle)


def _why_not(path: bytes, said: str) -> str:
    """Why a library is not loaded, by what the loader has said and by what the kernel says, and what to do."""
    if not os.access(path, os.F_OK):  # the loader says "No such file" of one for another machine, too
        return f"is missing; {_AGAIN}"
    number = _refusal(path)
    if number in (errno.EMFILE, errno.ENFILE):
        reason, limit = "no more files can be opened", "ulimit -n"
    elif number == errno.ENOMEM:
        reason, limit = "this process may have no more addresses", "ulimit -v"
    else:
        return f"is damaged, or is another machine's ({said}); {_AGAIN}"
    return f"cannot be loaded: {reason} ({os.strerror(number)}); raise the limit ({limit})"


def _refusal(path: bytes) -> int:
    """Why the kernel would not open a file and map it now, with some room for the loader: an error number, or 0."""
    before = ctypes.get_errno()  # the program's
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    fd = libc.open(ctypes.c_char_p(path), ctypes.c_int(os.O_RDONLY | os.O_CLOEXEC))
    number = ctypes.get_errno() if fd < 0 else 0
    if fd >= 0:
        size = ctypes.c_size_t(2 * os.fstat(fd).st_size + _ROOM)
        access, kind = ctypes.c_int(mmap.PROT_READ), ctypes.c_int(mmap.MAP_PRIVATE)
        mapped = libc.mmap(None, size, access, kind, ctypes.c_int(fd), ctypes.c_long(0))
        if mapped == _MAP_FAILED:
            number = ctypes.get_errno()
        else:
            libc.munmap(ctypes.c_void_p(mapped), size)
        libc.close(ctypes.c_int(fd))
    ctypes.set_errno(before)
    return number
