"""Keys of shards: safe characters, stable, one per id."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.keys import safe_key, safe_name

pytestmark = pytest.mark.unit


@given(st.text(min_size=1))
def test_any_id_gets_a_safe_key(clip_id: str):
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,80}", safe_key(clip_id))


ALIKE = st.text(alphabet="a_-./ é0", min_size=1, max_size=6)


@given(ALIKE, ALIKE)
def test_two_ids_never_share_a_key(first: str, second: str):
    assert (safe_key(first) == safe_key(second)) == (first == second)


@given(st.text(min_size=1))
def test_a_key_as_an_id_never_meets_the_id_it_came_from(clip_id: str):
    key = safe_key(clip_id)
    assert key == clip_id or safe_key(key) != key


@given(st.from_regex(r"[A-Za-z0-9_]{1,40}", fullmatch=True))
def test_a_safe_id_is_its_own_key(clip_id: str):
    assert safe_key(clip_id) == clip_id


def test_an_unsafe_id_stays_readable():
    assert re.fullmatch(r"vid_10_5_20_5--[0-9a-f]{16}", safe_key("vid_10.5_20.5"))
    assert safe_key("vid_10.5_20.5") != safe_key("vid_10.7_20.7")


def test_an_empty_id_has_no_key():
    with pytest.raises(ValueError, match="empty"):
        safe_key("")


TEXTS = st.text(alphabet="a.-_/\\ é0=:\n\0", max_size=6)


@given(st.one_of(TEXTS, st.text()))
def test_any_text_names_one_file_in_its_folder(text: str):
    name = safe_name(text)
    assert re.fullmatch(r"[A-Za-z0-9_=+,-][A-Za-z0-9_.=+,-]{0,79}", name)
    assert safe_name(text) == name


@given(TEXTS, TEXTS)
def test_two_texts_never_share_a_name(first: str, second: str):
    assert (safe_name(first) == safe_name(second)) == (first == second)


@pytest.mark.parametrize("text", ["x/../../../escaped", "..", ".", "", "/etc/passwd", "a\0b", "-" * 300, "con:", "é"])
def test_no_text_leaves_its_folder(tmp_path, text: str):
    path = tmp_path / "results" / safe_name(text)
    assert path.resolve().parent == tmp_path / "results"
    assert path.name == safe_name(text)


def test_plain_names_stay_as_they_are():
    for name in ("results", "lr=0.001", "prompt-0a1b.v2", "violin,cello"):
        assert safe_name(name) == name
