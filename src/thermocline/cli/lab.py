"""`thermocline lab`: the experiment of the linux-mm thread, on real memory and on a virtual clock.

Exit status 0: everything was run. 1: a byte was wrong. 2: called wrongly, or this machine cannot run it. 130: Ctrl-C;
nothing was written.
"""

import os
import platform
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thermocline.cli.outfile import OutFile
from thermocline.cli.parser import Parser, checked
from thermocline.cli.progress import Progress
from thermocline.errors import SpecError
from thermocline.lab.experiment import STATES, TEMPERATURES, Cell, Experiment, WrongByte, cells
from thermocline.protocol.migrate import DESIGNS
from thermocline.sizes import parse_seconds, parse_size

if TYPE_CHECKING:
    from thermocline.lab.outcome import Outcome
    from thermocline.virtual.costs import Costs


def main(argv: Sequence[str]) -> int:
    """Run the cells that `argv` names, print what came of them, and return the exit status."""
    parser = _parser()
    options = parser.parse(argv)
    try:
        experiment = Experiment(
            os.path.abspath(options.directory),
            pages=options.pages,
            page_size=options.page_size,
            threads=options.threads,
            touches=options.touches,
            think=options.think,
            writes=options.writes,
            latency=options.latency,
            repeats=options.repeats,
            seed=options.seed,
        )
        groups = cells(
            options.designs or sorted(DESIGNS), options.state or list(STATES), options.temperature or list(TEMPERATURES)
        )
        written = [(OutFile(name), render) for name, render in _reports(options.json, options.html) if name]
    except SpecError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f'the file "{error.filename}" cannot be written ({error.strerror}); name another one')
    command = shlex.join(["thermocline", "lab", *argv])
    try:
        outcomes = _run(experiment, groups, virtual_only=options.virtual, costs=options.costs)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except WrongByte as error:
        print(f"thermocline lab: {error}", file=sys.stderr)
        return 1
    from thermocline.report.experiment import experiment_tables

    print(experiment_tables(outcomes))
    for file, render in written:
        file.write(render(outcomes, command))
    return 0


def _parser() -> Parser:
    parser = Parser(
        "thermocline lab",
        "Let threads use pages while reclaim migrates them, under every design, and compare what that costs them.",
        usage="%(prog)s [options] [DESIGN...]",
    )
    number, share = checked(_whole), checked(_share)
    parser.add_argument("designs", metavar="DESIGN", nargs="*", help=f"{', '.join(sorted(DESIGNS))}; by default all")
    parser.add_argument("--state", metavar="NAME", action="append", help=f"of the target: {', '.join(STATES)}")
    parser.add_argument(
        "--temperature", metavar="NAME", action="append", help=f"of the pages: {', '.join(TEMPERATURES)}"
    )
    parser.add_argument("--virtual", action="store_true", help="on a virtual clock only")
    parser.add_argument("--costs", metavar="FILE", type=Path, help="of the virtual clock; by default they are measured")
    parser.add_argument("--pages", metavar="N", type=number, default=48, help="that reclaim sends away (default 48)")
    parser.add_argument("--page-size", metavar="SIZE", type=checked(parse_size), default="64KiB", help="default 64KiB")
    parser.add_argument("--threads", metavar="N", type=number, default=2, help="that touch pages (default 2)")
    parser.add_argument("--touches", metavar="N", type=number, default=300, help="of each in each repeat (default 300)")
    parser.add_argument("--think", metavar="TIME", type=checked(parse_seconds), default="100us", help="default 100us")
    parser.add_argument("--writes", metavar="SHARE", type=share, default=0.5, help="of the touches (default 0.5)")
    parser.add_argument(
        "--latency", metavar="TIME", type=checked(parse_seconds), default="2ms", help="of the slow node (default 2ms)"
    )
    parser.add_argument("--repeats", metavar="N", type=number, default=5, help="of each cell (default 5)")
    parser.add_argument("--seed", metavar="N", type=number, default=0, help="default 0")
    parser.add_argument(
        "--directory", metavar="DIR", default=tempfile.gettempdir(), help="for the slow node (default %(default)s)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there as JSON")
    parser.add_argument("--html", metavar="FILE", help="write a page there that tells the story")
    return parser


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise SpecError(f'"{text}" is no number; write a whole number')
    return int(text)


def _share(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SpecError(f'"{text}" is no share; write a number from 0 to 1') from None


_Render = Callable[[Sequence["Outcome"], str], str]


def _reports(json: str | None, html: str | None) -> list[tuple[str | None, _Render]]:
    from thermocline.report.experiment import experiment_json
    from thermocline.report.page import experiment_page

    return [
        (json, lambda outcomes, command: experiment_json(outcomes, _machine(), command)),
        (html, lambda outcomes, command: experiment_page(outcomes, _machine(), command)),
    ]


def _run(
    experiment: Experiment, groups: Sequence[Sequence[Cell]], *, virtual_only: bool, costs: Path | None
) -> list["Outcome"]:
    from thermocline.lab.campaign import run_live_cells, run_virtual_cells

    progress = Progress()
    runs = sum(len(group) for group in groups) * experiment.repeats
    total = runs if virtual_only else 2 * runs
    done = 0

    def before(interpreter: str, cell: Cell) -> None:
        nonlocal done
        progress.bar(done, total, f"{interpreter}: {cell.state}, {cell.temperature}, {cell.design}")
        done += 1

    try:
        known = _costs(costs, experiment.directory, progress)
        outcomes = [] if virtual_only else run_live_cells(experiment, groups, before)
        return outcomes + run_virtual_cells(experiment, groups, known, before)
    finally:
        progress.close()


def _costs(path: Path | None, directory: str, progress: Progress) -> "Costs":
    from thermocline.virtual.costs import Costs

    if path is not None:
        return Costs.load(path)
    from thermocline.lab.calibration.assembly import calibrate

    return calibrate(directory, progress=lambda what: progress.show(f"measuring what a step costs: {what}"))


def _machine() -> dict[str, str]:
    """What figures depend on: shown with them."""
    import numpy

    import thermocline

    return {
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "processors": str(len(os.sched_getaffinity(0))),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "thermocline": thermocline.__version__,
    }
