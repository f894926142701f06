"""Files that a process opens where descriptors of ours were: nobody else may write to them, or close them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

#: What their names begin with.
PREFIX = "own "
_STANDARD = 3


class OwnFiles:
    """Those of one process. A forked child has them, too."""

    def __init__(self) -> None:
        self._files: dict[int, Path] = {}

    def __bool__(self) -> bool:
        return bool(self._files)

    def take_over(self, line: int, directory: Path, how: str) -> None:
        """Do to all descriptors that this process does not know what programs do to them.

        It knows its standard streams, the line to the driver, and what is in a directory of its own: the plain twins.

        Parameters
        ----------
        how : str
            ``"close"`` them, as daemons do, and open files until those have all the numbers; or ``"replace"`` each by
            a file.
        """
        unknown = [fd for fd in _open_files() if fd >= _STANDARD and fd != line and not _is_in(directory, fd)]
        if how == "replace":
            for fd in unknown:
                number = self.open(directory)
                os.dup2(number, fd, inheritable=False)
                os.close(number)
                self._files[fd] = self._files.pop(number)
            return
        for fd in unknown:
            os.close(fd)
        while not self._files.keys() >= set(unknown):
            self.open(directory)

    def open(self, directory: Path) -> int:
        """Open one more, and write its name to it. A process that was run anew may have left others of its number."""
        number, name = tempfile.mkstemp(prefix=f"{PREFIX}{os.getpid()} ", dir=directory)
        path = Path(name)
        os.write(number, path.name.encode())
        self._files[number] = path
        return number

    def what_is_wrong(self) -> str:
        """With the first of them that is not as it was left; nothing if there is none."""
        for fd, path in self._files.items():
            try:
                same = os.path.samestat(os.fstat(fd), os.stat(path))
            except OSError:
                same = False
            if not same:
                return f"somebody has closed {path.name!r}, descriptor {fd}"
        return next(map(_what_is_in, filter(_is_spoilt, self._files.values())), "")


def what_is_wrong_in(directory: Path) -> str:
    """With the files that processes have left there; nothing if each has what was written to it."""
    return next(map(_what_is_in, filter(_is_spoilt, directory.glob(f"{PREFIX}*"))), "")


def _is_spoilt(path: Path) -> bool:
    return path.read_bytes() != path.name.encode()


def _what_is_in(path: Path) -> str:
    return f"somebody has written to {path.name!r}: it holds {path.read_bytes()[:200]!r}"


def _open_files() -> list[int]:
    """The descriptors of this process, but that by which they are listed."""
    return [fd for fd in map(int, os.listdir("/proc/self/fd")) if os.path.lexists(f"/proc/self/fd/{fd}")]


def _is_in(directory: Path, fd: int) -> bool:
    return Path(os.readlink(f"/proc/self/fd/{fd}")).parent == directory
