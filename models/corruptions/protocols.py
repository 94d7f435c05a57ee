"""The corruptions of two published protocols, as records; no picture or sound code is imported before one is used.

AVROBUSTBENCH (Maharana et al., NeurIPS 2025): fifteen, each of sound and picture at once. READ (Yang et al., ICLR 2024:
VGGSound-C, Kinetics50-C): ImageNet-C's fifteen of the picture, six of the sound, one modality at a time. Both release
code that draws unseeded and takes files in no order; here every draw comes from (seed, sample id).
"""

from __future__ import annotations

from models.corruptions.record import Corrupting, Corruption
from models.registry import deferred

AVROBUSTBENCH, READ = "avrobustbench", "read"


def _of(reference: str) -> Corrupting:
    return deferred(f"models.corruptions.{reference}")


def _both(kind: str, about: str, picture: str, sound: str, overlay: str = "", recording: str = "") -> Corruption:
    return Corruption(kind, AVROBUSTBENCH, about, _of(picture), _of(f"sounds:{sound}"), overlay, recording)


CORRELATED = (
    _both("gaussian", "Gaussian noise on the picture, white noise", "pictures:gaussian", "gaussian"),
    _both("impulse", "salt and pepper, spikes", "pictures:impulse", "impulse"),
    _both("shot", "Poisson noise on both", "pictures:shot", "shot"),
    _both("speckle", "noise that grows with the value, on both", "pictures:speckle", "speckle"),
    _both("compression", "JPEG, low-pass", "pictures:jpeg", "compression"),
    _both("snow", "snow, a recording of it", "weather:snow", "recorded", recording="snow"),
    _both("frost", "an overlay of ice, a recording", "weather:frost", "recorded", "frost", "frost"),
    _both("spatter", "drops on the lens, a recording of drops", "weather:spatter", "recorded", recording="water_drops"),
    _both("wind", "motion blur, a recording of wind", "lenses:motion", "recorded", recording="wind"),
    _both("rain", "rain, a recording of it", "weather:rain", "recorded", recording="rain"),
    _both(
        "underwater", "less red, blur and haze, a recording", "pictures:underwater", "recorded", recording="underwater"
    ),
    _both("concert", "glaring light, a recording of a concert", "pictures:brightness", "recorded", recording="concert"),
    _both(
        "smoke",
        "haze, a recording of fire and sirens",
        "weather:smoke",
        "recorded",
        recording="crackling_fire_and_siren",
    ),
    _both(
        "crowd", "an overlay of people, a recording of talk", "pictures:occluded", "recorded", "crowd", "crowd_speech"
    ),
    _both("interference", "a turned picture, pieces of silence", "pictures:turned", "interference"),
)

READ_PICTURES = tuple(
    Corruption(kind, READ, f"the picture: {about}", picture=_of(reference), overlay=overlay, jpeg=85)
    for kind, about, reference, overlay in (
        ("gaussian_noise", "Gaussian noise", "pictures:gaussian", ""),
        ("shot_noise", "Poisson noise", "pictures:shot", ""),
        ("impulse_noise", "salt and pepper", "pictures:impulse", ""),
        ("defocus_blur", "out of focus", "lenses:defocus", ""),
        ("glass_blur", "seen through frosted glass", "lenses:glass", ""),
        ("motion_blur", "motion blur", "lenses:motion", ""),
        ("zoom_blur", "the mean of enlargements", "lenses:zoom", ""),
        ("snow", "snow", "weather:snow", ""),
        ("frost", "an overlay of ice", "weather:frost", "frost"),
        ("fog", "a plasma fractal laid over it", "weather:fog", ""),
        ("brightness", "more light", "pictures:brightness", ""),
        ("contrast", "less contrast", "pictures:contrast", ""),
        ("elastic_transform", "points and pixels moved", "pictures:elastic", ""),
        ("pixelate", "larger pixels", "pictures:pixelate", ""),
        ("jpeg_compression", "JPEG", "pictures:jpeg", ""),
    )
)
READ_SOUNDS = (
    Corruption("gaussian_noise", READ, "the sound: white noise", sound=_of("sounds:read_gaussian")),
    *(
        Corruption(kind, READ, f"the sound: a recording of {kind}", sound=_of("sounds:read_recorded"), recording=kind)
        for kind in ("traffic", "crowd", "rain", "thunder", "wind")
    ),
)
