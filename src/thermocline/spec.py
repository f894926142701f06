"""The spec of a memory: which nodes it has, how much each holds, and in which order pages sink through them.

A spec is written as text, ``"dram=256MiB, zstd=1GiB, file:/scratch=20GiB"``, or as a sequence of the typed
objects of :mod:`thermocline.node_spec`. The order is the demotion path, fastest first. Everything that can be
known before memory is made is checked here, so that a mistake costs one line and not a run.

Capacities are rounded down to whole pages: a capacity is a hard limit, and part of a page holds nothing.
"""

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NoReturn, SupportsIndex, cast, get_args

from thermocline.cgroup import memory_limit
from thermocline.errors import SpecError, is_ours
from thermocline.node_spec import Codec, Compressed, Dram, File, Incompressible, NodeSpec, Numa, choice
from thermocline.sizes import format_size, parse_size
from thermocline.spelling import near
from thermocline.topology import Topology, check_numa

__all__ = [
    "Codec",
    "Compressed",
    "Dram",
    "File",
    "NodeSpec",
    "Numa",
    "check_limit",
    "check_minimum",
    "check_page_size",
    "expressible",
    "format_spec",
    "free_space",
    "parse_spec",
]

Limit = Callable[[], int | None]

DEFAULT_PAGE_SIZE = 64 * 1024
SMALLEST_PAGE = 4 * 1024
LARGEST_PAGE = 2 * 1024 * 1024
MINIMUM_PAGES = 16  # below this the watermarks of a node coincide and every allocation reclaims for itself


#: The longest demotion path that can be built.
MAX_NODES = 15


def check_page_size(page_size: str | SupportsIndex) -> int:
    """`page_size` in bytes.

    Raises
    ------
    SpecError
        It is no power of two from 4 KiB to 2 MiB, or no multiple of the machine's base page.
    """
    size = parse_size(page_size)
    base = os.sysconf("SC_PAGE_SIZE")
    if not SMALLEST_PAGE <= size <= LARGEST_PAGE or size & (size - 1) or size % base:
        least = format_size(max(SMALLEST_PAGE, base))
        raise SpecError(
            f"the page size {page_size} is not a power of two from {least} to"
            f" {format_size(LARGEST_PAGE)}; write 64KiB, or 4KiB for scattered access"
        )
    return size


def parse_spec(
    spec: str | Sequence[NodeSpec],
    page_size: str | SupportsIndex = DEFAULT_PAGE_SIZE,
    *,
    limit: Limit = memory_limit,
    topology: Callable[[], Topology] = Topology.read,
) -> tuple[NodeSpec, ...]:
    """The nodes of `spec` in the order of demotion, checked, with capacities in whole pages.

    Parameters
    ----------
    spec
        Text, or a sequence of `Dram`, `Numa`, `Compressed` and `File`.
    page_size
        The unit of tiering, in bytes or as text.
    limit
        Returns the container's memory limit in bytes, or None.
    topology
        Returns the machine's memory nodes. Asked only if the spec names one.

    Raises
    ------
    SpecError
        The spec cannot be built as it stands; the message says what to write instead.
    """
    page = check_page_size(page_size)
    nodes = _parse_text(spec) if isinstance(spec, str) else list(spec)
    for node in nodes:
        if not isinstance(node, NodeSpec):
            raise SpecError(f"{node!r} is not a node; write Dram(...), Numa(...), Compressed(...) or File(...)")
    _check_order(nodes)
    for node in nodes:
        check_minimum(node, page)
    check_numa(nodes, topology)
    _check_directories([node for node in nodes if isinstance(node, File)])
    check_limit(nodes, limit())
    return tuple(replace(node, capacity=node.capacity // page * page) for node in nodes)


def format_spec(nodes: Iterable[NodeSpec]) -> str:
    """The text that `parse_spec` reads back as `nodes`, with sizes in bytes.

    Raises
    ------
    SpecError
        A directory's name has a comma or a semicolon in it, which the text form cannot say.
    """
    entries = []
    for node in nodes:
        if isinstance(node, File) and not expressible(node.directory):
            raise SpecError(f'the directory "{node.directory}" has "," or ";" in its name; name another')
        name = f"dram@{node.node}" if isinstance(node, Dram) and node.node is not None else node.name
        entry = f"{name}={node.capacity}"
        if isinstance(node, Compressed):
            entry += f";incompressible={node.incompressible}"
        if isinstance(node, File) and node.latency:
            entry += f";latency={node.latency * 1e6:g}us"
        if isinstance(node, File) and not node.encrypt:
            entry += ";encrypt=off"
        entries.append(entry)
    return ", ".join(entries)


#: The kinds of nodes, as they are written.
_KINDS = ("dram", "numa", *get_args(Codec), "file")
#: The options of each kind of node, in its text.
_OPTIONS = {**dict.fromkeys(get_args(Codec), ("incompressible",)), "file": ("latency", "encrypt")}


def _parse_text(text: str) -> list[NodeSpec]:
    if not text.strip():
        raise SpecError('the spec is empty; write for example "dram=2GiB, zstd=4GiB, file:/scratch=200GiB"')
    return [_parse_node(entry.strip()) for entry in text.split(",")]


def _parse_node(entry: str) -> NodeSpec:
    sized, *settings = (part.strip() for part in entry.split(";"))
    # A directory may have "=" in its name, a size never does.
    name, equals, size = (part.strip() for part in sized.rpartition("="))
    if not equals:
        name, size = sized, ""
    if not entry:
        raise SpecError("the spec has a comma too many; write it between nodes only")
    if not name:
        raise SpecError(f'the entry "{entry}" of the spec names no node; write for example "dram=2GiB"')
    kind, colon, place = (part.strip() for part in name.partition(":"))
    kind, at, number = (part.strip() for part in kind.partition("@"))
    if kind not in _KINDS:
        _unknown_node(kind, sized)
    if not size:
        raise SpecError(f'the node "{name}" has no size; write "{name}=2GiB"')
    options = _parse_options(name, settings, _OPTIONS.get(kind, ()))
    if at and kind != "dram":
        raise SpecError(
            f'the node "{kind}" lies on no memory node; write "{kind}={size}", or "numa:{number or 1}={size}"'
        )
    if kind == "numa":
        return Numa(_node_number(name, place, f"numa:1={size}"), size)
    if kind == "file":
        if not colon or not place:
            raise SpecError(f'the node "{sized}" has no directory; write "file:/scratch={size}"')
        return File(place, size, options.get("latency", 0.0), options.get("encrypt", True))
    if colon:
        raise SpecError(f'the node "{kind}" takes no directory; write "{kind}={size}"')
    if kind == "dram":
        return Dram(size, _node_number(name, number, f"dram@0={size}") if at else None)
    return Compressed(size, cast(Codec, kind), cast(Incompressible, options.get("incompressible", "demote")))


def _node_number(name: str, text: str, example: str) -> int:
    """The number of one of the machine's memory nodes."""
    if not (text.isascii() and text.isdecimal()):
        raise SpecError(f'the node "{name}" names no memory node by its number; write for example "{example}"')
    return int(text)


def _unknown_node(kind: str, sized: str) -> NoReturn:
    kinds = near(kind, _KINDS)
    meant = f'"{sized.replace(kind, kinds[0], 1)}"' if kinds else "dram, numa:NODE, zstd, lz4 or file:DIRECTORY"
    raise SpecError(f'the node "{kind}" is unknown; write {meant}')


def _parse_options(name: str, settings: Sequence[str], allowed: Sequence[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for setting in settings:
        key, _, value = (part.strip() for part in setting.partition("="))
        if not allowed:
            raise SpecError(f'the node "{name}" takes no options; leave out ";{setting}" (a comma parts nodes)')
        options[choice(f"{name} option", key, allowed)] = value
    return options


def _check_order(nodes: Sequence[NodeSpec]) -> None:
    drams = [node for node in nodes if isinstance(node, Dram)]
    if not drams:
        raise SpecError("the spec has no DRAM; begin it with the budget, such as dram=2GiB")
    if len(drams) > 1:
        raise SpecError("the spec has dram twice; write it once, as the first node")
    if nodes[0] is not drams[0]:
        raise SpecError(f'pages sink from DRAM, so "dram" comes first; write it before "{nodes[0].name}"')
    if len(nodes) > MAX_NODES:
        raise SpecError(f"the spec has {len(nodes)} nodes; write at most {MAX_NODES}")
    seen: set[str] = set()
    file: File | None = None
    unmapped: NodeSpec | None = None
    for node in nodes:
        # A directory has many names, and two quotas in the same one would be one node.
        place = f"file:{os.path.realpath(node.directory)}" if isinstance(node, File) else node.name
        if place in seen:
            raise SpecError(f'the node "{node.name}" is there twice: the demotion path would be a cycle; write it once')
        seen.add(place)
        if node.is_mapped and unmapped is not None:
            raise SpecError(
                f'"{node.name}" needs no fault and is faster than "{unmapped.name}" above it;'
                f' write "{node.name}" before it'
            )
        if not node.is_mapped:
            unmapped = node
        if isinstance(node, File):
            file = node
        elif file is not None:
            raise SpecError(f'"{node.name}" is faster than "{file.name}" above it; write "{node.name}" before it')


def check_minimum(node: NodeSpec, page: int) -> None:
    least = MINIMUM_PAGES * page
    if node.capacity < least:
        raise SpecError(
            f'"{node.name}={format_size(node.capacity)}" is below the minimum of {format_size(least)}'
            f' ({MINIMUM_PAGES} pages of {format_size(page)}); write "{node.name}={_written(least)}" or more'
        )


def _check_directories(files: Sequence[File]) -> None:
    wanted: dict[int, int] = {}
    for node in files:
        path = node.directory
        if not os.path.isabs(path):
            meant = os.path.abspath(os.path.expanduser(path))
            raise SpecError(f'the directory "{path}" is not absolute; write "file:{meant}={_written(node.capacity)}"')
        if not os.path.isdir(path):
            fault = "is no directory" if os.path.lexists(path) else "does not exist"
            raise SpecError(f'"{path}" {fault}; name a directory on a disk with room, or make one (mkdir -p)')
        try:
            # The only sure test: permission bits say nothing of read-only filesystems, quotas or root.
            tempfile.TemporaryFile(dir=path).close()
        except OSError as error:
            if not is_ours(error):
                raise
            raise SpecError(
                f'no file can be made in "{path}" ({error.strerror}); name a directory you may write to'
            ) from None
        # Nodes on the same disk draw on the same free space.
        device = os.stat(path).st_dev
        wanted[device] = wanted.get(device, 0) + node.capacity
        free = free_space(path)
        if wanted[device] > free:
            raise SpecError(
                f'"{node.name}={format_size(node.capacity)}" is more than is free there ({format_size(free)}'
                f"{' for all its nodes' if wanted[device] > node.capacity else ''}); write a smaller quota"
            )


def check_limit(nodes: Sequence[NodeSpec], most: int | None) -> None:
    memory = sum(node.capacity for node in nodes if not isinstance(node, File))
    if most is not None and memory > most:
        what = "DRAM and compressed memory" if len(nodes) > 1 else "a DRAM budget"
        raise SpecError(
            f"{what} of {format_size(memory)} is above the container's limit of {format_size(most)};"
            f" write {_written(most // 2)} or so in all, or raise the limit"
        )


def free_space(directory: str) -> int:
    """Bytes that an unprivileged process may still write there (statvfs(3), f_bavail)."""
    there = os.statvfs(directory)
    return there.f_bavail * there.f_frsize


def expressible(directory: str) -> bool:
    return not set(",;") & set(directory)


def _written(size: int) -> str:
    """A size as a spec would have it, not above `size`: ``"1536MiB"``, never a decimal point."""
    for factor, unit in ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB")):
        if size >= 2 * factor or (size >= factor and size % factor == 0):
            return f"{size // factor}{unit}"
    return str(size)
