"""A file that a command writes for its user."""

import os
import re
import stat
import tempfile

_DESCRIPTORS = {"/dev/stdout": 1, "/dev/stderr": 2}


class OutFile:
    """A place for what comes of a command.

    A regular file appears whole or not at all (written beside it and renamed, rename(2)). Pipes, devices and
    this process's own descriptors (``/dev/stdout``, ``/dev/fd/9``, as a shell's ``>(...)`` passes them) are
    written in place: renaming over them would cut off their readers.

    Parameters
    ----------
    path
        The file's name.

    Raises
    ------
    OSError
        It cannot be written. Known at once, not when the program has run for a day.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        numbered = re.fullmatch(r"/dev/fd/(\d+)|/proc/self/fd/(\d+)", path)
        self._descriptor = int(numbered[1] or numbered[2]) if numbered else _DESCRIPTORS.get(path)
        # Through a symbolic link: what it points to is replaced, not the link. Absolute: a chdir does not matter.
        self._target = os.path.realpath(path)
        self._special = False
        if self._descriptor is not None:
            os.fstat(self._descriptor)
            return
        if os.path.exists(self._target):
            self._special = not stat.S_ISREG(os.stat(self._target).st_mode)
        if self._special:
            _check_access(self._target)
        else:
            # No permission bit tells all (a read-only filesystem, a full one): try.
            tempfile.TemporaryFile(dir=os.path.dirname(self._target)).close()

    def write(self, text: str) -> None:
        """Write text, to a new file with permission 0644 less the umask.

        Raises
        ------
        OSError
            The file cannot be written any more.
        """
        encoded = text.encode()
        if self._descriptor is not None:
            with open(self._descriptor, "wb", closefd=False) as stream:
                stream.write(encoded)
        elif self._special:
            with open(self._target, "ab", buffering=0) as stream:
                stream.write(encoded)
        else:
            self._replace(encoded)

    def _replace(self, encoded: bytes) -> None:
        beside = f"{self._target}.{os.getpid()}.part"
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            with open(descriptor, "wb") as stream:
                stream.write(encoded)
            os.rename(beside, self._target)
        except BaseException:
            os.unlink(beside)
            raise


def _check_access(path: str) -> None:
    if stat.S_ISDIR(os.stat(path).st_mode):
        raise IsADirectoryError(21, "Is a directory", path)
    if not os.access(path, os.W_OK):
        raise PermissionError(13, "Permission denied", path)
