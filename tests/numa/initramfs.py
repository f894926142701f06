"""The file system that a kernel starts from: a cpio archive in the form called "newc"."""

from __future__ import annotations

import stat
from collections.abc import Mapping

_MAGIC = "070701"
_END = "TRAILER!!!"


def initramfs(files: Mapping[str, bytes | None]) -> bytes:
    """An archive of programs, by path, and of directories, which have no bytes (None)."""
    made = bytearray()
    entries = [
        (path, stat.S_IFDIR if content is None else stat.S_IFREG, content or b"") for path, content in files.items()
    ]
    for inode, (path, kind, content) in enumerate([*entries, (_END, 0, b"")], 1):
        # inode, mode, user, group, links, time, size, device (two numbers), of which (two), length of name, checksum
        numbers = (inode, kind | 0o755, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path) + 1, 0)
        made += _aligned((_MAGIC + "".join(f"{number:08X}" for number in numbers) + path + "\0").encode())
        made += _aligned(content)
    return bytes(made)


def _aligned(data: bytes) -> bytes:
    """Zeros are added, up to a multiple of four bytes."""
    return data + bytes(-len(data) % 4)
