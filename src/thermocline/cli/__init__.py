"""The command `thermocline`. Each subcommand is a file beside this one with a function ``main(argv) -> int``.

Exit status 2 and one line on stderr mean that the command was called wrongly, or that this machine cannot do
it.
"""

import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {
    "run": "run a Python program in a DRAM budget, unchanged",
    "check": "search every interleaving of small machines for a deadlock or a lost page",
    "lab": "let threads use pages while reclaim migrates them, under every design",
    "doctor": "say what this machine offers to tiered memory, and what to do about the rest",
    "calibrate": "measure what each step of tiering costs on this machine",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand that `argv` (by default the process's arguments) names; return the exit status."""
    # Nothing heavy above: `thermocline run` imports this package into the program it starts.
    from thermocline.cli.parser import Parser
    from thermocline.errors import ThermoclineError

    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in COMMANDS:
        parser = Parser("thermocline", "Keep the warm pages of a program in DRAM and let the cold ones sink.")
        parser.list_commands(COMMANDS)
        parser.parse(arguments[:1] or ["--help"])
        return 0
    command, *rest = arguments
    try:
        status: int = import_module(f"{__name__}.{command}").main(rest)
    except ThermoclineError as error:
        print(f"thermocline {command}: error: {error}", file=sys.stderr)
        return 2
    return status
