"""The few lines that `thermocline run` prints at the end."""

from collections.abc import Mapping
from typing import Any

from thermocline.sizes import format_seconds, format_size

_NOTHING = "thermocline: nothing was tiered; arrays below --min-array stay in ordinary memory"
_REPLACED = (
    "thermocline: the program ran another one in its place (execve(2)), and that one was not tiered; "
    "let it start thermocline run, with that one behind it"
)


def summary(stat: Mapping[str, Any]) -> str:
    """What `stat` says, in a few aligned lines without a newline at the end.

    Parameters
    ----------
    stat
        The counters as `Memory.stat` gives them and `--stat` writes them: sizes in bytes, times in seconds.
    """
    nodes: Mapping[str, Mapping[str, int]] = stat["nodes"]
    vmstat: Mapping[str, int] = stat["vmstat"]
    resident: int = stat["arena"]["peak_resident"]
    replaced = [_REPLACED] if stat.get("replaced") else []
    if not resident and not any(vmstat.values()):
        return replaced[0] if replaced else _NOTHING
    # Slow memory that the program addresses is the arena's, too.
    budget = sum(node["capacity"] for name, node in nodes.items() if name == "dram" or name.startswith("numa:"))
    lines = [
        f"thermocline: arena at most {format_size(resident)} resident, of {format_size(budget)}",
        *_table(nodes),
        f"  faults {vmstat.get('pgfault', 0):,}{_latency(stat['fault_seconds'])}",
        f"  pages demoted {_total(vmstat, 'pgdemote_'):,}, promoted {vmstat.get('pgpromote_success', 0):,}",
        *replaced,
    ]
    return "\n".join(lines)


def _table(nodes: Mapping[str, Mapping[str, int]]) -> list[str]:
    columns = ("used", "peak", "capacity")
    rows: list[tuple[str, ...]] = [("node", *columns)]
    rows += [(name, *(format_size(node[column]) for column in columns)) for name, node in nodes.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        f"  {name:{widths[0]}}" + "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        for name, *cells in rows
    ]


def _latency(fault_seconds: Mapping[str, float | None]) -> str:
    """Percentiles in brackets; nothing when no fault was served."""
    shown = [
        f"{name} {format_seconds(seconds)}"
        for name in ("p50", "p99")
        if (seconds := fault_seconds.get(name)) is not None
    ]
    return f" ({', '.join(shown)})" if shown else ""


def _total(vmstat: Mapping[str, int], prefix: str) -> int:
    return sum(count for name, count in vmstat.items() if name.startswith(prefix))
