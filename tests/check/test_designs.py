"""Every real design is right in every schedule of every configuration, killed pagers included."""

from __future__ import annotations

from dataclasses import replace

import pytest

from thermocline.check.cases import cases
from thermocline.check.configuration import Configuration
from thermocline.check.forks import forks
from thermocline.check.schedule import describe
from thermocline.check.search import Result, Search
from thermocline.protocol.migrate import DESIGNS

#: What takes minutes when pagers are killed: `thermocline check --crash` has it.
_LONG = {
    "grandchild",
    "two children",
    "fork, dying child",
    "fork, reclaim",
    "fork, refused",
    "fork, absent pages",
    "fork, direct reclaim",
    "fork, no room",
}

DESIGN = pytest.mark.parametrize("design", DESIGNS)


def search(configuration: Configuration, design: str, *, livelocks: bool = False) -> Result:
    result = Search(configuration, DESIGNS[design], livelocks=livelocks).run()
    assert result.found is None, describe(result.found, configuration, DESIGNS[design])
    assert result.exhaustive, result.stopped
    return result


@DESIGN
@pytest.mark.parametrize("configuration", cases(), ids=lambda configuration: configuration.name)
def test_every_schedule_is_right_and_comes_to_an_end(configuration: Configuration, design: str) -> None:
    search(configuration, design, livelocks=True)


@DESIGN
@pytest.mark.parametrize("configuration", cases(crash=True), ids=lambda configuration: configuration.name)
def test_every_schedule_with_a_kill_is_right(configuration: Configuration, design: str) -> None:
    search(configuration, design)


@pytest.mark.parametrize("configuration", forks(), ids=lambda configuration: configuration.name)
def test_every_schedule_with_forked_children_is_right(configuration: Configuration) -> None:
    search(configuration, "transactional", livelocks=True)


@DESIGN
def test_a_page_that_a_child_is_owed_is_moved_by_every_design(design: str) -> None:
    (configuration,) = (made for made in forks() if made.name == "fork, refused")
    search(configuration, design)


@pytest.mark.parametrize(
    "configuration",
    [made for made in forks(crash=True) if made.name not in _LONG],
    ids=lambda configuration: configuration.name,
)
def test_every_schedule_with_forked_children_and_a_kill_is_right(configuration: Configuration) -> None:
    search(configuration, "batch")


@pytest.mark.parametrize("name", ["fork", "fork, two threads", "two forks"])
def test_copies_are_made_by_tasks_that_take_turns_at_every_effect(name: str) -> None:
    (configuration,) = (made for made in forks(cooperative=False) if made.name == name)
    search(configuration, "batch")


@DESIGN
@pytest.mark.parametrize(
    "name", ["full target", "group limit", "shadow", "readahead", "failing device", "full disk", "doomed page"]
)
def test_tasks_that_take_turns_at_every_effect(name: str, design: str) -> None:
    """The smaller ones; `thermocline check --every-effect` has the others, and minutes to do."""
    (configuration,) = (made for made in cases(cooperative=False) if made.name == name)
    search(configuration, design)


@DESIGN
@pytest.mark.parametrize("name", ["shadow", "readahead", "tight target", "doomed page"])
def test_a_successor_is_killed_too(name: str, design: str) -> None:
    (configuration,) = (made for made in cases() if made.name == name)
    search(replace(configuration, crashes=2), design)


@pytest.mark.parametrize(("pages", "threads"), [(3, 1), (2, 3)])
def test_configurations_of_other_sizes_can_be_set_up(pages: int, threads: int) -> None:
    for configuration in cases(pages, threads):
        result = Search(configuration, DESIGNS["batch"], max_states=300).run()
        assert result.found is None, describe(result.found, configuration, DESIGNS["batch"])
