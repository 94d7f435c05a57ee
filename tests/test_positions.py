"""Where texts stand, found by their hashes."""

from __future__ import annotations

import pytest

from shards import positions
from shards.positions import Positions

pytestmark = pytest.mark.unit
PARTS = (["b", "a", ""], [], ["é", "a", "c", "b"])


@pytest.mark.parametrize("alike", [False, True])
def test_a_text_is_where_it_stands_first(monkeypatch: pytest.MonkeyPatch, alike: bool):
    if alike:  # all texts have one hash: what stands there decides
        monkeypatch.setattr(positions, "_hash", lambda name: 7)
    found = Positions(*PARTS)
    assert {text: found[text] for text in "bacé"} | {"": found[""]} == {"b": 0, "a": 1, "": 2, "é": 3, "c": 5}
    assert "d" not in found
    assert (len(found), list(found)) == (7, [text for part in PARTS for text in part])
    assert found.place(5) == (2, 2)
    assert found.repeated() == (1, 4)
    assert Positions(["x"], ["y"]).repeated() is None


def test_of_nothing_nothing_is_found():
    assert "a" not in Positions()
    assert Positions([]).repeated() is None
