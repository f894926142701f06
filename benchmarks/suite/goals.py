"""Where to get to, and how far we are: every goal beside what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from contents import KINDS
from samples import DRAM, Ratio, Table

#: Tables of arrays begin with this, and go on with the kind of contents.
_ARRAYS = "arrays, "
#: By how much what two sides took may differ before that is said.
_ALIKE = 0.05


@dataclass(frozen=True)
class Goal:
    """A line of the table of goals."""

    name: str
    wanted: str
    measured: str
    verdict: str


@dataclass(frozen=True)
class Aim:
    """A goal, before anything is measured.

    Parameters
    ----------
    tables, row
        Where it is measured: in each of the tables that is there.
    side, other
        The figure is that of the one over that of the other; ``other`` empty: the figure itself.
    goal
        What the figure is to be: at least that much if ``least``, and otherwise at most.
    speed
        How many times as fast the one is, instead.
    """

    name: str
    tables: tuple[str, ...]
    row: str
    side: str
    other: str
    goal: float
    least: bool = False
    speed: bool = False

    def found(self, table: Table | None) -> tuple[Ratio | None, str]:
        """What a table says, and the unit of it."""
        cell = None if table is None else table.cells.get(self.row)
        if cell is None:
            return None, ""
        if self.other:
            return (cell.speed if self.speed else cell.over)(self.side, self.other), ""
        of = cell.of(self.side)
        unit = "" if cell.unit == "x" else f" {cell.unit}"
        return (Ratio(statistics.median(of), min(of), max(of), len(of)) if of else None), unit

    def short(self, found: Ratio) -> float:
        """By how many times it falls short of the goal: 1 and less, it is reached."""
        return self.goal / found.median if self.least else found.median / self.goal

    def unfair(self, table: Table) -> str:
        """In a few words, that the other took more DRAM or less; empty if it took the same."""
        for row in (DRAM, f"{self.row}: {DRAM}"):
            found = table.cells[row].over(self.other, self.side) if row in table.cells else None
            if found is not None and abs(found.median - 1) > _ALIKE:
                return f"; {self.other} had {found.median:.2g} times the DRAM"
        return ""

    def met(self, tables: dict[str, Table]) -> Goal:
        """How it came out, in each of its tables."""
        measured, verdicts, unit = [], [], ""
        for name in self.tables:
            found, its_unit = self.found(tables.get(name))
            if found is None:
                continue
            unit = its_unit
            kind = f"{name.removeprefix(_ARRAYS)}: " if len(self.tables) > 1 else ""
            beside = self.unfair(tables[name])
            measured.append(f"{kind}{found.median:.3g}{unit} ({found.least:.3g} to {found.most:.3g}{beside})")
            short = self.short(found)
            verdicts.append(f"{kind}{'met' if short <= 1 else f'**short, {short:.2g} times**'}")
        wanted = f"{'at least' if self.least else 'at most'} {self.goal:g}{unit}"
        if not measured:
            return Goal(self.name, wanted, "not measured", "**open**")
        return Goal(self.name, wanted, "<br>".join(measured), "<br>".join(verdicts))


def _beside_peers() -> Iterator[Aim]:
    """Those of the arrays."""
    for what, row, zram, memmap in (
        ("sequential scan, compressible", "scan", 5, 1.5),
        ("uniform random reads", "uniform reads", 1, 4),
        ("Zipf reads", "Zipf reads", 1, 4),
        ("read-modify-write", "read-modify-write", 1, None),
        ("fill", "fill", 1, None),
    ):
        tables = tuple(f"{_ARRAYS}{kind}" for kind in KINDS if kind != "random" or "compressible" not in what)
        for peer, goal in (("zram", zram), ("memmap", memmap)):
            if goal is not None:
                yield Aim(f"{what} / {peer}'s", tables, row, "thermocline", peer, goal, least=True, speed=True)


_RESIDENT = "resident access / plain NumPy on 4 KiB pages (1.00, and 3 % for noise)"
_PACKED = "held by a byte of compressed memory"
AIMS: tuple[Aim, ...] = (
    *(
        Aim(f"{_RESIDENT}, {how}", ("resident",), how, "thermocline", "plain", least, least=rate)
        for how, least, rate in (("sequential", 0.97, True), ("random", 1.03, False))
    ),
    Aim("`np.empty(10)` under `mem.numpy()` / without", ("allocation",), "np.empty(10)", "mem.numpy()", "plain", 1.1),
    *(
        Aim(f"`{made}` under `mem.numpy()` / without", ("allocation",), made, "mem.numpy()", "plain", goal)
        for made, goal in (("np.empty(1 << 20)", 4), ("np.ones(1 << 20)", 3))
    ),
    *(
        Aim(f"fault service, {page}, {where} / the floor", ("floor",), f"{page}, {where}", "thermocline", "floor", 1.3)
        for page in ("4 KiB", "64 KiB")
        for where in ("one core", "all cores")
    ),
    *_beside_peers(),
    *(
        Aim(f"{program}: time / {what}", ("programs",), program, "thermocline", peer, goal)
        for program in ("svd", "tables", "pagerank")
        for what, peer, goal in (("unlimited", "plain", 1.5), ("zram with the same memory", "zram", 0.8))
    ),
    Aim(
        f"bytes {_PACKED} / zram's",
        tuple(f"{_ARRAYS}{kind}" for kind in KINDS[:3]),
        _PACKED,
        "thermocline",
        "zram",
        1.5,
        least=True,
    ),
    *(
        Aim(f"whole arrays, {what} / zict on disk", ("whole arrays",), what, "thermocline", "zict", 10, True, True)
        for what in ("set", "get")
    ),
    Aim("fault service at 64 GiB managed / at 1 GiB", ("scale",), "a fault", "64 GiB", "1 GiB", 1.1),
    Aim("metadata, % of what is managed", ("scale",), "metadata", "64 GiB", "", 0.1),
    Aim("import and start of a `Memory`", ("start",), "import and start", "thermocline", "", 0.3),
)


def goals(tables: dict[str, Table]) -> list[Goal]:
    """All of them."""
    return [aim.met(tables) for aim in AIMS]
