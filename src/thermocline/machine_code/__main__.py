"""``python -m thermocline.machine_code MODULE:NAME...`` writes the tables of each `MachineCode` anew."""

import argparse
import pkgutil

from thermocline.machine_code.compiler import tables
from thermocline.machine_code.executable import MachineCode

_MARK = "# --- below this mark: written by `python -m thermocline.machine_code"


def write_tables(code: MachineCode) -> None:
    """Replace what stands below the mark in the ``plain.py`` beside the source."""
    path = code.source.with_name("plain.py")
    text = path.read_text(encoding="utf-8")
    kept = text[: text.index("\n", text.index(_MARK)) + 1]
    path.write_text(kept + tables(code.text(), code.functions), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m thermocline.machine_code", description=__doc__)
    parser.add_argument("code", nargs="+", metavar="MODULE:NAME", type=pkgutil.resolve_name)
    for each in parser.parse_args().code:
        write_tables(each)
