"""What the experiment is: the same touches in every run, and nothing that cannot be run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from thermocline.errors import SpecError
from thermocline.lab.experiment import STATES, TEMPERATURES, Cell, Experiment, cells
from thermocline.spec import File, parse_spec


def test_touches_are_the_same_in_every_run_and_differ_by_thread_and_repeat() -> None:
    made = Experiment("/tmp", touches=500)
    assert np.array_equal(made.accesses("warm", 1, 2), Experiment("/tmp", touches=500).accesses("warm", 1, 2))
    others = [made.accesses("warm", 0, 2), made.accesses("warm", 1, 1)]
    others.append(Experiment("/tmp", touches=500, seed=1).accesses("warm", 1, 2))
    assert not any(np.array_equal(made.accesses("warm", 1, 2), other) for other in others)


@pytest.mark.parametrize(("temperature", "pages", "share"), [("hot", 24, 1.0), ("warm", 48, 1.0), ("cold", 48, 1 / 8)])
def test_temperatures(temperature: str, pages: int, share: float) -> None:
    made = Experiment("/tmp", touches=20_000, writes=0.25)
    found = made.accesses(temperature, 0, 0)
    sent_away = found[found >> 1 < made.pages] >> 1
    assert len(np.unique(sent_away)) == pages
    assert len(sent_away) / len(found) == pytest.approx(share, abs=0.02)
    assert (found & 1).mean() == pytest.approx(0.25, abs=0.02)
    assert int(found.max()) >> 1 < 2 * made.pages


@pytest.mark.parametrize("state", STATES)
def test_every_state_is_a_spec_that_can_be_built(state: str, tmp_path: Any) -> None:
    for pages in (16, 48, 200):
        nodes = Experiment(str(tmp_path), pages=pages).nodes(state)
        assert parse_spec(nodes, limit=lambda: None) == nodes
        assert sum(node.capacity for node in nodes) >= (2 * pages + 20) * (64 << 10)


def test_the_node_below_a_full_target_is_slow_and_behind_a_failing_one_is_none() -> None:
    made = Experiment("/tmp", latency=0.003)
    assert [node.latency for node in made.nodes("full") if isinstance(node, File)] == [0.003]
    assert [node.latency for node in made.nodes("tight") if isinstance(node, File)] == [0.0]
    assert len(made.nodes("failing")) == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"pages": 15},
        {"pages": 5000},
        {"threads": 0},
        {"touches": 0},
        {"repeats": 0},
        {"writes": 1.1},
        {"writes": float("nan")},
        {"think": -0.1},
        {"latency": 2.0},
        {"page_size": 5000},
        {"threads": 64, "repeats": 100, "page_size": 4096},
    ],
)
def test_what_cannot_be_run(settings: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        Experiment("/tmp", **settings)


def test_cells_are_grouped_by_what_is_compared() -> None:
    found = cells(["batch", "deferred"], ["roomy", "full"], ["hot"])
    assert found == [
        [Cell("batch", "roomy", "hot"), Cell("deferred", "roomy", "hot")],
        [Cell("batch", "full", "hot"), Cell("deferred", "full", "hot")],
    ]
    assert len(TEMPERATURES) * len(STATES) == len(cells(["batch"], list(STATES), list(TEMPERATURES)))


@pytest.mark.parametrize(
    "names", [(["bach"], ["full"], ["hot"]), (["batch"], ["fool"], ["hot"]), (["batch"], ["full"], ["hut"])]
)
def test_unknown_names(names: tuple[list[str], list[str], list[str]]) -> None:
    with pytest.raises(SpecError, match="is unknown; write one of"):
        cells(*names)
