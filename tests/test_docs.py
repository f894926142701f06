"""The documentation says what is so: its examples run, and it names everything there is.

Python blocks of a page run in order, in one interpreter, in an empty directory. A block with prompts is a doctest; a
block that begins with the name of a script is run by `thermocline run`, and prints what the page says it prints.
"""

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import thermocline

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "thermocline"
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SCRIPT = re.compile(r"# (\w+\.py)\n")
_COMMAND = "import sys; from thermocline.cli import main; sys.exit(main())"


def blocks(page: str) -> list[tuple[int, str]]:
    """The Python blocks of a page: line, and text."""
    text = (ROOT / page).read_text()
    return [(text.count("\n", 0, match.start(1)), match[1]) for match in _BLOCK.finditer(text)]


def read(page: str) -> str:
    return (ROOT / page).read_text()


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md"])
def test_the_examples_of_a_page_run(page: str, tmp_path: Path) -> None:
    assert blocks(page)
    ran = subprocess.run(
        [sys.executable, __file__, page], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_wrong_example_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\n>>> 1 + 1\n3\n\n```\n")
    ran = subprocess.run([sys.executable, __file__, str(page)], cwd=tmp_path, capture_output=True, check=False)
    assert ran.returncode == 1


@pytest.mark.parametrize("block", [text for _, text in blocks("README.md") if _SCRIPT.match(text)])
def test_a_script_of_the_readme_prints_what_it_says(block: str, tmp_path: Path) -> None:
    script = tmp_path / _SCRIPT.match(block)[1]  # type: ignore[index]
    script.write_text(block)
    ran = subprocess.run(
        [sys.executable, "-c", _COMMAND, "run", "--dram", "64MiB", "--quiet", str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() in read("README.md")


def test_every_public_name_is_in_the_guide() -> None:
    guide = read("docs/guide.md")
    names = {name for name in thermocline.__all__ if not name.startswith("_")}
    assert {name for name in names if not re.search(rf"\b{name}\b", guide)} == set()


def test_every_method_is_in_the_guide() -> None:
    guide = read("docs/guide.md")
    methods = {name for name in dir(thermocline.Memory) if not name.startswith("_")}
    assert {name for name in methods if not re.search(rf"\b{name}\b", guide)} == set()


def test_every_counter_is_in_the_guide() -> None:
    from thermocline.protocol.vmstat import NAMES

    first_cells = re.findall(r"^\| (`.*?) \|", read("docs/guide.md"), re.MULTILINE)
    explained = {name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)}
    assert set(NAMES) - explained == set()


def test_every_option_of_run_is_in_the_guide() -> None:
    command = [sys.executable, "-c", _COMMAND, "run", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    options = set(re.findall(r"--[a-z-]+", shown.stdout)) - {"--help"}
    assert options
    assert options - set(re.findall(r"--[a-z-]+", read("docs/guide.md"))) == set()


def test_every_command_is_in_the_guide() -> None:
    from thermocline.cli import COMMANDS

    guide = read("docs/guide.md")
    assert {name for name in COMMANDS if f"thermocline {name}" not in guide} == set()


def test_every_design_is_in_its_table() -> None:
    from thermocline.protocol.migrate import DESIGNS

    table = dict(re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", read("docs/migration.md"), re.MULTILINE))
    assert {name for name, here in table.items() if here.startswith("yes")} == set(DESIGNS)


def test_tests_and_benchmarks_that_are_named_are_there() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "benchmarks" / "README.md"]
    named = {name for page in pages for name in re.findall(r"\b(?:tests|benchmarks)/[\w/]+(?:\.py)?", page.read_text())}
    assert len(named) > 20
    assert {name for name in named if not (ROOT / name).exists()} == set()


#: What no test can show, or only one that is not worth its time.
_UNTESTED = ("**Checkpoint and restore**", "**The host's memory is not checked**", "**Swap.**")


def test_every_limit_of_processes_and_memory_names_its_test() -> None:
    """Those of forks and below name theirs among them."""
    found = re.split(r"^## ", read("docs/limits.md"), flags=re.MULTILINE)
    limits = [
        limit
        for section in found
        if section.startswith(("Processes\n", "Memory\n"))
        for limit in re.split(r"^- ", section, flags=re.MULTILINE)[1:]
    ]
    assert len(limits) > 20
    assert [limit for limit in limits if "`tests/" not in limit and not limit.startswith(_UNTESTED)] == []


def test_the_map_of_the_house_names_every_module() -> None:
    text = read("CONTRIBUTING.md")
    there = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*") if path.suffix in {".py", ".c", ".h"}}
    there = {path for path in there if (PACKAGE / path).stat().st_size > 0}
    named: set[str] = set()
    folder = ""
    for line in text.splitlines():
        if heading := re.match(r"### `src/thermocline/(.*)`", line):
            folder = heading[1]
        elif row := re.match(r"\| `([\w/]+\.(?:py|c|h))` \|", line):
            named.add(folder + row[1])
    assert named == there


def run_page(page: str) -> int:
    """Run the Python blocks of a page -> how many were wrong."""
    names: dict[str, object] = {"__name__": "__main__"}
    failures = 0
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for line, block in blocks(page):
        if _SCRIPT.match(block):
            continue
        if block.lstrip().startswith(">>>"):
            test = doctest.DocTestParser().get_doctest(block, {}, page, page, line)
            test.globs = names  # not a copy, which would hold what a later block deletes
            failures += runner.run(test, clear_globs=False).failed
        else:
            exec(compile("\n" * line + block, page, "exec"), names)
    return failures


if __name__ == "__main__":
    failed = run_page(sys.argv[1])
    sys.stdout.flush()
    os._exit(1 if failed else 0)
