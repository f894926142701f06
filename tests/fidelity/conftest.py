"""``--fidelity``: every setting; without it, those that are quick. Slow programs are listed at the end."""

import signal

import pytest
from settings import QUICK

#: Of how many times as long as plain Python a program is said to have taken.
SLOW = 20


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fidelity", action="store_true", help="run every program in every setting")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--fidelity", default=False):
        return
    left_out = [
        item
        for item in items
        if isinstance(item, pytest.Function)
        and item.originalname == "test_a_program_is_the_same_in_tiered_memory"
        and item.callspec.params["setting"].name not in QUICK
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_configure() -> None:
    """Let programs find signals as a user's shell leaves them: in the background, a shell has SIGINT ignored."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    slow = [
        f"{report.nodeid}: {times['plain']:.1f} s plain, {times['tiered']:.1f} s tiered"
        for reports in terminalreporter.stats.values()
        for report in reports
        if (times := dict(getattr(report, "user_properties", ()))).get("tiered", 0) > SLOW * times.get("plain", 1)
        and report.when == "call"
    ]
    if slow:
        terminalreporter.section(f"more than {SLOW} times as long as plain Python")
        terminalreporter.write("\n".join(slow) + "\n")
