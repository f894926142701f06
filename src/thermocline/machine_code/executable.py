"""Machine code: where it comes from, and how it becomes executable."""

import ctypes
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from thermocline.errors import UnsupportedError

_ALIGNMENT = 16
_PROT_READ, _PROT_EXEC, _MAP_PRIVATE = 1, 4, 2
_MAP_FAILED = ctypes.c_void_p(-1).value


@dataclass(frozen=True, kw_only=True)
class MachineCode:
    """Some functions in machine code.

    Attributes
    ----------
    name : str
        What errors and ``/proc/PID/maps`` call it.
    purpose : str
        What cannot be done without it, as the beginning of an error: ``"tiering NumPy's arrays"``.
    source : Path
        LLVM's text of it, which keeps the rules of `thermocline.machine_code`.
    functions : tuple of str
        Their names, in the order in which they are mapped.
    plain : mapping
        As compiled beforehand: for a machine (``os.uname().machine``) each function's code in hexadecimal.
    choice : str
        The variable of the environment that allows the code compiled beforehand only (``1``), or only the code
        compiled now (``0``).
    """

    name: str
    purpose: str
    source: Path
    functions: tuple[str, ...]
    plain: Mapping[str, Mapping[str, str]]
    choice: str

    def text(self) -> str:
        """What stands in the source."""
        return self.source.read_text(encoding="utf-8")

    def code(self) -> Mapping[str, bytes]:
        """The machine code of every function, for this machine.

        As compiled beforehand, where it was; otherwise compiled now (`thermocline.machine_code.compiler`), which takes
        llvmlite, 40 ms and 65 MiB.

        Raises
        ------
        UnsupportedError
            Neither is to be had.
        """
        choice = os.environ.get(self.choice)
        code = None if choice == "0" else self._compiled_beforehand()
        if code is not None:
            return code
        machine = os.uname().machine
        if choice == "1":
            raise UnsupportedError(
                f"no {self.name} is compiled beforehand for {machine}; unset {self.choice} and install llvmlite"
            )
        from thermocline.machine_code.compiler import compiled

        try:
            return compiled(self.text(), self.functions)
        except ImportError as error:
            raise UnsupportedError(
                f"{self.purpose} on {machine} takes llvmlite ({error}); run: pip install 'llvmlite>=0.44'"
            ) from error

    def load(self) -> dict[str, int]:
        """Map the code for execution, for ever, and return the address of each function.

        Raises
        ------
        UnsupportedError
            There is no code for this machine, or the system refuses to map it.
        """
        return mapped(self.code(), f"thermocline-{self.name}")

    def _compiled_beforehand(self) -> dict[str, bytes] | None:
        if sys.byteorder != "little" or sys.maxsize != 2**63 - 1:
            return None
        functions = self.plain.get(os.uname().machine)
        return {name: bytes.fromhex(functions[name]) for name in self.functions} if functions else None


def mapped(code: Mapping[str, bytes], name: str) -> dict[str, int]:
    """Map code for execution, for ever, and return the address of each function.

    The pages are never writable: they are mapped from a memory file (memfd_create(2)), so systems that refuse
    memory which is both writable and executable allow it.

    Raises
    ------
    UnsupportedError
        The system refuses.
    """
    offsets = {}
    image = bytearray()
    for function, instructions in code.items():
        image += bytes(-len(image) % _ALIGNMENT)
        offsets[function] = len(image)
        image += instructions
    try:
        base = _map(image, name)
    except OSError as error:
        raise UnsupportedError(
            f"this system lets no program load code that it made ({error.strerror}); lift what denies PROT_EXEC"
        ) from error
    return {function: base + offset for function, offset in offsets.items()}


def _map(image: bytes | bytearray, name: str) -> int:
    descriptor = os.memfd_create(name)
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
