"""`thermocline check`: every interleaving of small machines, searched for a deadlock, a lost page, a leak.

Exit status 0: all schedules were covered and all are right. 1: one is wrong, and was printed; or a search was larger
than its bounds, and it was said how far it got. 2: called wrongly.
"""

from collections.abc import Callable, Sequence

from thermocline.check.cases import LARGEST_PAGES, LARGEST_THREADS, cases
from thermocline.check.configuration import Configuration
from thermocline.check.forks import forks
from thermocline.check.schedule import describe
from thermocline.check.search import Result, Search, shorten
from thermocline.cli.parser import Parser, checked
from thermocline.cli.progress import Progress
from thermocline.errors import SpecError
from thermocline.protocol.migrate import DESIGNS, Design
from thermocline.sizes import parse_size
from thermocline.spelling import near

_COLUMNS = "{:<20}{:>10}{:>10}{:>11}{:>9}{:>9}  {}"


def main(argv: Sequence[str]) -> int:
    """Check the designs that `argv` names, or all, and return the exit status."""
    options = _parser().parse(argv)
    designs = [DESIGNS[name] for name in options.designs or DESIGNS]
    settings = {"crash": options.crash, "cooperative": not options.every_effect}
    configurations = cases(options.pages, options.threads, **settings)
    if options.threads > 1:  # a forked child is one more thread
        configurations += forks(**settings)
    right = [
        _check(design, configurations, max_states=options.max_states, max_memory=options.max_memory)
        for design in designs
    ]
    return 0 if all(right) else 1


def _parser() -> Parser:
    parser = Parser(
        "thermocline check",
        "Run the protocols on machines of a few pages, in every order that their steps can take.",
        usage="%(prog)s [options] [DESIGN...]",
    )
    parser.add_argument("designs", metavar="DESIGN", nargs="*", type=checked(_design), help="by default all")
    parser.add_argument(
        "--pages", metavar="N", type=checked(_number("pages", 2, LARGEST_PAGES)), default=2, help="default 2"
    )
    parser.add_argument(
        "--threads",
        metavar="N",
        type=checked(_number("threads", 1, LARGEST_THREADS)),
        default=2,
        help="threads of the program (default 2); 1: no forked children either",
    )
    parser.add_argument("--crash", action="store_true", help="kill the pager between any two steps, too")
    parser.add_argument(
        "--every-effect",
        action="store_true",
        help="let tasks of the pager take turns at every effect, not only where those of a real pager do",
    )
    parser.add_argument(
        "--max-states",
        metavar="N",
        type=checked(_number("states", 1, 10**12)),
        default=10_000_000,
        help="end each search there (default 10 million)",
    )
    parser.add_argument(
        "--max-memory",
        metavar="SIZE",
        type=checked(parse_size),
        default="2GiB",
        help="end the search when this process takes so much (default 2GiB)",
    )
    return parser


def _design(name: str) -> str:
    if name not in DESIGNS:
        meant = near(name, DESIGNS) or [" or ".join(DESIGNS)]
        raise SpecError(f'the design "{name}" is unknown; write {meant[0]}')
    return name


def _number(what: str, least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise SpecError(f'"{text}" {what} cannot be searched; write {least} to {most}')
        return int(text)

    return number


def _check(design: Design, configurations: Sequence[Configuration], *, max_states: int, max_memory: int) -> bool:
    """Search all configurations under one design, and print what came of it -> whether all is right."""
    print(_COLUMNS.format(design.name, "states", "steps", "schedules", "longest", "seconds", ""))
    results = []
    progress = Progress()
    for configuration in configurations:
        search = Search(
            configuration, design, max_states=max_states, max_memory=max_memory, progress=_shown_on(progress)
        )
        result = search.run()
        progress.close()
        results.append(result)
        print(_line(result), flush=True)
        if result.found is not None:
            found = shorten(result.found, configuration, design)
            print(f"\n{describe(found, configuration, design)}\n")
    print(f"{_verdict(design.name, results)}\n")
    return all(result.exhaustive for result in results)


def _shown_on(progress: Progress) -> Callable[[Result], None]:
    return lambda result: progress.show(f"{result.configuration.name}: {result.states:,} states")


def _line(result: Result) -> str:
    verdict = "clean" if result.exhaustive else result.stopped or "WRONG"
    return _COLUMNS.format(
        f"  {result.configuration.name}",
        f"{result.states:,}",
        f"{result.steps:,}",
        f"{result.schedules:,}",
        result.longest,
        f"{result.seconds:.1f}",
        verdict,
    )


def _verdict(name: str, results: Sequence[Result]) -> str:
    states = sum(result.states for result in results)
    covered = f"{states:,} states"
    wrong = sum(result.found is not None for result in results)
    if wrong:
        return f"{name}: WRONG in {wrong} of {len(results)} configurations"
    stopped = [result.configuration.name for result in results if result.stopped]
    if stopped:
        return f"{name}: nothing wrong in {covered}, but not every schedule of {', '.join(stopped)} was covered"
    return f"{name}: clean; every schedule of {len(results)} configurations was covered, {covered}"
