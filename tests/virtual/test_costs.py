"""Files of costs: written and read again, and what is wrong with one that cannot be read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from thermocline.errors import SpecError
from thermocline.virtual.costs import Cost, Costs, StoreCosts

STEPS = [field.name for field in fields(Costs) if field.name not in {"cores", "stores"}]


def costs() -> Costs:
    """Every number is another one."""
    steps = {name: Cost(100.5 + index, 0.25 * index, 0.1 + index / 100) for index, name in enumerate(STEPS)}
    zstd = StoreCosts(read=Cost(1_000, 0.3, 0.05), write=Cost(2_000, 0.9, 0.06), ratio=1.75)
    file = StoreCosts(read=Cost(50_000, 1.5, 0.2), write=Cost(40_000, 0.5, 0.3))
    return Costs(cores=3, stores={"zstd": zstd, "file": file}, **steps)


def text(change: Callable[[dict[str, Any]], object]) -> str:
    """A file of costs in which something was changed."""
    plain = json.loads(costs().dumps())
    change(plain)
    return json.dumps(plain)


def test_what_is_written_is_read_again() -> None:
    assert Costs.loads(costs().dumps()) == costs()


def test_a_file_ends_with_a_newline_and_names_every_field() -> None:
    written = costs().dumps()
    assert written.endswith("}\n")
    assert list(json.loads(written)) == [field.name for field in fields(Costs)]


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "costs.json").write_text(costs().dumps())
    assert Costs.load(tmp_path / "costs.json") == costs()


def test_a_step_takes_its_time_and_more_for_every_byte() -> None:
    cost = Cost(call=900, byte=0.05)
    assert cost.of() == 900
    assert cost.of(4000) == 1100


def test_bytes_and_spread_may_be_left_out() -> None:
    def leave_out(plain: dict[str, Any]) -> None:
        plain["turn"] = {"call": 7}
        del plain["stores"]["zstd"]["ratio"]

    read = Costs.loads(text(leave_out))
    assert read.turn == Cost(7.0, 0.0, 0.0)
    assert read.stores["zstd"].ratio == 1.0


@pytest.mark.parametrize("name", [*STEPS, "cores", "stores"])
def test_a_missing_cost_is_named(name: str) -> None:
    with pytest.raises(SpecError, match=f"the costs lack {name}$"):
        Costs.loads(text(lambda plain: plain.pop(name)))


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("part", ["call", "byte", "spread"])
@pytest.mark.parametrize("value", [-1, -0.001, math.nan, math.inf, -math.inf, True, None, "7", [7]])
def test_a_wrong_number_is_named_and_shown(name: str, part: str, value: object) -> None:
    with pytest.raises(SpecError) as error:
        Costs.loads(text(lambda plain: plain[name].update({part: value})))
    assert str(error.value).startswith(f"{name}.{part} is ")
    shown = f"{value:g}" if isinstance(value, (int, float)) and value < 0 and math.isfinite(value) else repr(value)
    assert f" is {shown}; " in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plain: plain.update(flush={"call": 1}), "the costs have flush, which nothing takes"),
        (lambda plain: plain["hit"].update(bytes=1), "the costs of hit have bytes, which nothing takes"),
        (lambda plain: plain["hit"].pop("call"), "the costs of hit lack call"),
        (lambda plain: plain.update(hit=7), "the costs of hit are 7; write them in braces, by name"),
        (lambda plain: plain.update(hit=[7, 0, 0]), "the costs of hit are [7, 0, 0]; write them in braces, by name"),
        (lambda plain: plain.update(cores=0), "cores is 0; write a whole number from 1 on"),
        (lambda plain: plain.update(cores=-2), "cores is -2; write a whole number from 1 on"),
        (lambda plain: plain.update(cores=2.0), "cores is 2.0; write a whole number from 1 on"),
        (lambda plain: plain.update(cores=True), "cores is True; write a whole number from 1 on"),
        (lambda plain: plain.update(cores="2"), "cores is '2'; write a whole number from 1 on"),
        (lambda plain: plain.update(stores={}), 'stores is empty; write what "zstd", "lz4" or "file" takes'),
        (lambda plain: plain.update(stores=["lz4"]), "stores are ['lz4']; write them in braces, by kind of node"),
        (lambda plain: plain["hit"].update(call=10**400), "hit.call is inf; write a number"),
        (lambda plain: plain["stores"].update(zstd=1), "the costs of stores.zstd are 1; write them in braces, by name"),
        (lambda plain: plain["stores"]["zstd"].pop("read"), "the costs of stores.zstd lack read"),
        (lambda plain: plain["stores"]["file"].pop("write"), "the costs of stores.file lack write"),
        (lambda plain: plain["stores"]["file"].update(x=1), "the costs of stores.file have x, which nothing takes"),
        (
            lambda plain: plain["stores"]["file"]["read"].update(call=-3),
            "stores.file.read.call is -3; a cost cannot be negative",
        ),
        (
            lambda plain: plain["stores"]["zstd"]["write"].pop("call"),
            "the costs of stores.zstd.write lack call",
        ),
        (lambda plain: plain["stores"]["zstd"].update(ratio=0), "stores.zstd.ratio is 0; write a number above 0"),
        (lambda plain: plain["stores"]["zstd"].update(ratio=-1), "stores.zstd.ratio is -1; a cost cannot be negative"),
        (lambda plain: plain["stores"]["zstd"].update(ratio=math.nan), "stores.zstd.ratio is nan; write a number"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(change: Callable[[dict[str, Any]], object], message: str) -> None:
    with pytest.raises(SpecError) as error:
        Costs.loads(text(change))
    assert str(error.value) == message


@pytest.mark.parametrize("wrong", ["", "hit: 7", "{", '{"hit": }'])
def test_what_is_not_json_is_told_with_the_command_that_writes_it(wrong: str) -> None:
    with pytest.raises(SpecError, match=r"the costs are not JSON: .*; write them with: thermocline calibrate$"):
        Costs.loads(wrong)


@pytest.mark.parametrize("wrong", ["[]", "7", "null", '"costs"', "[1, 2]"])
def test_json_that_is_no_object_is_shown(wrong: str) -> None:
    with pytest.raises(SpecError) as error:
        Costs.loads(wrong)
    assert str(error.value) == f"the costs are {json.loads(wrong)!r}; write them in braces, by name"


def test_several_missing_costs_are_all_named() -> None:
    with pytest.raises(SpecError, match=r"the costs lack hit, wake$"):
        Costs.loads(text(lambda plain: [plain.pop("wake"), plain.pop("hit")]))


def test_a_file_that_is_not_there_is_told_with_the_command_that_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    with pytest.raises(SpecError) as error:
        Costs.load(path)
    assert str(error.value) == (
        f"no costs can be read from {path} (No such file or directory); write: thermocline calibrate {path}"
    )


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"\(Is a directory\)"):
        Costs.load(tmp_path)


def test_a_file_of_other_bytes_than_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(SpecError, match=r"\(it is not text\)"):
        Costs.load(path)


def test_what_is_wrong_in_a_file_is_told_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    path.write_text(text(lambda plain: plain.pop("hit")))
    with pytest.raises(SpecError) as error:
        Costs.load(path)
    assert str(error.value) == f"{path}: the costs lack hit"
