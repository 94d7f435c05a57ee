"""What is written in a file, or is its name, never decides what is ingested."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.decode import Decoded, Request, decode
from tests.fixtures.clock import base_clip

pytestmark = pytest.mark.integration

# Words that FFmpeg's own messages are made of, among arbitrary text.
WORDS = st.sampled_from(
    ["Truncated", "partial file", "Duration: 00:59:00.00, start: 5.0", "No such file or directory", "%03d", "%d",
     "[error] ", "moov atom not found", "Stream #0:0: Video: none", "(attached pic)", "\nInput #0, hls, from 'x':",
     "rotation of 90.00 degrees", "corrupt decoded frame", "concealing 9 DC", "Cannot allocate memory",
     "Estimating duration from bitrate, this may be inaccurate", "File ended prematurely at pos. 1 (0x1)"]
)  # fmt: skip
TEXT = st.lists(
    WORDS | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12), max_size=4
)
TEXTS = TEXT.map("".join)
NAMES = TEXTS.map(lambda text: text.replace("/", "_").encode()[:80].decode(errors="ignore"))


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return base_clip(tmp_path_factory.mktemp("texts"), "base.mkv", "-g", "10")


def written(source: Path, target: Path, title: str, comment: str, tag: str, chapter: str) -> None:
    """The same packets in another file, with these texts in it."""
    with av.open(str(source)) as old, av.open(f"file:{target}", "w", format="matroska") as new:
        new.metadata.update({"title": title, "comment": comment, tag: comment})
        streams = {s.index: new.add_stream_from_template(s) for s in old.streams}
        for stream in streams.values():
            stream.metadata.update({"handler_name": chapter, "title": title, "language": "und"})
        second = Fraction(1, 1000)
        mark: Any = {"id": 1, "start": 0, "end": 2000, "time_base": second, "metadata": {"title": chapter}}
        new.set_chapters([mark])
        for packet in old.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)


def same(one: Decoded, other: Decoded) -> bool:
    return (
        np.array_equal(one.audio, other.audio)
        and np.array_equal(one.frames, other.frames)
        and (one.audio_info, one.visual_info, one.frame_times)
        == (other.audio_info, other.visual_info, other.frame_times)
    )


@pytest.mark.parametrize(("in_process", "examples"), [(True, 20), (False, 4)], ids=["pyav", "ffmpeg"])
def test_texts_decide_nothing(base, tmp_path, in_process, examples):
    written(base, tmp_path / "plain.mkv", "", "", "artist", "")
    plain = decode(Request(path=str(tmp_path / "plain.mkv"), frames=4, size=16, in_process=in_process))
    assert plain.audio is not None
    assert plain.frames is not None

    @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(NAMES, NAMES, TEXTS, TEXTS, st.sampled_from(["artist", "Duration", "encoder"]), TEXTS)
    def check(folder, name, title, comment, tag, chapter):
        target = tmp_path / f"x{folder}" / f"{name}.mkv"
        target.parent.mkdir(exist_ok=True)
        written(base, target, title, comment, tag, chapter)
        clip = decode(Request(path=str(target), frames=4, size=16, in_process=in_process))
        target.unlink()
        assert same(clip, plain)

    check()
