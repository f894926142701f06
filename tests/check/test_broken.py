"""What is wrong is found, and shown in a way that can be followed."""

from __future__ import annotations

import pytest
from broken import BROKEN, Broken, case
from broken_forks import BROKEN_FORKS

from thermocline.check.schedule import describe
from thermocline.check.search import Found, Search, shorten


def find(broken: Broken, patch: pytest.MonkeyPatch) -> tuple[Found, str]:
    for module, name, function in broken.patches:
        patch.setattr(module, name, function)
    configuration = case(broken.case, crashes=broken.crashes, cooperative=broken.cooperative)
    result = Search(configuration, broken.design).run()
    assert result.found is not None, f"covered {result.states} states and found nothing"
    assert not result.exhaustive
    found = shorten(result.found, configuration, broken.design)
    return found, describe(found, configuration, broken.design)


@pytest.mark.parametrize("broken", BROKEN + BROKEN_FORKS, ids=lambda broken: broken.name)
def test_every_broken_protocol_is_caught(broken: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    found, text = find(broken, monkeypatch)
    assert found.violation.kind in broken.kinds, text
    assert text.count("\n") < 120, text
