"""What the audit measures of one clip, against values known beforehand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from models.fbank import log_mel
from pipelines.audio import Span
from pipelines.audit import picture, sound
from pipelines.audit.agreement import agreement
from pipelines.audit.clip import Measures
from pipelines.audit.flags import flags_of, unchecked
from pipelines.audit.settings import AuditConfig
from pipelines.audit.sources import recorded_facts
from pipelines.audit.streams import StreamFacts, mix_loss, stream_facts
from tests.fixtures.media import make_clip, run_ffmpeg

pytestmark = pytest.mark.unit
RATE = 16000
CONFIG = AuditConfig()


def tone(hertz: float, amplitude: float = 1.0, seconds: float = 1.0) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(int(RATE * seconds)) / RATE)


def int16(wave: np.ndarray) -> np.ndarray:
    return np.round(32767 * np.clip(wave, -1, 1)).astype(np.int16)


@pytest.mark.parametrize(("hertz", "amplitude"), [(1000, 1.0), (200, 0.1), (4000, 0.01)])
def test_the_level_of_a_sine_is_its_power(hertz, amplitude):
    levels = sound.frame_levels(log_mel(int16(tone(hertz, amplitude))))
    assert np.median(levels) == pytest.approx(20 * np.log10(amplitude) - 3.01, abs=0.7)


def test_silence_is_told_from_a_whisper():
    silence = sound.frame_levels(log_mel(np.zeros(RATE, np.int16)))
    assert sound.silent_share(silence, CONFIG.silence_db) == 1
    half = np.concatenate([np.zeros(RATE), tone(500, 0.01)])
    levels = sound.frame_levels(log_mel(int16(half)))
    assert sound.silent_share(levels, CONFIG.silence_db) == pytest.approx(0.5, abs=0.02)


def test_a_steady_tone_does_not_vary_and_speech_like_bursts_do():
    rng = np.random.default_rng(0)
    bursts = rng.normal(0, 0.1, RATE) * (np.sin(2 * np.pi * 3 * np.arange(RATE) / RATE) > 0)
    assert sound.variation(log_mel(int16(tone(440, 0.3)))) < CONFIG.steady / 5
    assert sound.variation(log_mel(int16(rng.normal(0, 0.1, RATE)))) == pytest.approx(0.7, abs=0.2)
    assert sound.variation(log_mel(int16(bursts))) > 2


def test_clipped_sound_has_a_plateau_whatever_its_gain():
    rng = np.random.default_rng(0)
    music = tone(220, 0.5) + tone(331, 0.4) + rng.normal(0, 0.1, RATE)
    cut = np.clip(2 * music, -1, 1)
    plateau = np.mean(np.abs(2 * music) >= 1)
    for gain in (1.0, 0.1):
        assert sound.clipped_share(int16(gain * cut)) == pytest.approx(plateau, abs=0.03)
        assert sound.clipped_share(int16(gain * music / np.abs(music).max())) == 0
        assert sound.clipped_share(int16(gain * tone(307.3))) == 0
    assert sound.clipped_share(np.zeros(0, np.int16)) == 0


def test_channels_that_cancel_each_other():
    left, right = np.random.default_rng(0).normal(0, 0.1, (2, RATE))
    assert mix_loss(np.stack([left, left], 1)) == pytest.approx(0, abs=1e-6)
    assert mix_loss(np.stack([left, right], 1)) == pytest.approx(3.01, abs=0.2)
    assert mix_loss(np.stack([left, -left], 1)) == 99
    assert mix_loss(np.zeros((RATE, 2))) is None


def test_streams_that_begin_apart(tmp_path):
    tone_input = ("-f", "lavfi", "-i", "sine=1000:d=2")
    picture_input = ("-f", "lavfi", "-i", "color=red:s=64x64:r=10:d=2")
    late = tmp_path / "late.mp4"
    title = ("-metadata", "title=Stream #0:0: Audio: aac, start 7.0")
    run_ffmpeg(*picture_input, "-itsoffset", "1.5", *tone_input, *title, "-map", "0", "-map", "1", late)
    plain = make_clip(tmp_path / "plain.mp4")
    limits = {"max_seconds": 10.0, "timeout": 20.0}
    assert stream_facts(str(late), Span(), **limits).offset == pytest.approx(1.5, abs=0.05)
    assert stream_facts(str(plain), Span(), **limits).offset == pytest.approx(0, abs=0.05)
    assert stream_facts(str(tmp_path / "none.mp4"), Span(), **limits).offset is None


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("default", [0, 1])
def test_channels_are_those_of_the_sound_that_is_played_by_default(tmp_path, suffix, default):
    """Of two sounds the second one cancels itself; AAC leaves some of it."""
    graph = "sine=500:d=1,asplit[a][b];[a]pan=stereo|c0=c0|c1=c0[same];[b]pan=stereo|c0=c0|c1=-1*c0[opposite]"
    marks = ("-disposition:a:0", "0", "-disposition:a:1", "0", f"-disposition:a:{default}", "default")
    maps = ("-map", "[same]", "-map", "[opposite]", "-c:a", "aac")
    run_ffmpeg("-filter_complex", graph, *maps, *marks, tmp_path / f"a.{suffix}")
    loss = stream_facts(str(tmp_path / f"a.{suffix}"), Span(), max_seconds=10.0, timeout=20.0).mix_loss
    assert loss is not None
    assert loss > 20 if default else loss == pytest.approx(0, abs=0.5)


def scene(seed: int = 0, count: int = 5) -> np.ndarray:
    """A textured picture that stands still."""
    pattern = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return np.repeat(np.kron(pattern, np.ones((8, 8, 1), np.uint8))[None], count, axis=0)


def test_a_mouth_that_moves_is_motion_and_noise_of_encoding_is_not():
    still = scene()
    noisy = np.clip(still + np.random.default_rng(1).integers(-4, 5, still.shape), 0, 255).astype(np.uint8)
    speaking = still.copy()
    speaking[1::2, 60:72, 40:56] //= 3
    assert picture.motion(picture.cells(still)).max() == 0
    assert picture.motion(picture.cells(noisy)).max() < CONFIG.frozen
    assert picture.motion(picture.cells(speaking)).min() > CONFIG.frozen


def test_blur_rises_with_blur():
    sharp = scene()
    found = [picture.blur(gaussian_filter(sharp, (0, s, s, 0))) for s in (0, 1, 2, 4)]
    assert found == sorted(found)
    assert found[0] < 0.3
    assert found[-1] > CONFIG.blurred


def test_a_small_picture_that_was_enlarged_is_not_blurred_by_that():
    from PIL import Image

    large = np.stack([np.asarray(Image.fromarray(f).resize((224, 224), Image.Resampling.BICUBIC)) for f in scene()])
    assert picture.blur(large) < CONFIG.blurred - 0.12


def test_agreement_of_motion_with_onsets():
    rng = np.random.default_rng(0)
    beats = rng.random(12)
    onsets = np.repeat(beats, 50)
    times = tuple(0.5 * i for i in range(13))
    assert agreement(onsets, 20 * beats, times) == pytest.approx(1)
    assert agreement(onsets, 20 * (1 - beats), times) == pytest.approx(-1)
    assert abs(agreement(onsets, 20 * rng.random(12), times)) < 0.8
    assert agreement(onsets, beats[:3], times[:4]) is None
    assert agreement(np.ones(600), beats, times) is None


def test_reasons_go_first():
    assert flags_of(Measures(level_db=-90, variation=0.0, mix_loss_db=99), CONFIG) == ("cancelled_stereo",)
    assert flags_of(Measures(level_db=-90, variation=0.0), CONFIG) == ("silent",)
    assert flags_of(Measures(brightness=3, contrast=0.1, motion=0, blur=1), CONFIG) == ("black",)
    assert flags_of(Measures(brightness=99, contrast=0.1, motion=0, blur=1), CONFIG) == ("constant_visual",)
    assert flags_of(Measures(brightness=99, contrast=40, motion=0, blur=0.2), CONFIG) == ("frozen",)
    assert flags_of(Measures(), CONFIG) == ()


def test_a_flag_that_needs_what_is_not_at_hand_is_undecided():
    silent_film = Measures(brightness=99, contrast=40, motion=9, blur=0.2, visual_s=1)
    assert unchecked(silent_film) == ()
    both = silent_film.model_copy(update={"level_db": -20.0, "audio_s": 1.0, "variation": 1.0})
    assert set(unchecked(both)) == {"clipped", "cancelled_stereo", "clock_offset"}


def test_thresholds_decide():
    quiet = Measures(level_db=-50, variation=1.0)
    assert flags_of(quiet, CONFIG) == ()
    assert flags_of(quiet, AuditConfig(silence_db=-40)) == ("silent",)
    assert flags_of(Measures(agreement=-0.5), AuditConfig(agreement=0.0)) == ("low_agreement",)


def test_what_the_json_says_of_the_file_is_taken():
    audio = SimpleNamespace(channel="loudest (mean cancelled)")
    assert recorded_facts(SimpleNamespace(offset=0.7, audio=audio)) == StreamFacts(0.7, 99)
    assert recorded_facts(SimpleNamespace(offset=None, audio=SimpleNamespace(channel="mean"))) == StreamFacts()
    assert recorded_facts(SimpleNamespace(audio=SimpleNamespace())) == StreamFacts()
