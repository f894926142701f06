"""The memory limit that the container set, read from the control groups of this process.

The process's cgroup is named in /proc/self/cgroup, the place where its files lie in /proc/self/mountinfo
(cgroups(7), proc(5)). Both versions are read, and machines that mount both at once: version 1 has
`memory.limit_in_bytes` and, in `memory.stat`, `hierarchical_memory_limit`, which also counts ancestors that a
container cannot see; version 2 has `memory.max`. A limit holds for a whole subtree, so the tightest one from
the process's cgroup up to the root counts.

The host's total memory is never consulted: a program that trusts it in a container is killed.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from thermocline.errors import is_ours

# Version 1 says "no limit" as the largest page-aligned number (PAGE_COUNTER_MAX pages, mm/page_counter.c),
# which differs with the page size. No machine has an exbibyte, so anything beyond a quarter of the range is
# no limit.
_UNLIMITED = 1 << 61


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo.

    Attributes
    ----------
    root
        The directory of the filesystem that forms the root of this mount.
    point
        Where it is mounted.
    kind
        The filesystem's type, such as ``"ext4"``, ``"tmpfs"``, ``"cgroup2"``.
    options
        The options of the filesystem itself; a version 1 hierarchy names its controllers here.
    """

    root: str
    point: Path
    kind: str
    options: frozenset[str]


def mounts(proc: str | Path = "/proc") -> list[Mount]:
    """The mounts this process sees, in the order they were made. Empty where there is no mountinfo."""
    found = []
    for line in text_of(Path(proc, "self", "mountinfo")).splitlines():
        # id parent major:minor root point options [tags ...] - type source filesystem-options
        before, _, after = line.partition(" - ")
        place, what = before.split(), after.split()
        if len(place) >= 5 and len(what) >= 1:
            options = frozenset(what[2].split(",")) if len(what) > 2 else frozenset[str]()
            found.append(Mount(_unescape(place[3]), Path(_unescape(place[4])), what[0], options))
    return found


def memory_limit(proc: str | Path = "/proc") -> int | None:
    """The tightest memory limit over this process, in bytes; None when no control group sets one.

    Parameters
    ----------
    proc
        Where the proc filesystem is mounted; a test names a directory of its own.
    """
    limits = [limit for directory, files in _directories(Path(proc)) for limit in _limits(directory, files)]
    return min(limits, default=None)


def _directories(proc: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Every visible cgroup directory from the process's own up to the mount point, and the files to read."""
    visible = mounts(proc)
    for line in text_of(proc / "self" / "cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            places = [m for m in visible if m.kind == "cgroup2"]
            files: tuple[str, ...] = ("memory.max",)
        elif "memory" in controllers.split(","):
            places = [m for m in visible if m.kind == "cgroup" and "memory" in m.options]
            files = ("memory.limit_in_bytes", "memory.stat")
        else:
            continue
        for mount in places:
            leaf = mount.point / _below(mount.root, path)
            for directory in (leaf, *leaf.parents):
                yield directory, files
                if directory == mount.point:
                    break


def _below(root: str, path: str) -> str:
    """`path` as seen from a mount whose root is `root`.

    A container without a cgroup namespace of its own reads the host's path but sees only its own subtree,
    mounted with that very path as its root; one with a namespace may read a path that climbs out of it
    ("/.."). In both cases the mount point itself is the nearest directory there is.
    """
    root = root.rstrip("/")
    if path != root and not path.startswith(f"{root}/"):
        return ""
    below = path[len(root) :].strip("/")
    return "" if ".." in below.split("/") else below


def _limits(directory: Path, files: tuple[str, ...]) -> Iterator[int]:
    for name in files:
        # Not every directory has every file: the root of version 2 has no memory.max.
        text = text_of(directory / name).strip()
        if name == "memory.stat":
            match = re.search(r"^hierarchical_memory_limit (\d+)$", text, re.MULTILINE)
            text = match[1] if match else ""
        if text.isdecimal() and int(text) < _UNLIMITED:  # else it is "max", or there is none
            yield int(text)


def text_of(path: Path) -> str:
    """What a file of the kernel's says; nothing, where there is none or it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as lines:
            return lines.read()
    except OSError as error:
        if not is_ours(error):
            raise
        return ""


def _unescape(field: str) -> str:
    r"""A field of mountinfo, where space, tab, newline and backslash are written in octal (``\040``)."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
