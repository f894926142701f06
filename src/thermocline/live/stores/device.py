"""Reading and writing whole pages of a file.

pread(2) and pwrite(2) may do less than they were asked, and devices fail in passing. EINTR is Python's own
business (PEP 475).
"""

from __future__ import annotations

import errno
import os

from thermocline.errors import StoreError, is_ours

ATTEMPTS = 4  # a path that is being switched over, or a cable error, is usually gone at the next try
_TRANSIENT = (errno.EIO, errno.EAGAIN)


def read_fully(fd: int, target: memoryview, position: int, name: str) -> None:
    """Fill the target from a position in a file.

    Raises
    ------
    StoreError
        With the errno of the read, or EIO when the file ends too early. `name` begins the message.
    """
    done = failures = 0
    while done < len(target):
        try:
            count = os.preadv(fd, [target[done:]], position + done)
        except OSError as error:
            if not is_ours(error):
                raise
            failures += 1
            if error.errno in _TRANSIENT and failures < ATTEMPTS:
                continue
            raise StoreError(error.errno or errno.EIO, f"{name}: cannot be read ({error.strerror})") from error
        if not count:
            raise StoreError(errno.EIO, f"{name}: ends at byte {position + done}, inside a page that was in it")
        done += count


def write_fully(fd: int, source: memoryview, position: int, name: str) -> None:
    """Write all of the source to a position in a file.

    Raises
    ------
    StoreError
        With the errno of the write: ENOSPC, EDQUOT, EFBIG, EIO, ... `name` begins the message.
    """
    done = failures = 0
    while done < len(source):
        try:
            count = os.pwritev(fd, [source[done:]], position + done)
        except OSError as error:
            if not is_ours(error):
                raise
            failures += 1
            if error.errno in _TRANSIENT and failures < ATTEMPTS:
                continue
            raise StoreError(error.errno or errno.EIO, f"{name}: cannot be written ({error.strerror})") from error
        if not count:
            raise StoreError(errno.EIO, f"{name}: takes no bytes")
        done += count
