"""Class order files: the labels in the order of a head's outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shards.class_order import read_class_order, save_class_order
from shards.errors import InputError

pytestmark = pytest.mark.unit


def read(folder: Path, text: str) -> tuple[str, ...]:
    (folder / "order.csv").write_text(text, encoding="utf-8")
    return read_class_order(folder / "order.csv")


def test_three_forms(tmp_path: Path):
    labels = ("zebra", "dog, barking", "ant")
    assert read(tmp_path, 'index,mid,display_name\n2,m2,ant\n0,m0,zebra\n1,m1,"dog, barking"\n') == labels
    assert read(tmp_path, '\ufeffzebra,1050,animals\n"dog, barking",9,animals\nant,1,animals\n') == labels
    assert read(tmp_path, 'zebra\n"dog, barking"\nant\n') == labels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no labels"),
        ("index,mid,display_name\n0,m,a\n2,m,b\n", "field 'index': no class 1"),
        ("index,mid,display_name\n0,m,a\n0,m,b\n", "csv:3: field 'index': 0 is in lines 2 and 3"),
        ("index,mid,display_name\nx,m,a\n", "'x' is no index"),
        ("index,mid,display_name\n0,m\n", "2 columns"),
        ("a\nb\na\n", "'a' is in lines 1 and 3"),
        ("a,b\n", "no class order file"),
        ("a\nb,1,c\n", "no class order file"),
        ("idx,mid,name\n0,m,a\n", "no class order file"),  # not a list of the labels "idx" and "0"
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str):
    with pytest.raises(InputError, match=message):
        read(tmp_path, text)


def test_a_saved_order_reads_back(tmp_path: Path):
    path = save_class_order(tmp_path, ("b, c", "a"))
    assert json.loads(path.read_text()) == ["b, c", "a"]


def test_the_real_orders(shared_data: Path):
    paths = [shared_data / "vggsounder" / "classes.csv", shared_data / "labels" / "vggsound_classes.csv"]
    sound = shared_data / "labels" / "class_labels_indices_as.csv"
    if not all(path.is_file() for path in (*paths, sound)):
        pytest.skip("no class order files in the shared data")
    vggsounder, vggsound = map(read_class_order, paths)
    assert vggsounder == vggsound
    assert (len(vggsound), vggsound[:2], vggsound[2]) == (
        309,
        ("ambulance siren", "basketball bounce"),
        "bird chirping, tweeting",
    )
    order = read_class_order(sound)
    assert (len(order), order[0], order[526]) == (527, "Speech", "Field recording")
    assert sum(a == b for a, b in zip(order, sorted(order), strict=True)) == 1  # sorting is another order
