"""Arguments, with errors of one line."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn, TypeVar

import thermocline
from thermocline.errors import SpecError
from thermocline.spelling import near

T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """`argparse`, but an error is one line on stderr, with exit status 2, and options are never abbreviated.

    (An abbreviation that works today would be ambiguous after the next option is added.)
    """

    def __init__(self, prog: str, description: str, usage: str | None = None) -> None:
        super().__init__(prog=prog, description=description, usage=usage, allow_abbrev=False)

    @property
    def valued(self) -> frozenset[str]:
        """The options that take a value."""
        return frozenset(name for action in self._actions if action.nargs != 0 for name in action.option_strings)

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The options in `arguments`; a misspelt one is met with the one that is meant."""
        parsed, unknown = self.parse_known_args(arguments)
        if unknown:
            known = [name for action in self._actions for name in action.option_strings]
            meant = near(unknown[0].partition("=")[0], known) or ["--help"]
            self.error(f'"{unknown[0]}" is unknown; write {meant[0]}')
        return parsed

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and leave."""
        print(f"{self.prog}: error: {message}", file=sys.stderr)
        sys.exit(2)

    def list_commands(self, commands: Mapping[str, str]) -> None:
        """Accept one of `commands` (name: what it does), `--version` and `--help`."""

        def command(name: str) -> str:
            names = near(name, commands)
            meant = f"thermocline {names[0]}" if names else "thermocline --help for the commands"
            self.error(f'the command "{name}" is unknown; write {meant}')

        self.usage = "%(prog)s [--help] [--version] COMMAND ..."
        self.add_argument("--version", action="version", version=f"thermocline {thermocline.__version__}")
        self.add_argument("command", metavar="COMMAND", nargs="?", type=command, help=argparse.SUPPRESS)
        width = max(map(len, commands))
        self.epilog = "commands:\n" + "\n".join(f"  {name:{width}}  {does}" for name, does in commands.items())
        self.formatter_class = argparse.RawDescriptionHelpFormatter


def checked(parse: Callable[[str], T]) -> Callable[[str], T]:
    """`parse` as a `type` for `add_argument`: the text of a `SpecError` becomes the parser's message."""

    def argument(text: str) -> T:
        try:
            return parse(text)
        except SpecError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return argument
