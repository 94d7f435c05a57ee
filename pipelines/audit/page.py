"""audit.html: one file, nothing loaded from elsewhere, and all that comes from the corpus escaped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from pipelines.audit.assemble import FAILED, Shown, Summary
from pipelines.audit.duplicates import ClipFiles, Match
from pipelines.audit.settings import AuditConfig
from pipelines.thumbnails import data_url, heat
from shards.atomic import write_text
from shards.audit_file import FLAGS

PAGE_FILE = "audit.html"
TEMPLATE = Path(__file__).with_name("page.html")
MOST_LABELS = 400  # rows of the table by class
SHOWN_MEASURES = {  # flag -> the measure and unit that decided, and the field of its threshold
    "silent": ("level_db", "dB", "silence_db"),
    "constant_audio": ("variation", "Np", "steady"),
    "clipped": ("clipped", "of samples", "clipped"),
    "cancelled_stereo": ("mix_loss_db", "dB", "cancelled_db"),
    "short_audio": ("audio_s", "s", "short_s"),
    "black": ("brightness", "of 255", "black"),
    "constant_visual": ("contrast", "of 255", "flat"),
    "frozen": ("motion", "of 255", "frozen"),
    "blurred": ("blur", "of 1", "blurred"),
    "short_visual": ("visual_s", "s", "short_s"),
    "length_differs": ("audio_s", "s of sound", "length_s"),
    "clock_offset": ("offset_s", "s", "offset_s"),
    "low_agreement": ("agreement", "of 1", "agreement"),
}


@dataclass(frozen=True)
class Card:
    """One clip on the page.

    Attributes:
        strip, sound: data URLs of three frames and of the spectrogram; empty: it has none.
        says: the measure that decided, if one did.
    """

    id: str
    split: str
    labels: str
    flags: str
    says: str
    strip: str
    sound: str


def write_page(path: Path, summary: Summary, files: ClipFiles, source: str, config: AuditConfig) -> None:
    """Write the page of an audit."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    flags = [flag for flag in FLAGS if any(summary.by_split[split, flag] for split in summary.clips)]
    labels = sorted(summary.labels, key=lambda label: (-_flagged(summary, label), label))
    text = template.render(
        source=source,
        summary=summary,
        total=summary.clips.total(),
        flags=flags,
        meanings=FLAGS,
        flagged={flag: sum(summary.by_split[split, flag] for split in summary.clips) for flag in flags},
        limits={flag: _limit(flag, config) for flag in FLAGS},
        splits=list(summary.clips),
        labels=labels[:MOST_LABELS],
        labels_left=len(labels) - len(labels[:MOST_LABELS]),
        sections=[(flag, [_card(clip, flag, files) for clip in summary.examples[flag]]) for flag in _shown(summary)],
        pairs=[_pair(*pair, files) for pair in summary.pairs],
    )
    write_text(path, text)


def _shown(summary: Summary) -> Iterator[str]:
    """Flags of single clips that have examples, in order; duplicates are shown in pairs."""
    return (flag for flag in FLAGS if flag in summary.examples and (flag in SHOWN_MEASURES or flag == FAILED))


def _flagged(summary: Summary, label: str) -> int:
    return sum(summary.by_label[label, flag] for flag in FLAGS)


def _limit(flag: str, config: AuditConfig) -> str:
    if flag not in SHOWN_MEASURES:
        return ""
    field = SHOWN_MEASURES[flag][2]
    value = getattr(config, field)
    return f"{field}={value:g}" if value is not None else f"{field}: none set"


def _card(clip: Shown, flag: str, files: ClipFiles, hidden: Sequence[str] = ()) -> Card:
    record = clip.record
    says = record.failure or ""
    if flag in SHOWN_MEASURES:
        name, unit, _ = SHOWN_MEASURES[flag]
        says = f"{getattr(record.measures, name):.3g} {unit}"
        if flag == "length_differs":
            says += f", {record.measures.visual_s:.3g} s of picture"
    thumb, sound = files.thumb(clip.place), files.sound(clip.place)
    return Card(
        record.id,
        record.split,
        ", ".join(record.labels),
        ", ".join(name.replace("_", " ") for name in clip.flags if name not in (flag, *hidden)),
        says,
        data_url(thumb, "jpeg") if thumb else "",
        heat(sound, 0, 255) if len(sound) else "",
    )


def _pair(match: Match, a: Shown, b: Shown, files: ClipFiles) -> tuple[Card, Card, str]:
    said = [f"{name} {_alike(value)}" for name, value in (("sound", match.audio), ("picture", match.visual)) if value]
    if match.source:
        said.append("of the same file")
    hidden = [flag for flag in FLAGS if flag not in SHOWN_MEASURES]  # the pair itself says so
    return _card(a, "", files, hidden), _card(b, "", files, hidden), ", ".join(said)


def _alike(correlation: float) -> str:
    return "the same" if correlation == 1 else f"alike ({correlation:.2f})"
