"""Where to get to, and how far we are: every goal beside what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from samples import Ratio, Table

#: The contents for which a figure of compressible data stands.
_COMPRESSIBLE = "arrays, int64"


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
    table, row
        Where it is measured.
    side, other
        The figure is that of the one over that of the other; ``other`` empty: the figure itself.
    goal
        What the figure is to be: at least that much if ``least``, and otherwise at most.
    speed
        How many times as fast the one is, instead.
    """

    name: str
    table: str
    row: str
    side: str
    other: str
    goal: float
    least: bool = False
    speed: bool = False

    def met(self, tables: dict[str, Table]) -> Goal:
        """How it came out."""
        sign, unit = "at least" if self.least else "at most", ""
        cell = tables[self.table].cells.get(self.row) if self.table in tables else None
        found: Ratio | None = None
        if cell is not None:
            if not self.other:
                unit = "" if cell.unit == "x" else f" {cell.unit}"
                of = sorted(cell.of(self.side))
                found = Ratio(of[len(of) // 2], of[0], of[-1], len(of)) if of else None
            else:
                found = (cell.speed if self.speed else cell.over)(self.side, self.other)
        wanted = f"{sign} {self.goal:g}{unit}"
        if found is None:
            return Goal(self.name, wanted, "not measured", "**open**")
        good = found.median >= self.goal if self.least else found.median <= self.goal
        if good:
            verdict = "met"
        else:
            verdict = f"**short by {self.goal / found.median if self.least else found.median / self.goal:.3g} times**"
        measured = f"{found.median:.3g}{unit} ({found.least:.3g} to {found.most:.3g})"
        return Goal(self.name, wanted, measured, verdict)


def _beside_peers() -> Iterator[Aim]:
    """Those of the arrays."""
    for what, row, zram, memmap in (
        ("sequential scan, compressible", "scan", 5, 1.5),
        ("uniform random reads", "uniform reads", 1, 4),
        ("Zipf reads", "Zipf reads", 1, 4),
        ("read-modify-write", "read-modify-write", 1, None),
        ("fill", "fill", 1, None),
    ):
        for peer, goal in (("zram", zram), ("memmap", memmap)):
            if goal is not None:
                name = f"{what} / {peer}'s"
                yield Aim(name, _COMPRESSIBLE, row, "thermocline", peer, goal, least=True, speed=True)


AIMS: tuple[Aim, ...] = (
    Aim(
        "resident access / plain NumPy on 4 KiB pages, sequential",
        "resident",
        "sequential",
        "thermocline",
        "plain",
        1.03,
    ),
    Aim("resident access / plain NumPy on 4 KiB pages, random", "resident", "random", "thermocline", "plain", 1.03),
    Aim("`np.empty(10)` under `mem.numpy()` / without", "allocation", "np.empty(10)", "mem.numpy()", "plain", 1.1),
    *(
        Aim(f"fault service, {page}, {where} / the floor", "floor", f"{page}, {where}", "thermocline", "floor", 1.3)
        for page in ("4 KiB", "64 KiB")
        for where in ("one core", "all cores")
    ),
    *_beside_peers(),
    *(
        aim
        for program in ("svd", "tables", "pagerank")
        for aim in (
            Aim(f"{program}: time / unlimited", "programs", program, "thermocline", "plain", 1.5),
            Aim(f"{program}: time / zram with the same memory", "programs", program, "thermocline", "zram", 0.8),
        )
    ),
    Aim(
        "bytes held by a byte of compressed memory / zram's",
        _COMPRESSIBLE,
        "held by a byte of compressed memory",
        "thermocline",
        "zram",
        1.5,
        least=True,
    ),
    *(
        Aim(f"whole arrays, {what} / zict on disk", "whole arrays", what, "thermocline", "zict", 10, True, True)
        for what in ("set", "get")
    ),
    Aim("fault service at 64 GiB managed / at 1 GiB", "scale", "a fault", "64 GiB", "1 GiB", 1.1),
    Aim("metadata, % of what is managed", "scale", "metadata", "64 GiB", "", 0.1),
    Aim("import and start of a `Memory`", "start", "import and start", "thermocline", "", 0.3),
)


def goals(tables: dict[str, Table]) -> list[Goal]:
    """All of them."""
    return [aim.met(tables) for aim in AIMS]
