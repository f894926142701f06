"""`thermocline run`: an unmodified Python program, its large arrays in tiered memory.

Two processes take part besides the helpers: this wrapper, and the program, a plain interpreter started with the
same arguments, in which a few lines of ours run before its first statement (`bootstrap/sitecustomize.py`,
reached through PYTHONPATH). The wrapper stays to report when all is over, and so has to be invisible meanwhile:
it passes signals on, stops when the program stops, and ends as the program ended (`program.py`).

What can be known beforehand is checked here, before anything is started. What only the machine can tell, such
as a kernel without userfaultfd, is said by the program's process in the same words and with the same exit
status.
"""

import errno
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from thermocline.budget import auto_spec, default_spec
from thermocline.cli.outfile import OutFile
from thermocline.cli.parser import Parser, checked
from thermocline.errors import SpecError, UnsupportedError
from thermocline.protocol.migrate import DESIGNS
from thermocline.report.summary import summary
from thermocline.sizes import format_size, parse_size
from thermocline.spec import NodeSpec, check_page_size, format_spec, parse_spec

BOOTSTRAP = Path(__file__).with_name("bootstrap")
SMALLEST_ARRAY = 4 * 1024

#: What keeps a program from being started that its user can mend.
_START = {
    errno.E2BIG: "its arguments and environment are too long; shorten them",
    errno.EMFILE: "no more files may be opened here; raise the limit (ulimit -n)",
    errno.EAGAIN: "no more processes may be made here; raise the limit (ulimit -u)",
}
# An interpreter with one of these never looks at PYTHONPATH or never imports sitecustomize.
_SHUTTERS = {"E": "ignores PYTHONPATH", "I": "ignores PYTHONPATH", "S": "skips the site module"}


def main(argv: Sequence[str]) -> int:
    """Run the program that `argv` names and return its exit status, or die of the signal that it died of.

    Raises
    ------
    SpecError
        The memory asked for cannot be built.
    UnsupportedError
        This is not Linux.
    """
    if sys.platform != "linux":
        raise UnsupportedError(
            f"tiering needs Linux 5.19 or newer and this is {sys.platform}; use plain python, or a Linux container"
        )
    from thermocline.cli import program

    parser = _parser()
    ours, interpreted = split(argv, parser.valued)
    options = parser.parse(ours)
    if not interpreted:
        parser.error("no program is given; write thermocline run --dram 2GiB script.py, or -m MODULE, or -c CODE")
    _refuse_shutters(parser, interpreted)
    if not sys.executable:
        parser.error("this interpreter does not know its own path; start thermocline by an absolute path")
    nodes = _nodes(options.memory, options.dram, options.page_size)
    try:
        stat_file = OutFile(options.stat) if options.stat else None
    except OSError as error:
        parser.error(f'the file "{options.stat}" cannot be written ({error.strerror}); name another one for --stat')

    settings = {
        "spec": format_spec(nodes),
        "page_size": options.page_size,
        "min_array": options.min_array,
        "design": options.design,
        "commit": options.commit,
        "poll": options.poll,
    }
    try:
        status, report = _run(interpreted, settings)
    except UnsupportedError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"{sys.executable} cannot be started: {_START.get(error.errno or 0, error.strerror)}")
    _deliver(report, stat_file, options.quiet)
    return program.end_likewise(status)


def split(argv: Sequence[str], valued: frozenset[str]) -> tuple[list[str], list[str]]:
    """Our own options, and what goes to the interpreter.

    The latter begins after ``--``, or at the first argument that is not one of our long options: a script,
    ``-`` for standard input, or an option of the interpreter such as ``-m``. Everything after it belongs to
    the program.

    Parameters
    ----------
    argv
        All arguments after `run`.
    valued
        Those of our options that take the next argument as their value.
    """
    position = 0
    while position < len(argv):
        argument = argv[position]
        if argument == "--":
            return list(argv[:position]), list(argv[position + 1 :])
        if not argument.startswith("--") and argument != "-h":
            break
        position += 2 if argument in valued else 1
    return list(argv[:position]), list(argv[position:])


def _parser() -> Parser:
    parser = Parser(
        "thermocline run",
        "Run a Python program as `python` would, its large NumPy arrays in tiered memory.",
        usage="%(prog)s [options] [--] script.py args... | -m module args... | -c code args...",
    )
    memory = parser.add_mutually_exclusive_group()
    memory.add_argument(
        "--memory",
        metavar="SPEC",
        help='the nodes, such as "dram=2GiB, zstd=4GiB, file:/scratch=200GiB"; auto: what this machine has',
    )
    memory.add_argument(
        "--dram",
        metavar="SIZE",
        default="auto",
        help="the DRAM budget, with sensible nodes below it; auto: half the container's limit (default)",
    )
    parser.add_argument(
        "--min-array",
        metavar="SIZE",
        type=checked(_min_array),
        default="1MiB",
        help="tier NumPy arrays from this size on (default 1MiB)",
    )
    parser.add_argument(
        "--page-size",
        metavar="SIZE",
        type=checked(check_page_size),
        default="64KiB",
        help="the unit of tiering, 4KiB to 2MiB (default 64KiB)",
    )
    parser.add_argument("--design", choices=sorted(DESIGNS), default="batch", help="how pages migrate")
    parser.add_argument(
        "--commit",
        choices=("heuristic", "strict"),
        default="heuristic",
        help="what arrays may take in all. heuristic: as much as the kernel would grant (default), and a program that"
        " fills more than the nodes hold ends in SIGBUS; strict: what the nodes hold, and more is a MemoryError",
    )
    parser.add_argument(
        "--no-poll",
        dest="poll",
        action="store_false",
        help="let the pager sleep at once when no fault waits: less processor time, and slower misses",
    )
    parser.add_argument("--stat", metavar="FILE", help="write the final counters as JSON")
    parser.add_argument("--quiet", action="store_true", help="print no summary at the end")
    return parser


def _min_array(text: str) -> int:
    size = parse_size(text)
    if size < SMALLEST_ARRAY:
        raise SpecError(f"{format_size(size)} is below the minimum; write {format_size(SMALLEST_ARRAY)} or more")
    return size


def _nodes(memory: str | None, dram: str, page_size: int) -> tuple[NodeSpec, ...]:
    if memory is None:
        return default_spec(dram, page_size)
    return auto_spec(page_size) if memory == "auto" else parse_spec(memory, page_size)


def _refuse_shutters(parser: Parser, interpreted: Sequence[str]) -> None:
    """Refuse interpreter options that would let the program run untiered without a word (python(1))."""
    position = 0
    while position < len(interpreted):
        argument = interpreted[position]
        if argument == "-" or not argument.startswith("-"):
            return
        position += 1
        if argument.startswith("--"):
            position += argument == "--check-hash-based-pycs"
            continue
        for index, letter in enumerate(argument[1:], start=2):
            if letter in _SHUTTERS:
                parser.error(f"python -{letter} {_SHUTTERS[letter]}, which keeps tiering out; leave -{letter} away")
            if letter in "cm":
                return
            if letter in "WX":
                position += index == len(argument)
                break


def _run(interpreted: Sequence[str], settings: Mapping[str, object]) -> tuple[int, bytes]:
    """The wait status of the program, and what the supervisor reported when it was gone."""
    from thermocline.cli import program
    from thermocline.live.descriptor import moved_up

    # High numbers: a program sees the low ones free, and ours never stand in for a closed standard stream.
    reader, writer = (moved_up(descriptor) for descriptor in os.pipe())
    with open(reader, "rb") as pipe:
        try:
            os.set_inheritable(writer, True)
            running = program.Program(
                [sys.executable, *interpreted],
                _environment({**settings, "report": writer, "wrapper": os.getpid()}),
            )
        finally:
            os.close(writer)
        status = running.wait()
        # One line of JSON, or nothing. Not all up to the end of the file: a daemon that the program forked
        # may hold the pipe open for as long as it lives.
        return status, pipe.readline()


def _environment(settings: Mapping[str, object]) -> dict[str, str]:
    from thermocline.live import system_calls

    environment = dict(os.environ)
    path = environment.get("PYTHONPATH")
    libraries = environment.get("LD_PRELOAD")
    environment["THERMOCLINE_RUN"] = json.dumps({**settings, "pythonpath": path, "preload": libraries})
    environment["PYTHONPATH"] = f"{BOOTSTRAP}{os.pathsep}{path}" if path else str(BOOTSTRAP)
    preloaded = system_calls.preload(libraries)
    if preloaded is not None:
        environment["LD_PRELOAD"] = preloaded
    return environment


def _deliver(report: bytes, stat_file: OutFile | None, quiet: bool) -> None:
    """Write and print the counters. Whatever goes wrong here must not change how the program ended."""
    try:
        stat: dict[str, Any] | None = json.loads(report)
    except ValueError:
        _say("thermocline run: no counters: the supervisor ended before it could report them")
        return
    if stat is None:  # the program's process has said itself why there was no memory
        return
    if stat_file is not None:
        try:
            stat_file.write(json.dumps(stat, indent=2) + "\n")
        except OSError as error:
            _say(f'thermocline run: the counters cannot be written to "{stat_file.path}" ({error.strerror})')
    if not quiet:
        _say(summary(stat))


def _say(text: str) -> None:
    # sys.stderr is None when the standard stream was closed, and print would then choose stdout.
    if sys.stderr is not None:
        with suppress(OSError):
            print(text, file=sys.stderr, flush=True)
