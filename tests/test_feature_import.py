"""Published features as sequence shards: every value, every file and every question accounted for."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import os
import pickle
import signal
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import avmend
from configs import load_config
from pipelines.imports import run as importing
from pipelines.imports import shard as making
from pipelines.imports.layouts import LAYOUTS
from pipelines.imports.notes import IMPORT_FILE, Note
from pipelines.imports.run import import_features
from shards.errors import InputError
from shards.questions import Question, save_questions
from shards.reader import Sample, ShardDataset
from shards.schema import DatasetInfo
from shards.sequence import sequence_spec
from shards.verify import verify

unit, on_ray, integration = pytest.mark.unit, pytest.mark.ray, pytest.mark.integration
FEW = ["workers=0", "samples_per_shard=2"]
Splits = Mapping[str, str]


def ask(path: Path, splits: Splits, times: int = 1) -> Path:
    """A question (or more) about each clip, in the given split."""
    rows = [
        Question(
            id=f"{clip}-q{i}" if i else f"q-{clip}",
            clip=clip,
            question=f"How many instruments are there in {i}?",
            answer="one" if n % 2 else "two",
            type="Audio Counting",
            split=split,
        )
        for n, (clip, split) in enumerate(splits.items())
        for i in range(times)
    ]
    return save_questions(path, rows)


def arrays(seed: int, *shape: int, dtype: str = "float32") -> np.ndarray:
    """Like features after a ReLU: some zeros, nothing negative."""
    return np.maximum(np.random.default_rng(seed).normal(0.3, 1, shape), 0).astype(dtype)


def save(path: Path, array: np.ndarray) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return array


def music_avqa(source: Path, clips: list[str], visual: str = "res18") -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The layout's folders, with arrays of the released shapes."""
    shape = {"res18": (60, 512), "res18_14x14": (60, 512, 14, 14)}[visual]
    return {
        clip: (
            save(source / "vggish" / f"{clip}.npy", arrays(i, 60, 128)),
            save(source / visual / f"{clip}.npy", arrays(1000 + i, *shape)),
        )
        for i, clip in enumerate(clips)
    }


def take(source: Path, questions: Path, out: Path, layout: str, *overrides: str) -> list[Note]:
    config = load_config(LAYOUTS[layout].config, None, [*FEW, *overrides])
    return import_features(source, questions, out, layout, config)


def samples(out: Path) -> dict[str, Sample]:
    info = DatasetInfo.load(out)
    return {sample.meta.id: sample for split in info.splits for sample in ShardDataset(out, split)}


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture
def pooled(tmp_path) -> tuple[Path, Path, dict]:
    """Five clips of pooled features in three splits: source, questions, arrays."""
    splits = {"00000001": "train", "a_flip": "train", "c": "train", "sa00000002": "val", "00000003": "test"}
    found = music_avqa(tmp_path / "feats", list(splits))
    return tmp_path / "feats", ask(tmp_path / "questions.jsonl", splits), found


@integration
def test_maps_become_places_row_by_row_and_nothing_else_changes(tmp_path):
    splits = {"00000001": "train", "00000002": "test"}
    found = music_avqa(tmp_path / "feats", list(splits), "res18_14x14")
    out = tmp_path / "out"
    assert take(tmp_path / "feats", ask(tmp_path / "q.jsonl", splits), out, "music-avqa") == []
    info = DatasetInfo.load(out)
    spec = sequence_spec(info)
    assert (spec.audio, spec.visual, spec.steps, spec.places, spec.frame_token) == (128, 512, 60, 196, False)
    for clip, (audio, visual) in found.items():
        sample = samples(out)[clip]
        np.testing.assert_array_equal(sample.arrays["audio"], audio.astype(np.float16))
        assert (sample.arrays["visual"].dtype, sample.arrays["visual"].shape) == (np.float16, (60, 196, 512))
        for step, y, x in ((0, 0, 0), (59, 13, 13), (31, 4, 9)):
            there = sample.arrays["visual"][step, 14 * y + x]
            np.testing.assert_array_equal(there, visual[step, :, y, x].astype(np.float16))
        want = visual.reshape(60, 512, 196).transpose(0, 2, 1).astype(np.float16)
        np.testing.assert_array_equal(sample.arrays["visual"], want)
        assert (sample.meta.split, sample.meta.duration, sample.meta.labels) == (
            splits[clip],
            60.0,
            ("Audio Counting",),
        )
    audio, visual = found["00000001"]  # the train split alone
    statistics = info.normalisation.visual
    np.testing.assert_allclose(statistics.mean, visual.astype(np.float64).mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(statistics.std, visual.astype(np.float64).std((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(info.normalisation.audio.std, audio.astype(np.float64).std(0), rtol=1e-5)
    assert verify(out) == []


@unit
def test_float32_keeps_every_bit_in_any_storage_order(tmp_path):
    source, splits = tmp_path / "feats", dict.fromkeys("abcd", "train")
    found = music_avqa(source, list(splits))
    np.save(source / "res18" / "b.npy", np.asfortranarray(found["b"][1]))
    np.save(source / "res18" / "c.npy", found["c"][1].astype(">f4"))
    np.save(source / "res18" / "d.npy", found["d"][1].astype(np.float64))
    take(source, ask(tmp_path / "q.jsonl", splits), tmp_path / "out", "music-avqa", "visual=res18", "dtype=float32")
    for clip, (audio, visual) in found.items():
        sample = samples(tmp_path / "out")[clip]
        assert sample.arrays["visual"].dtype == np.float32
        np.testing.assert_array_equal(sample.arrays["visual"][:, 0], visual)
        np.testing.assert_array_equal(sample.arrays["audio"], audio)


class Evil:
    def __reduce__(self):
        return os.mkdir, (str(Evil.marker),)

    marker: Path


def spoil(source: Path, visual: Path, tmp_path: Path) -> None:
    """One fault for each clip that is named after it."""
    good = arrays(1, 60, 512)
    Evil.marker = tmp_path / "executed"
    np.save(visual / "pickled.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    (visual / "raw.npy").write_bytes(pickle.dumps(Evil()))
    np.save(visual / "shape.npy", good[:, :500])
    np.save(visual / "rows.npy", good[:57])
    np.save(visual / "flat.npy", good.ravel())
    np.save(visual / "scalar.npy", np.float32(3))
    np.save(visual / "integers.npy", good.astype(np.int32))
    for name, value in (("nan", np.nan), ("inf", -np.inf), ("large", 70000.0)):
        spoilt = good.copy()
        spoilt[17, 3] = value
        np.save(visual / f"{name}.npy", spoilt)
    whole = (visual / "good.npy").read_bytes()
    (visual / "cut.npy").write_bytes(whole[:-1000])
    (visual / "longer.npy").write_bytes(whole + b"\0" * 4)
    (visual / "stub.npy").write_bytes(whole[:7])
    (visual / "empty.npy").write_bytes(b"")
    huge = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 512), }"
    (visual / "huge.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(huge).to_bytes(2, "little") + huge)
    np.save(visual / "zeros.npy", np.zeros((60, 512), np.float32))
    np.save(visual / "dark.npy", np.where(np.isin(np.arange(60), (0, 59))[:, None], 0, good))
    (visual / "missing.npy").unlink()
    (source / "vggish" / "nothing.npy").unlink()
    (visual / "nothing.npy").unlink()


FAULTS = {
    "pickled": ("undecodable", "pickled objects"),
    "raw": ("undecodable", "no .npy"),
    "shape": ("wrong shape or type", "[60, 500], not [60, 512]"),
    "rows": ("wrong shape or type", "length=fit"),
    "flat": ("wrong shape or type", "[30720], not [60, 512]"),
    "scalar": ("wrong shape or type", "[], not [60, 512]"),
    "integers": ("wrong shape or type", "int32, not floats"),
    "nan": ("not finite", "1 values that are NaN or infinite, in rows 17"),
    "inf": ("not finite", "in rows 17"),
    "large": ("too large", "dtype=float32"),
    "cut": ("truncated", "cut short"),
    "longer": ("truncated", "longer than its header says"),
    "stub": ("undecodable", "no .npy"),
    "empty": ("undecodable", "no .npy"),
    "huge": ("truncated", "cut short"),
    "zeros": ("all zeros", "zeros=keep"),
    "missing": ("missing file", "nothing in 'res18'"),
}


@pytest.fixture
def spoilt(tmp_path) -> tuple[Path, Path]:
    clips = ["good", *FAULTS, "dark", "nothing"]
    source = tmp_path / "feats"
    music_avqa(source, clips)
    spoil(source, source / "res18", tmp_path)
    return source, ask(tmp_path / "q.jsonl", dict.fromkeys(clips, "train"), times=2)


@unit
def test_every_fault_is_named_with_its_file_and_remedy_and_every_question_accounted_for(spoilt, tmp_path):
    source, questions = spoilt
    notes = take(source, questions, tmp_path / "out", "music-avqa", "visual=res18")
    assert not (tmp_path / "executed").exists()
    assert (tmp_path / "out" / IMPORT_FILE).read_text() == "".join(note.line() for note in notes)
    of_clip = {note.clip: note for note in notes if note.question is None}
    assert of_clip.keys() == {*FAULTS, "dark"}
    for clip, (what, said) in FAULTS.items():
        note = of_clip[clip]
        assert (note.what, note.outcome) == (what, "left out"), note
        assert said in f"{note.message} {note.remedy}", note
        assert note.remedy
        assert note.file in (f"res18/{clip}.npy", "res18")
    assert (of_clip["dark"].what, of_clip["dark"].outcome) == ("zero rows", "imported")
    assert of_clip["dark"].message.endswith(": 0, 59")
    there = samples(tmp_path / "out")
    assert set(there) == {"good", "dark"}
    lost = [note.question for note in notes if note.what == "question without features"]
    asked = [json.loads(line) for line in questions.read_text().splitlines()]
    assert sorted(lost) == sorted(q["id"] for q in asked if q["clip"] not in there)
    (nothing, _) = (note for note in notes if note.clip == "nothing")
    assert nothing.message == "there is no file of its clip"


@unit
def test_a_failed_modality_is_absent_with_its_cause_where_that_is_asked_for(spoilt, tmp_path):
    source, questions = spoilt
    out = tmp_path / "out"
    notes = take(source, questions, out, "music-avqa", "visual=res18", "partial=keep")
    there = samples(out)
    assert set(there) == {"good", "dark", *FAULTS}
    for clip, (what, _) in FAULTS.items():
        meta = there[clip].meta
        assert (meta.audio.present, meta.visual.present, meta.visual.cause) == (True, False, what)
        assert set(there[clip].arrays) == {"audio"}
    assert {note.outcome for note in notes if note.what in dict(FAULTS.values())} == {"one modality imported"}
    info = DatasetInfo.load(out)
    assert info.splits["train"].present == {"audio": 19, "visual": 2}
    assert sum(info.splits["train"].absent["visual"].values()) == len(FAULTS)
    assert verify(out) == []


@unit
def test_zeros_and_lengths_are_taken_as_published_loaders_do_where_asked(spoilt, tmp_path):
    source, questions = spoilt
    out = tmp_path / "out"
    notes = take(source, questions, out, "music-avqa", "visual=res18", "zeros=keep", "length=fit")
    there = samples(out)
    assert not there["zeros"].arrays["visual"].any()
    cut = np.load(source / "res18" / "rows.npy").astype(np.float16)
    np.testing.assert_array_equal(there["rows"].arrays["visual"][:, 0], np.concatenate([cut, cut[[-1] * 3]]))
    fitted = [note for note in notes if note.what == "rows cut or repeated"]
    assert [(note.clip, note.message) for note in fitted] == [("rows", "had 57 rows, has 60")]
    rows = [there[clip].arrays["visual"][:, 0].astype(np.float64) for clip in ("good", "zeros", "rows", "dark")]
    want = np.concatenate(rows)
    np.testing.assert_allclose(DatasetInfo.load(out).normalisation.visual.mean, want.mean(0), rtol=1e-3)


@unit
def test_no_name_leads_anywhere_and_every_file_is_accounted_for(tmp_path):
    source = tmp_path / "feats"
    music_avqa(source, ["a.b c", "plain", "line\nbreak"])
    outside = save(tmp_path / "outside.npy", arrays(7, 60, 512))
    assert outside.size
    folder = source / "res18"
    os.mkfifo(folder / "pipe.npy")
    (folder / "notes.txt").write_text("x")
    (folder / ".npy").write_text("x")
    (folder / "folder.npy").mkdir()
    (folder / os.fsdecode(b"bad\xff.npy")).write_bytes(b"x")
    asked = {
        "a.b c": "train",
        "plain": "train",
        "line\nbreak": "train",
        "../../outside": "train",
        "/etc/passwd": "test",
    }
    notes = take(source, ask(tmp_path / "q.jsonl", asked), tmp_path / "out", "music-avqa", "visual=res18")
    strange = {note.file for note in notes if note.what == "no feature file"}
    names = ("pipe.npy", "notes.txt", ".npy", "folder.npy", "bad?.npy")
    assert strange == {f"res18/{name}" for name in names}
    lost = {note.clip for note in notes if note.what == "question without features"}
    assert lost == {"../../outside", "/etc/passwd"}
    assert set(samples(tmp_path / "out")) == {"a.b c", "plain", "line\nbreak"}
    with pytest.raises(InputError, match="leads out of the source"):
        take(source, tmp_path / "q.jsonl", tmp_path / "other", "music-avqa", "audio=../x")


@unit
def test_splits_are_the_questions_and_a_clip_in_several_or_none_is_told(tmp_path):
    source = tmp_path / "feats"
    music_avqa(source, ["a", "b", "c", "left"])
    rows = [("a", "test"), ("a", "val"), ("b", "train"), ("b", "test"), ("c", "test")]
    questions = [
        Question(id=f"{i}", clip=clip, question="What?", answer="x", type="Visual Location", split=split)
        for i, (clip, split) in enumerate(rows)
    ]
    asked = save_questions(tmp_path / "q.jsonl", questions)
    notes = take(source, asked, tmp_path / "out", "music-avqa", "visual=res18")
    there = samples(tmp_path / "out")
    assert {clip: sample.meta.split for clip, sample in there.items()} == {"a": "val", "b": "train", "c": "test"}
    several = {note.clip: note.message for note in notes if note.what == "clip in several splits"}
    assert several == {
        "a": "asked about in val, test; its features are in val",
        "b": "asked about in train, test; its features are in train",
    }
    (left,) = [note for note in notes if note.what == "features without question"]
    assert (left.clip, left.file, left.outcome) == ("left", "vggish/left.npy", "left out")
    notes = take(source, asked, tmp_path / "all", "music-avqa", "visual=res18", "unasked=keep")
    assert samples(tmp_path / "all")["left"].meta.split == "unasked"
    assert {note.outcome for note in notes} == {"imported"}


@unit
def test_a_killed_import_goes_on_and_ends_in_the_same_bytes(pooled, tmp_path, monkeypatch):
    source, questions, _ = pooled
    take(source, questions, tmp_path / "whole", "music-avqa", "visual=res18")
    out, done = tmp_path / "killed", 0

    def deadly(*args, **options):
        nonlocal done
        done += 1
        if done == 6:  # in the second shard, whose first clip is already written
            os.kill(os.getpid(), signal.SIGKILL)
        return converted(*args, **options)

    converted = making.convert
    child = os.fork()
    if not child:
        try:
            making.convert = deadly  # type: ignore[assignment]
            take(source, questions, out, "music-avqa", "visual=res18")
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert [path.name for path in (out / "ledger").glob("*.json")] == ["train-000000.json"]
    assert list(out.glob(".train-000001*.tmp*"))
    before = (out / "train-000000.tar").stat().st_mtime_ns
    take(source, questions, out, "music-avqa", "visual=res18")
    assert digests(out) == digests(tmp_path / "whole")
    assert (out / "train-000000.tar").stat().st_mtime_ns == before


@unit
def test_files_that_come_later_change_their_shards_alone(pooled, tmp_path):
    source, questions, found = pooled
    take(source, questions, tmp_path / "whole", "music-avqa", "visual=res18")
    for clip in ("c", "00000003"):
        (source / "res18" / f"{clip}.npy").unlink()
    out = tmp_path / "grown"
    notes = take(source, questions, out, "music-avqa", "visual=res18")
    assert collections.Counter(note.what for note in notes) == {"missing file": 2, "question without features": 2}
    assert set(samples(out)) == {"00000001", "a_flip", "sa00000002"}
    before = (out / "train-000000.tar").stat().st_mtime_ns
    for clip in ("c", "00000003"):
        np.save(source / "res18" / f"{clip}.npy", found[clip][1])
    assert take(source, questions, out, "music-avqa", "visual=res18") == []
    assert digests(out) == digests(tmp_path / "whole")
    assert (out / "train-000000.tar").stat().st_mtime_ns == before


@unit
@pytest.mark.parametrize("partial", ["quarantine", "keep"])
def test_what_was_imported_is_not_lost_with_its_files(pooled, tmp_path, partial):
    source, questions, _ = pooled
    how = ("visual=res18", f"partial={partial}")
    take(source, questions, tmp_path / "out", "music-avqa", *how)
    before = digests(tmp_path / "out")
    (source / "res18" / "a_flip.npy").unlink()
    if partial == "keep":
        (source / "vggish" / "a_flip.npy").unlink()
    with pytest.raises(InputError, match="1 that were imported have no files any more, such as 'a_flip'"):
        take(source, questions, tmp_path / "out", "music-avqa", *how)
    assert digests(tmp_path / "out") == before


@unit
def test_an_import_is_not_mixed_with_another(pooled, tmp_path):
    source, questions, _ = pooled
    take(source, questions, tmp_path / "out", "music-avqa", "visual=res18")
    with pytest.raises(InputError, match="begun with dtype='float16'"):
        take(source, questions, tmp_path / "out", "music-avqa", "visual=res18", "dtype=float32")
    ask(questions, {"00000001": "train"})
    with pytest.raises(InputError, match="the question file is not the one"):
        take(source, questions, tmp_path / "out", "music-avqa", "visual=res18")


@unit
def test_a_wrong_folder_is_told_with_what_there_is(pooled, tmp_path):
    source, questions, _ = pooled
    with pytest.raises(InputError, match=r"did you mean 'res18'.*there are: res18, vggish"):
        take(source, questions, tmp_path / "out", "music-avqa")
    with pytest.raises(InputError, match="avmend corpus music_avqa"):
        take(source, tmp_path / "avqa-train.json", tmp_path / "out", "music-avqa")
    ask(questions, {"nobody": "train"})
    with pytest.raises(
        InputError, match="'nobody' is the first that is asked about, '00000001' the first that there is"
    ):
        take(source, questions, tmp_path / "out", "music-avqa", "visual=res18")
    ask(questions, {"00000001": "train"})
    (source / "res18" / "00000001.npy").write_bytes(b"")
    with pytest.raises(InputError, match="no clip could be imported; the first, '00000001': undecodable"):
        take(source, questions, tmp_path / "out", "music-avqa", "visual=res18")
    assert "undecodable" in (tmp_path / "out" / IMPORT_FILE).read_text()


@unit
def test_pstp_patches_class_token_and_question_files(tmp_path, capsys):
    source = tmp_path / "feats"
    long = save(source / "clip_patch-level_vit_b32" / "a.npy", arrays(1, 63, 50, 512))
    save(source / "clip_patch-level_vit_b32" / "b.npy", arrays(2, 60, 50, 512))
    for clip in "ab":
        save(source / "vggish" / f"{clip}.npy", arrays(3, 60, 128))
    rows = [("7", "a", "train", "What is it?"), ("8", "b", "test", "Who?"), ("7-2", "a", "train", "What is it?")]
    rows.append(("9", "b", "test", "Where?"))
    texts = {name: save(source / "clip_qst" / f"{name}.npy", arrays(int(name), 1, 512)) for name in ("7", "8", "99")}
    words = {name: save(source / "clip_word" / f"{name}.npy", arrays(9, 1, 77, 512)) for name in ("7", "8", "9")}
    asked = [Question(id=i, clip=c, question=q, answer="x", type="Visual Counting", split=s) for i, c, s, q in rows]
    notes = take(source, save_questions(tmp_path / "q.jsonl", asked), tmp_path / "out", "pstp", "length=fit")
    spec = sequence_spec(DatasetInfo.load(tmp_path / "out"))
    assert (spec.places, spec.frame_token, spec.rows, spec.visual) == (49, True, 50, 512)
    np.testing.assert_array_equal(samples(tmp_path / "out")["a"].arrays["visual"], long[:60].astype(np.float16))
    own = samples(tmp_path / "out" / "questions")
    assert {name: sample.meta.split for name, sample in own.items()} == {"7": "train", "7-2": "train", "8": "test"}
    for name, sample in own.items():
        base = name.partition("-")[0]
        np.testing.assert_array_equal(sample.arrays["question"], texts[base].astype(np.float16))
        np.testing.assert_array_equal(sample.arrays["words"], words[base].astype(np.float16))
    assert avmend.main(["shards", "verify", str(tmp_path / "out")]) == 0
    assert f"{tmp_path / 'out' / 'questions'}: 2 shards" in capsys.readouterr().out
    said = {(note.what, note.question or note.clip, note.outcome) for note in notes}
    assert said == {
        ("rows cut or repeated", "a", "imported"),
        ("missing file", "9", "left out"),
        ("question without features", "9", "left out"),
        ("features without question", "99", "left out"),
    }


def avqa_files(source: Path, ids: list[int]) -> dict[str, np.ndarray]:
    """The three files with their rows in the order of `ids`, and the map of names."""
    h5py = pytest.importorskip("h5py")
    source.mkdir()
    shapes = {
        "avqa_vlaudio_PANNs_feat.h5": ("vlaudio_features", (2048,)),
        "avqa_appearance_resnet101_feat.h5": ("resnet_features", (8, 16, 2048)),
        "avqa_motion_resnext101_feat.h5": ("resnext_features", (8, 2048)),
    }
    found = {}
    for seed, (file, (name, shape)) in enumerate(shapes.items()):
        order = ids[::-1] if seed == 1 else ids  # each file has an order of its own
        by_id = {number: arrays(100 * seed + number, *shape) for number in ids}
        with h5py.File(source / file, "w") as opened:
            opened["ids"] = np.array(order)
            opened[name] = np.stack([by_id[number] for number in order])
        found |= {f"{name}/{number}": array for number, array in by_id.items()}
    return found


@unit
def test_hdf5_rows_are_found_by_their_ids_in_whatever_order(tmp_path):
    h5py = pytest.importorskip("h5py")
    source = tmp_path / "feats"
    stored = avqa_files(source, [30, 10, 20])
    (source / "video_map.json").write_text(json.dumps({"x_000010": 10, "x_000020": 20, "y_000030": 30, "z": 40}))
    asked = ask(tmp_path / "q.jsonl", {"x_000010": "train", "x_000020": "val", "y_000030": "train", "z": "val"})
    notes = take(source, asked, tmp_path / "out", "avqa-hdf5")
    spec = sequence_spec(DatasetInfo.load(tmp_path / "out"))
    assert (spec.audio, spec.visual, spec.steps, spec.places, spec.frame_token) == (2048, 2048, 8, 16, True)
    for clip, number in (("x_000010", 10), ("x_000020", 20), ("y_000030", 30)):
        sample = samples(tmp_path / "out")[clip]
        motion, frames = stored[f"resnext_features/{number}"], stored[f"resnet_features/{number}"]
        np.testing.assert_array_equal(sample.arrays["visual"][:, 0], motion.astype(np.float16))
        np.testing.assert_array_equal(sample.arrays["visual"][:, 1:], frames.astype(np.float16))
        sound = stored[f"vlaudio_features/{number}"].astype(np.float16)
        np.testing.assert_array_equal(sample.arrays["audio"], np.stack([sound] * 8))
        assert sample.meta.duration == 10.0
    assert [(note.what, note.clip) for note in notes] == [("question without features", "z")]
    info = DatasetInfo.load(tmp_path / "out")
    both = [stored[f"{name}/{n}"] for n in (30, 10) for name in ("resnext_features", "resnet_features")]
    want = np.concatenate([x.reshape(-1, 2048) for x in both]).astype(np.float64)
    np.testing.assert_allclose(info.normalisation.visual.mean, want.mean(0), rtol=1e-5)

    with h5py.File(source / "avqa_appearance_resnet101_feat.h5", "r+") as opened:
        opened["resnet_features"][1] = 0  # id 10: its extraction failed
        opened["ids"][2] = 20  # as that of row 0 is, in place of 30
    notes = take(source, asked, tmp_path / "failed", "avqa-hdf5", "visual=appearance", "partial=keep")
    said = {(note.what, note.clip or note.file) for note in notes if not note.question}
    file = "avqa_appearance_resnet101_feat.h5"
    assert said >= {("all zeros", "x_000010"), ("id of several rows", f"{file}: ids"), ("missing file", "x_000020")}
    assert {clip: set(sample.arrays) for clip, sample in samples(tmp_path / "failed").items()} == {
        clip: {"audio"} for clip in ("x_000010", "x_000020", "y_000030")
    }


@unit
def test_hdf5_files_that_lead_elsewhere_or_are_damaged_are_refused(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py")
    source = tmp_path / "feats"
    avqa_files(source, [1])
    (source / "video_map.json").write_text('{"a": 1}')
    asked = ask(tmp_path / "q.jsonl", {"a": "train"})
    file = source / "avqa_motion_resnext101_feat.h5"
    whole = file.read_bytes()
    with h5py.File(file, "r+") as opened:
        del opened["resnext_features"]
        opened["resnext_features"] = h5py.ExternalLink("avqa_vlaudio_PANNs_feat.h5", "vlaudio_features")
    with pytest.raises(InputError, match="has no dataset 'resnext_features'"):
        take(source, asked, tmp_path / "out", "avqa-hdf5")
    with h5py.File(file, "r+") as opened:
        del opened["resnext_features"]
        opened["resnext_features"] = np.zeros((1, 8, 1024), np.float32)
    with pytest.raises(InputError, match=r"\[1, 8, 1024\].*\n.*\[N, 8, 2048\]"):
        take(source, asked, tmp_path / "out", "avqa-hdf5")
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="can't be read as HDF5"):
        take(source, asked, tmp_path / "out", "avqa-hdf5")
    (source / "video_map.json").write_text('{"a": 1, "b": 1}')
    with pytest.raises(InputError, match="no map of videos to numbers"):
        take(source, asked, tmp_path / "out", "avqa-hdf5")
    (source / "video_map.json").write_text('{"a": 1}')
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(InputError, match=r"extra 'hdf5': pip install 'avmend\[hdf5\]'"):
        take(source, asked, tmp_path / "out", "avqa-hdf5")


@unit
def test_plain_folders_have_the_sizes_of_their_files(tmp_path):
    source = tmp_path / "feats"
    save(source / "ast" / "a.npy", arrays(1, 12, 5))
    maps = save(source / "frames" / "a.npy", arrays(2, 12, 6, 2, 2))
    asked = ask(tmp_path / "q.jsonl", {"a": "train"})
    take(source, asked, tmp_path / "maps", "plain", "audio=ast", "visual=frames", "seconds=5")
    spec = sequence_spec(DatasetInfo.load(tmp_path / "maps"))
    assert (spec.audio, spec.visual, spec.steps, spec.places) == (5, 6, 12, 4)
    sample = samples(tmp_path / "maps")["a"]
    np.testing.assert_array_equal(sample.arrays["visual"][3, 2], maps[3, :, 1, 0].astype(np.float16))
    assert sample.meta.duration == 60
    tokens = save(source / "frames" / "a.npy", arrays(2, 12, 7, 6))
    take(source, asked, tmp_path / "tokens", "plain", "audio=ast", "visual=frames", "frame_token=true")
    spec = sequence_spec(DatasetInfo.load(tmp_path / "tokens"))
    assert (spec.places, spec.frame_token) == (6, True)
    np.testing.assert_array_equal(samples(tmp_path / "tokens")["a"].arrays["visual"], tokens.astype(np.float16))
    save(source / "frames" / "a.npy", arrays(2, 11, 6))
    with pytest.raises(InputError, match="sound has 12 rows, pictures have 11"):
        take(source, asked, tmp_path / "out", "plain", "audio=ast", "visual=frames")
    save(source / "frames" / "a.npy", arrays(2, 11))
    with pytest.raises(InputError, match=r"shape \[11\], not \[T, D\]"):
        take(source, asked, tmp_path / "out", "plain", "audio=ast", "visual=frames")


@unit
def test_the_command_tells_what_it_did_and_would_do(pooled, tmp_path, capsys):
    source, questions, _ = pooled
    (source / "res18" / "c.npy").write_bytes(b"")
    out = tmp_path / "out"
    command = ["features", "import", "--layout", "music-avqa", "--source", str(source), "--questions", str(questions)]
    command += ["--out", str(out), "visual=res18", *FEW]
    assert avmend.main([*command, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "5 of 5 clips have features" in printed
    assert "would make 4 of 4 shards" in printed
    assert not out.exists()
    assert avmend.main(command) == 0
    printed = capsys.readouterr().out
    assert "train: features of 2 clips in 1 shards" in printed
    assert "1 undecodable (left out)\n    the first, res18/c.npy: no .npy of numbers" in printed
    assert avmend.main(command) == 0
    assert "already finished" in capsys.readouterr().out
    assert avmend.main([*command[:2], "--layout", "music-avka", *command[4:]]) == 2
    assert "did you mean 'music-avqa'" in capsys.readouterr().err
    assert avmend.main([*command, "visual=res19"]) == 2
    assert "visual" in capsys.readouterr().err


@unit
def test_a_layout_of_a_plugin_is_chosen_by_its_name(pooled, tmp_path, monkeypatch, capsys):
    source, questions, _ = pooled
    monkeypatch.setattr(LAYOUTS, "_members", dict(LAYOUTS._members))
    ours = LAYOUTS["music-avqa"]
    LAYOUTS.register("mine", dataclasses.replace(ours, about="as MUSIC-AVQA"))
    assert avmend.main(["list", "layouts"]) == 0
    assert "mine        as MUSIC-AVQA" in capsys.readouterr().out
    take(source, questions, tmp_path / "out", "mine", "visual=res18")
    assert DatasetInfo.load(tmp_path / "out").preprocessing["layout"] == "mine"


@unit
def test_its_help_is_that_of_the_layout(capsys):
    for words, field in ((["--layout", "plain"], "frame_token:"), ([], "partial:")):
        with pytest.raises(SystemExit):
            avmend.main(["features", "import", *words, "--help"])
        printed = capsys.readouterr().out
        assert f"\n  {field}" in printed
        assert ("\n  frame_token:" in printed) == bool(words)


@on_ray
def test_on_ray_the_bytes_are_the_same(pooled, tmp_path, ray_cluster):
    source, questions, _ = pooled
    (source / "res18" / "c.npy").write_bytes(b"")
    for name, workers in (("here", 0), ("ray", 2)):
        take(source, questions, tmp_path / name, "music-avqa", "visual=res18", f"workers={workers}")
    assert digests(tmp_path / "here") == digests(tmp_path / "ray")
    assert importing.PLAN_FILE in digests(tmp_path / "ray")
