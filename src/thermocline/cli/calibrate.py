"""`thermocline calibrate`: measure what each step of tiering costs on this machine.

Exit status 0: the costs were written. 2: called wrongly, or this machine cannot be measured. 130: Ctrl-C; nothing was
written.
"""

import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from thermocline.cli.outfile import OutFile
from thermocline.cli.parser import Parser
from thermocline.cli.progress import Progress
from thermocline.errors import StoreError


def main(argv: Sequence[str]) -> int:
    """Write the costs to the file that `argv` names, or to stdout, and return the exit status.

    Raises
    ------
    UnsupportedError
        This machine cannot be measured.
    """
    parser = _parser()
    options = parser.parse(argv)
    name = "/dev/stdout" if options.file is None else options.file
    with _writing(name, parser):
        file = OutFile(name)  # what cannot be written is known before anything is measured
    # This imports numpy, and a wrong argument is told without.
    from thermocline.lab.calibration.assembly import calibrate

    progress = Progress()
    try:
        costs = calibrate(
            os.path.abspath(options.directory),
            quick=options.quick,
            progress=lambda what: progress.show(f"measuring {what}"),
        )
        progress.close()
        with _writing(name, parser):
            file.write(costs.dumps())
    except StoreError as error:
        parser.error(str(error.strerror))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        progress.close()
    return 0


@contextmanager
def _writing(name: str, parser: Parser) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        parser.error(f'the file "{name}" cannot be written ({error.strerror}); name another one')


def _parser() -> Parser:
    parser = Parser(
        "thermocline calibrate",
        "Measure what each step of tiering costs on this machine, for the virtual interpreter, and write it as JSON.",
        usage="%(prog)s [options] [FILE]",
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help="where to write it; by default stdout")
    parser.add_argument(
        "--directory",
        metavar="DIR",
        default=tempfile.gettempdir(),
        help="measure the disk of this directory (default %(default)s)",
    )
    parser.add_argument("--quick", action="store_true", help="in a tenth of the time, and rougher")
    return parser
