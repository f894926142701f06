"""`thermocline check`, as it is called and mistaken."""

from __future__ import annotations

import pytest

from thermocline.cli import main
from thermocline.protocol.migrate import DESIGNS, Design, deferred


def test_a_design_is_checked_and_the_coverage_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "deferred", "--threads", "1"]) == 0
    out, err = capsys.readouterr()
    assert "deferred: clean; every schedule of" in out
    assert "batch" not in out
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["deferd"], 'the design "deferd" is unknown; write deferred'),
        (["--pages", "1"], '"1" pages cannot be searched; write 2 to 6'),
        (["--pages", "many"], '"many" pages cannot be searched; write 2 to 6'),
        (["--threads", "0"], '"0" threads cannot be searched; write 1 to 4'),
        (["--max-memory", "2GIG"], 'the unit "GIG" of the size "2GIG" is unknown; write 2GiB'),
        (["--crsh"], '"--crsh" is unknown; write --crash'),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["check", *arguments])
    assert exit_.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("thermocline check: error: ")
    assert err.endswith(f"{message}\n")
    assert err.count("\n") == 1


def test_a_search_that_is_too_large_says_how_far_it_got(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "batch", "--max-states", "300"]) == 1
    out = capsys.readouterr().out
    assert "stopped at 300 states" in out
    assert "but not every schedule of direct reclaim, kswapd" in out


def test_what_is_wrong_is_printed_as_a_schedule(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from broken import naive

    assert naive.__module__ != deferred.__name__
    monkeypatch.setitem(DESIGNS, "deferred", Design("deferred", migrate_locked=naive))
    assert main(["check", "deferred"]) == 1
    out = capsys.readouterr().out
    assert "which it holds itself" in out
    assert "deferred: WRONG in" in out
