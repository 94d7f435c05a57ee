"""The manifest contract: what reads, what is refused, and with which words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.manifest import Clip, joined, read_manifest, relative, write_manifest
from shards.errors import InputError

pytestmark = pytest.mark.unit

HEADER = "id,path,label,split\n"


def written(folder: Path, text: str, name: str = "m.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def test_reads_all_columns_of_a_csv(tmp_path: Path):
    text = "id,path,label,split,group,start,duration\nv.1,clips/a b.mp4,dog; big dog,train,g1,1.5,10\n"
    (clip,) = read_manifest(written(tmp_path, text))
    assert clip == Clip(
        id="v.1",
        key=clip.key,
        path=str(tmp_path / "clips/a b.mp4"),
        audio_path=None,
        image_path=None,
        labels=("dog", "big dog"),
        split="train",
        group="g1",
        start=1.5,
        duration=10.0,
    )
    assert "." not in clip.key


def test_reads_json_lines_with_numbers_lists_and_nulls(tmp_path: Path):
    text = '{"id": 7, "audio_path": "a.wav", "image_path": null, "label": ["x", "y"], "split": "val"}\n\n'
    (clip,) = read_manifest(written(tmp_path, text, "m.jsonl"))
    assert (clip.id, clip.labels, clip.image_path) == ("7", ("x", "y"), None)
    assert clip.audio_path == str(tmp_path / "a.wav")


def test_reads_what_spreadsheets_write(tmp_path: Path):
    clips = read_manifest(written(tmp_path, '\ufeffid,path,label,split\r\n1,"a,b.mp4",x,train\r\n\r\n'))
    assert [clip.path for clip in clips] == [str(tmp_path / "a,b.mp4")]


@pytest.mark.parametrize("text", ["a/b.mp4", "a//b", "./a", "a/./b", "a/../b", "../a", ".a", "a/", "é/ä b", "/x/a"])
@pytest.mark.parametrize("folder", ["/data/set", "/data/../set", "/", "."])
def test_paths_are_joined_and_told_as_the_system_does(text: str, folder: str):
    base = Path(folder)
    path = joined(base, text)
    assert path == str(base / text)
    assert relative(path, base) == os.path.relpath(path, folder)


def test_an_absolute_path_stays(tmp_path: Path):
    (clip,) = read_manifest(written(tmp_path, HEADER + "1,/media/a.mp4,x,train\n"))
    assert clip.path == "/media/a.mp4"


@pytest.mark.parametrize(
    ("text", "line", "field", "words"),
    [
        ("", None, None, "no clips"),
        (HEADER, None, None, "no clips"),
        ("id,path,split\n1,a,train\n", 1, "label", "missing column"),
        ("id,label,split\n1,a,train\n", 1, "path", "missing column"),
        ("id,path,labl,split\n1,a,x,train\n", 1, "labl", "did you mean 'label'"),
        ("id,id,path,label,split\n1,1,a,x,train\n", 1, "id", "twice"),
        (HEADER + "1,a,x,train\n2,b,x,train\n1,c,x,test\n", 4, "id", "lines 2 and 4"),
        (HEADER + ",a,x,train\n", 2, "id", "empty"),
        (HEADER + "1,a,,train\n", 2, "label", "empty label"),
        (HEADER + "1,a,x;;y,train\n", 2, "label", "empty label"),
        (HEADER + "1,a,x, \n", 2, "split", "empty"),
        (HEADER + "1,a,x,../train\n", 2, "split", "can't name a file"),
        (HEADER + "1,,x,train\n", 2, "path", "names no file"),
        (HEADER + '"a\nb",a,x,train\n', 2, "id", "control character"),
        (HEADER + '1,"a\n.mp4",x,train\n2,b,,train\n', 2, "path", "control character"),
        (HEADER + "1,a,x\n", 2, None, "3 fields"),
        (HEADER + '1,"a,x,train\n', 2, None, "not CSV"),
        ("id,path,label,split,start\n1,a,x,train,soon\n", 2, "start", "'soon' is no number"),
        ("id,path,label,split,start\n1,a,x,train,-1\n", 2, "start", "no number of seconds"),
        ("id,path,label,split,duration\n1,a,x,train,nan\n", 2, "duration", "no number"),
        ("id,path,label,split,duration\n1,a,x,train,0\n", 2, "duration", "above 0"),
        ("id,path,audio_path,label,split\n1,a,b,x,train\n", 2, "path", "both"),
        ("id,path,label,split,group\n1,a,x,train,g\n2,b,x,test,g\n", 3, "group", "line 2"),
    ],
)
def test_refuses_with_line_field_and_remedy(tmp_path: Path, text: str, line, field, words: str):
    path = written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_manifest(path)
    error = caught.value
    assert str(error.file) == (f"{path}:{line}" if line else str(path))
    assert error.field == field
    assert words in str(error)
    assert error.remedy


@pytest.mark.parametrize("parted", [";", "\t", ", ", "; "])
def test_other_separators_and_spaces_after_them_are_read(tmp_path: Path, parted: str):
    lines = [["id", "path", "label", "split"], ["1", '"a, b; c.mp4"', '"x;y"', "train"]]
    text = "".join(parted.join(fields) + "\n" for fields in lines)
    (clip,) = read_manifest(written(tmp_path, text, "m.tsv" if parted == "\t" else "m.csv"))
    assert (clip.path, clip.labels, clip.split) == (str(tmp_path / "a, b; c.mp4"), ("x", "y"), "train")


def test_too_many_fields_are_told_by_the_separator_in_use(tmp_path: Path):
    with pytest.raises(InputError, match=r'hold semicolons in double quotes \("a;b"\)'):
        read_manifest(written(tmp_path, "id;path;label;split\n1;a;x;y;train\n"))


@pytest.mark.parametrize("split", ["Train", "TEST", "Val"])
def test_a_split_in_capitals_is_told_with_the_near_name(tmp_path: Path, split: str):
    with pytest.raises(InputError, match=f"did you mean '{split.lower()}'"):
        read_manifest(written(tmp_path, HEADER + f"1,a,x,{split}\n"))


@pytest.mark.parametrize("text", ["1_0", "٣", "0x10", "1,5", "inf", "--1"])
def test_what_python_alone_takes_for_a_number_is_none(tmp_path: Path, text: str):
    with pytest.raises(InputError, match="is no number of seconds"):
        read_manifest(written(tmp_path, f'id,path,label,split,start\n1,a,x,train,"{text}"\n'))


@pytest.mark.parametrize(("text", "value"), [("010", 10.0), ("1.", 1.0), (".5", 0.5), ("1e1", 10.0), ("+2", 2.0)])
def test_numbers_of_seconds(tmp_path: Path, text: str, value: float):
    (clip,) = read_manifest(written(tmp_path, f"id,path,label,split,start\n1,a,x,train,{text}\n"))
    assert clip.start == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"id": "1", "path": "a", "label": "x", "split": "t", "id": "2"}\n', "'id' is there twice"),
        ("{'id': 1}\n", "not JSON"),
        ("[1]\n", "not an object"),
        ('{"id": "1", "path": "a", "label": "x", "split": "t", "sttart": 1}\n', "did you mean 'start'"),
        ('{"id": "1", "path": "a", "label": ["x;y"], "split": "t"}\n', "';'"),
        ('{"id": true, "path": "a", "label": "x", "split": "t"}\n', "no text"),
    ],
)
def test_refuses_wrong_json_lines(tmp_path: Path, text: str, words: str):
    with pytest.raises(InputError, match=words):
        read_manifest(written(tmp_path, text, "m.jsonl"))


def test_refuses_a_missing_file_a_wrong_ending_and_wrong_bytes(tmp_path: Path):
    with pytest.raises(InputError, match="can't be read"):
        read_manifest(tmp_path / "none.csv")
    with pytest.raises(InputError, match=r"use \.csv"):
        read_manifest(written(tmp_path, HEADER, "m.xlsx"))
    (tmp_path / "latin.csv").write_bytes(HEADER.encode() + b"1,a,r\xe9sum\xe9,train\n")
    with pytest.raises(InputError, match="UTF-8"):
        read_manifest(tmp_path / "latin.csv")


def test_missing_media_is_no_error(tmp_path: Path):
    assert len(read_manifest(written(tmp_path, HEADER + "1,not/there.mp4,x,train\n"))) == 1


WORD = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1).filter(
    lambda text: text == text.strip() and ";" not in text
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "id": WORD,
            "path": WORD,
            "label": st.lists(WORD, min_size=1, max_size=3, unique=True),
            "split": st.sampled_from(["train", "val", "test"]),
            "start": st.none() | st.floats(0, 1e6),
        }
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda row: row["id"],
)


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_what_is_written_reads_back(tmp_path: Path, ending: str):
    path = tmp_path / f"m.{ending}"

    @settings(deadline=None)
    @given(ROWS)
    def check(rows):
        clips = write_manifest(path, rows)
        first = path.read_bytes()
        assert read_manifest(path) == clips
        assert [(clip.id, clip.labels, clip.start) for clip in clips] == [
            (row["id"], tuple(row["label"]), row["start"]) for row in rows
        ]
        write_manifest(path, rows)
        assert path.read_bytes() == first

    check()


def test_wrong_rows_leave_the_old_manifest_alone(tmp_path: Path):
    row = {"id": "1", "path": "a", "label": "x", "split": "train"}
    write_manifest(tmp_path / "m.csv", [row])
    before = (tmp_path / "m.csv").read_bytes()
    with pytest.raises(InputError, match="lines 2 and 3"):
        write_manifest(tmp_path / "m.csv", [row, row])
    assert (tmp_path / "m.csv").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["m.csv"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_a_manifest_in_utf_16_is_told_as_such(tmp_path, encoding):
    (tmp_path / "m.csv").write_text("id,path,label,split\na,a.wav,x,train\n", encoding=encoding)
    with pytest.raises(InputError, match=r"(?s)UTF-16.*save the manifest as UTF-8"):
        read_manifest(tmp_path / "m.csv")


def test_json_that_is_nested_without_end_is_no_json(tmp_path):
    (tmp_path / "m.jsonl").write_text("[" * 100_000)
    with pytest.raises(InputError, match="not JSON"):
        read_manifest(tmp_path / "m.jsonl")
