"""System calls on tiered arrays where userfaultfd serves user-mode faults only.

The kernel then returns EFAULT for a buffer that is not in DRAM, or a short count. ``libthermocline-syscalls.so``
(``native/syscalls/``) stands before those functions of the C library that hand buffers to the kernel, and copies what
lies in tiered memory through ordinary memory. The dynamic linker puts it there (LD_PRELOAD, ld.so(8)), which
``thermocline run`` asks for. A program that was started without it has what is loaded redirected when its first memory
is made (``native/syscalls/got.c``), and again after each import of an extension module.

``python -m thermocline.live.system_calls`` prints the path for LD_PRELOAD.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache, wraps
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from pathlib import Path
from types import ModuleType

from thermocline.live.address_space import address_space
from thermocline.native import load

#: What the library and this module must agree on; ``TC_SYSCALLS_ABI`` in ``native/syscalls/syscalls.h``.
ABI = 1

LIBRARY = Path(__file__).parents[1] / "native" / "libthermocline-syscalls.so"

#: What ends a path in LD_PRELOAD, or is expanded there. It cannot be escaped.
_NOT_IN_PRELOAD = frozenset(" :$\t\n")
#: Libraries that refuse to run unless they are the first to be loaded.
_FIRST = ("libasan", "libtsan", "libhwasan", "libclang_rt")


def cover() -> bool:
    """Serve system calls on all tiered memory of this process, if it can have the wrappers -> whether it can."""
    wrappers = _wrappers()
    if wrappers is None:
        return False
    space = address_space()
    wrappers.tc_syscalls_cover(ctypes.c_size_t(space.low), ctypes.c_size_t(space.high))
    return True


@cache
def _wrappers() -> ctypes.CDLL | None:
    """The wrappers, in force: preloaded, or else put into what is loaded now and what is imported later."""
    preloaded = ctypes.CDLL(None)
    if _fits(preloaded):
        return preloaded
    loaded = load(str(LIBRARY))
    if isinstance(loaded, str) or not _fits(loaded) or loaded.tc_syscalls_redirect():
        return None
    _redirect_what_is_imported(loaded)
    return loaded


def _fits(library: ctypes.CDLL) -> bool:
    return bool(getattr(library, "tc_syscalls_abi", int)() == ABI)


def _redirect_what_is_imported(library: ctypes.CDLL) -> None:
    load = ExtensionFileLoader.create_module

    @wraps(load)
    def create_module(self: ExtensionFileLoader, spec: ModuleSpec) -> ModuleType:
        module = load(self, spec)
        library.tc_syscalls_redirect()
        return module

    ExtensionFileLoader.create_module = create_module  # type: ignore[method-assign]


def why_missing() -> str:
    """Why the wrappers are not in this process, though it was to have them."""
    if not LIBRARY.exists():
        return f"{LIBRARY} is missing; install thermocline again"
    if not _can_be_preloaded():
        return f"LD_PRELOAD cannot hold the path {LIBRARY}; install thermocline where there is no space, : or $ in it"
    return "this interpreter ignores LD_PRELOAD: it is statically linked, or has more rights than its user"


def _can_be_preloaded() -> bool:
    return LIBRARY.exists() and not _NOT_IN_PRELOAD.intersection(str(LIBRARY))


def preload(others: str | None) -> str | None:
    """What LD_PRELOAD must be for a program to have the wrappers -> None where it needs not be set.

    They come before the user's own libraries, which so see the buffers that the kernel sees; but sanitizers insist on
    being the first.

    Parameters
    ----------
    others
        What LD_PRELOAD is.
    """
    if not _can_be_preloaded():
        return others
    entries = (others or "").replace(":", " ").split()
    first = [entry for entry in entries if os.path.basename(entry).startswith(_FIRST)]
    return ":".join([*first, str(LIBRARY), *(entry for entry in entries if entry not in first)])


if __name__ == "__main__":
    print(LIBRARY)
