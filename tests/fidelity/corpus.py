"""The programs: one file each below ``programs/``, in a directory for each subject.

The docstring of a program says what it does and which public behaviour it checks. It may end in fields, one a line:

``Needs: pandas, h5py``
    what it imports that may not be installed; without it, the program is skipped.
``Started by: unshare --pid``
    a command that starts it, in place of the interpreter alone; where that is not allowed, the program is skipped.
``Settings: full, library``
    the only settings (``settings.py``) in which it makes sense.
``Not tiered: ...``
    why none of its arrays is demoted: of any other program, some are, or the comparison would mean nothing.
"""

import ast
import re
import shlex
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

DIRECTORY = Path(__file__).with_name("programs")
_FIELDS = {"Needs", "Started by", "Settings", "Not tiered"}


@dataclass(frozen=True)
class Program:
    """A file of the corpus."""

    path: Path

    @property
    def name(self) -> str:
        """Subject and file, without its ending."""
        return str(self.path.relative_to(DIRECTORY).with_suffix(""))

    @cached_property
    def docstring(self) -> str:
        """What the program says of itself."""
        return ast.get_docstring(ast.parse(self.path.read_text())) or ""

    @cached_property
    def fields(self) -> dict[str, str]:
        """Those that the docstring has."""
        found = dict(re.findall(r"^([A-Z][a-z ]+): (.+)$", self.docstring, re.MULTILINE))
        return {name: text for name, text in found.items() if name in _FIELDS}

    @property
    def started_by(self) -> list[str]:
        """What comes before the interpreter on its command line."""
        return shlex.split(self.fields.get("Started by", ""))

    def missing(self) -> list[str]:
        """Modules that it needs and that are not installed."""
        return [name for name in self.fields.get("Needs", "").split(", ") if name and find_spec(name) is None]

    def makes_sense_in(self, setting: str) -> bool:
        """Whether it is to be run in a setting. In ``library``, only if it says so."""
        only = self.fields.get("Settings", "").split(", ")
        return setting in only if only != [""] else setting != "library"


def programs() -> list[Program]:
    """All of them."""
    return [Program(path) for path in sorted(DIRECTORY.rglob("*.py"))]
