"""In which ways a program is run tiered, to be compared with the same program under plain Python."""

import sys
from dataclasses import dataclass
from pathlib import Path

from comparison import THERMOCLINE
from ordinary import ORDINARY

#: So little DRAM that a program of a few MiB of arrays lives in the lower tiers.
MEMORY = "dram=2MiB, zstd=16MiB, file:/var/tmp=2GiB"
LIBRARY = str(Path(__file__).with_name("library.py"))


@dataclass(frozen=True)
class Setting:
    """One way.

    Attributes
    ----------
    page_size, min_array : str
        As options of ``thermocline run``.
    ordinary : bool
        Whether the program, the plain one too, runs as a user for whom user-mode faults only are served.
    kills : float
        Seconds from one kill of the pager to the next; 0: it is not killed.
    library : bool
        Whether the program is run by plain Python, with all arrays in a ``Memory`` of its own.
    """

    name: str
    page_size: str = "64KiB"
    min_array: str = "64KiB"
    ordinary: bool = False
    kills: float = 0.0
    library: bool = False

    @property
    def user(self) -> list[str]:
        """What makes a command run as the setting's user."""
        return ORDINARY if self.ordinary else []

    def command(self, program: list[str], stat: Path) -> list[str]:
        """The command that runs a program tiered; the counters go to a file at the end."""
        if self.library:
            return [sys.executable, LIBRARY, MEMORY, self.min_array, str(stat), *program]
        options = ["--memory", MEMORY, "--page-size", self.page_size, "--min-array", self.min_array]
        return [sys.executable, THERMOCLINE, "run", "--quiet", "--stat", str(stat), *options, "--", *program]


SETTINGS = [
    Setting("full"),
    Setting("4k", page_size="4KiB", min_array="4KiB"),
    Setting("user", ordinary=True),
    Setting("user-4k", page_size="4KiB", min_array="4KiB", ordinary=True),
    Setting("killed", kills=0.3),
    Setting("library", library=True),
]
#: What ``make test`` runs; ``make fidelity`` runs all.
QUICK = {"full", "library"}
