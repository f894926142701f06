"""The native library: what runs where Python must not be entered, or what must not hold the GIL.

It performs and decides nothing. It is C without ``Python.h``, compiled by ``pip install`` (``hatch_build.py``), and
loaded by ctypes: one library serves every Python of a machine. Each ``*.c`` beside this file is one noun;
``thermocline.h`` declares what they offer. ``syscalls/`` is another library, which is preloaded
(:mod:`thermocline.live.system_calls`): it defines ``read`` and its like.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

from thermocline.errors import UnsupportedError
from thermocline.native.cpython import introduce

#: What :func:`library` and the library itself must agree on; ``TC_ABI`` in ``thermocline.h``.
ABI = 10

_AGAIN = "install thermocline again, with a C compiler (gcc) at hand"


@cache
def library() -> ctypes.CDLL:
    """The native library, loaded when first asked for.

    ``THERMOCLINE_NATIVE`` names another build of it: the tests run against sanitized ones.

    Raises
    ------
    UnsupportedError
        It is missing, is of another machine, or of another version of this package.
    """
    path = os.environ.get("THERMOCLINE_NATIVE") or str(Path(__file__).with_name("libthermocline.so"))
    try:
        loaded = ctypes.CDLL(path)
    except OSError as error:
        # The loader says "No such file" of one for another machine, too.
        wrong = f"is damaged, or is another machine's ({error})" if Path(path).exists() else "is missing"
        raise UnsupportedError(f"the native library {path} {wrong}; {_AGAIN}") from error
    if getattr(loaded, "tc_abi", int)() != ABI:
        raise UnsupportedError(f"the native library {path} is of another version; {_AGAIN}")
    introduce(loaded)
    return loaded
