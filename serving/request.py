"""What is asked about one clip: its files, a question, and how it is to be ruined before. Free of torch and Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from models.settings import KINDS, MODALITIES, RELEASED, SEVERITIES, STRENGTHS, Modality
from shards.errors import InputError, nearest

FILES = ("clip", "audio", "image")
TEXTS = ("question", "run", "without", "noise_audio", "noise_visual", "kind_audio", "kind_visual", "black", "view")
FLAGS = {"true": True, "1": True, "on": True, "false": False, "0": False, "off": False, "": False}
LONGEST = 1000  # characters of a question


@dataclass(frozen=True)
class Upload:
    """A file that was sent; `name` is shown and tells a still picture by its suffix, nothing more."""

    name: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Ruin:
    """What is done to a clip before it is shown to the runs.

    Attributes:
        without: modalities that are taken away.
        noise: severity, 1 to 5, by modality.
        kinds: of the noise, by modality; "gaussian" where none is given.
        black: the picture is made black, before any noise.
    """

    without: tuple[Modality, ...] = ()
    noise: Mapping[Modality, int] = field(default_factory=dict)
    kinds: Mapping[Modality, str] = field(default_factory=dict)
    black: bool = False

    def kind(self, modality: Modality) -> str:
        """The kind of noise of a modality."""
        return self.kinds.get(modality, "gaussian")

    def said(self, modality: Modality) -> str:
        """What happens to a modality that is there: "clean", "taken away", "gaussian 3", "black, gaussian 3"."""
        if modality in self.without:
            return "taken away"
        parts = ["black"] if self.black and modality == "visual" else []
        parts += [f"{self.kind(modality)} {self.noise[modality]}"] if modality in self.noise else []
        return ", ".join(parts) or "clean"


@dataclass(frozen=True)
class PredictRequest:
    """A question about a clip.

    Attributes:
        files: by field: `clip`, or `audio` and/or `image`.
        runs: names of those that are asked; empty: all.
        view: the answer is to hold pictures of what the runs met.
    """

    files: Mapping[str, Upload]
    question: str | None = None
    runs: tuple[str, ...] = ()
    ruin: Ruin = Ruin()
    view: bool = False

    @property
    def name(self) -> str:
        """Of the clip, as `avmend predict` prints it."""
        return " + ".join(upload.name for upload in self.files.values())

    @property
    def field(self) -> str:
        """The fields of its files."""
        return ", ".join(self.files)


def request_of(files: Mapping[str, Upload], texts: Mapping[str, Sequence[str]]) -> PredictRequest:
    """A request from the fields of a form.

    Raises:
        InputError: files that make no clip, an unknown field, or a value that does not fit.
    """
    for name in (*files, *texts):
        if name not in (*FILES, *TEXTS) or (name in FILES) != (name in files):
            what = "a file" if name in FILES else "a text" if name in TEXTS else "unknown"
            remedy = f"{nearest(name, (*FILES, *TEXTS))}files: {', '.join(FILES)}; texts: {', '.join(TEXTS)}"
            raise InputError(f"the form's field '{name[:80]}' is {what}", field=name[:80], remedy=remedy)
    _check_files(files)
    for name, upload in files.items():
        if not upload.data:
            remedy = "send the whole file; if it really is empty, leave it out"
            raise InputError(f"truncated: {upload.name} is empty", field=name, remedy=remedy)
    ordered = {name: files[name] for name in FILES if name in files}
    return PredictRequest(ordered, _question(texts), tuple(texts.get("run", ())), ruin_of(texts), _flag(texts, "view"))


def _check_files(files: Mapping[str, Upload]) -> None:
    remedy = "send 'clip', a file with sound, picture or both; or 'audio' and 'image', or one of them"
    if not files:
        raise InputError("no clip was sent", field="clip", remedy=remedy)
    if "clip" in files and len(files) > 1:
        raise InputError("both a clip and files of its own for sound or picture", field="clip", remedy=remedy)


def ruin_of(texts: Mapping[str, Sequence[str]]) -> Ruin:
    """How a clip is to be ruined.

    Raises:
        InputError: a value that does not fit; names the nearest.
    """
    without = [word for text in texts.get("without", ()) for word in text.replace(",", " ").split()]
    for word in without:
        _one_of("without", word, MODALITIES)
    noise, kinds = {}, {}
    for modality in get_args(Modality):
        if (text := _single(texts, f"noise_{modality}")) and text != "0":
            noise[modality] = int(_one_of(f"noise_{modality}", text, [str(n) for n in SEVERITIES]))
        if text := _single(texts, f"kind_{modality}"):
            kinds[modality] = _one_of(f"kind_{modality}", text, list(KINDS[modality]))
    for modality, severity in noise.items():
        kind = kinds.get(modality, "gaussian")
        if kind.startswith(RELEASED) and severity not in STRENGTHS:
            remedy = f"give one of: {', '.join(map(str, STRENGTHS))}"
            raise InputError(f"{kind} has two strengths, not {severity}", field=f"noise_{modality}", remedy=remedy)
    return Ruin(tuple(m for m in MODALITIES if m in without), noise, kinds, _flag(texts, "black"))


def _question(texts: Mapping[str, Sequence[str]]) -> str | None:
    text = _single(texts, "question")
    if len(text) > LONGEST:
        raise InputError(f"a question of {len(text)} characters", field="question", remedy=f"at most {LONGEST}")
    return text or None


def _single(texts: Mapping[str, Sequence[str]], name: str) -> str:
    values = texts.get(name, ())
    if len(values) > 1:
        raise InputError(f"'{name}' was sent {len(values)} times", field=name, remedy="send it once")
    return values[0].strip() if values else ""


def _flag(texts: Mapping[str, Sequence[str]], name: str) -> bool:
    return FLAGS[_one_of(name, _single(texts, name).lower(), list(FLAGS))]


def _one_of(name: str, value: str, valid: Sequence[str]) -> str:
    if value not in valid:
        shown = value if len(value) <= 80 else f"{value[:80]}..."
        remedy = f"{nearest(shown, valid)}give one of: {', '.join(word for word in valid if word)}"
        raise InputError(f"'{shown}' does not fit", field=name, remedy=remedy)
    return value
