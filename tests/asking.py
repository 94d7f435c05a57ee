"""Questions about small clips as sequence features on disk: what sounds, what is seen, and whether."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from shards.checkpoint import save_checkpoint
from shards.questions import Question, save_questions
from shards.schema import BackboneInfo, DatasetInfo, Normalisation, Statistics
from tests.builders import LABELS, meta, randomise, split_info
from trainers.avqa.config import QuestionConfig
from trainers.avqa.stages import question_stages
from trainers.journal import append_metrics
from trainers.run import logs
from trainers.train import CONFIG_FILE

STEPS, PLACES, AUDIO, VISUAL = 2, 4, 6, 8
SPEC = {"audio": AUDIO, "visual": VISUAL, "steps": STEPS, "places": PLACES, "frame_token": False}
SIZES: dict[str, dict[str, Any]] = {  # of the networks, as small as they get
    "avst": {"dim": 16, "heads": 2},
    "avsd": {"dim": 16},
    "lavit": {"dim": 16, "heads": 2, "language": 1, "visual": 1, "audio": 1, "cross": 1, "grid": 2},
    "pstp": {"dim": 16, "heads": 2, "segments": 2, "top_segments": 1, "top_patches": 2},
}
RMM = {"slots": 6, "question": 8}
AVR = {"channels": 8, "width": 8, "multipliers": [1], "timesteps": 4}
RECOVERY_SIZES: dict[str, dict[str, Any]] = {
    "zero": {},
    "rmm": RMM,
    "avr": AVR,
    "rmm_avr": {"rmm": RMM, "avr": AVR},
}
KINDS = ("Audio Naming", "Visual Naming", "Audio-Visual Existential")


def there(i: int) -> tuple[bool, bool]:
    """(sound there, picture there): every ninth clip is silent, another ninth is dark."""
    return i % 9 != 4, i % 9 != 7


def features(i: int, split: str, noise: float = 0.5) -> dict[str, np.ndarray]:
    """A clip's arrays: channel `kind` of either modality is raised; both modalities are of one kind."""
    rng, kind = np.random.default_rng([i, len(split)]), i % len(LABELS)
    arrays = {
        "audio": rng.normal(0, noise, (STEPS, AUDIO)),
        "visual": rng.normal(0, noise, (STEPS, PLACES, VISUAL)),
    }
    for x in arrays.values():
        x[..., kind] += 2
    return {name: (3 * x + 1).astype(np.float16) for name, x in arrays.items()}


def sequence_dataset(folder: Path, sizes: dict[str, int], gaps: bool = True) -> DatasetInfo:
    """Sequence features of `sizes` clips by split, seven a shard; with `gaps` some lack a modality."""
    splits, kept = {}, {}
    for split, n in sizes.items():
        records = []
        for i in range(n):
            audio, visual = there(i) if gaps else (True, True)
            members: dict = {"json": meta(f"{split}{i:03d}", LABELS[i % len(LABELS)], split, audio, visual)}
            arrays = features(i, split)
            members |= {f"{m}.npy": arrays[m] for m, t in (("audio", audio), ("visual", visual)) if t}
            records.append((members["json"].key, members))
        splits[split], kept[split] = split_info(folder, split, records, 7), records
    info = DatasetInfo(
        kind="features",
        preprocessing={"features": "sequence", "spec": SPEC},
        labels=LABELS,
        splits=splits,
        normalisation=Normalisation(**{m: _statistics(kept["train"], m) for m in ("audio", "visual")}),
        backbone=BackboneInfo(id="small", fingerprint="f" * 64, depth=None, variants=("clean",)),
    )
    info.save(folder)
    return info


def _statistics(records: list, modality: str) -> Statistics:
    name = f"{modality}.npy"
    rows = [m[name].astype(np.float64).reshape(-1, m[name].shape[-1]) for _, m in records if name in m]
    x = np.concatenate(rows)
    return Statistics(mean=tuple(x.mean(0)), std=tuple(x.std(0)), samples=len(rows))


def questions_about(sizes: dict[str, int], choices: bool = False) -> Iterator[Question]:
    """Three questions per clip, one of every kind."""
    for split, n in sizes.items():
        for i in range(n):
            name, other = LABELS[i % len(LABELS)], LABELS[(i + i // 3) % len(LABELS)]
            asked = ("What can be heard?", "What is to be seen in the picture?", f"Is there a {other}?")
            answers = (name, name, "yes" if other == name else "no")
            for j, (text, answer) in enumerate(zip(asked, answers, strict=True)):
                yield Question(
                    id=f"{split}-{i}-{j}",
                    clip=f"clip {split}{i:03d}",
                    question=text,
                    answer=answer,
                    type=KINDS[j],
                    split=split,
                    choices=(("yes", "no") if j == 2 else LABELS) if choices else None,
                )


def asking_world(root: Path, sizes: dict[str, int], gaps: bool = True) -> tuple[Path, Path]:
    """Features and questions on disk; their paths."""
    data = root / "media" / "features" / "small"
    sequence_dataset(data, sizes, gaps)
    return data, save_questions(root / "questions.jsonl", list(questions_about(sizes)))


def settings(root: Path, network: str = "avst", recovery: str = "zero", **more: Any) -> dict[str, Any]:
    """Fields of a small `avqa` run on the world in `root`."""
    values = {
        "data": root / "media" / "features" / "small",
        "questions": root / "questions.jsonl",
        "network": network,
        "sizes": SIZES[network],
        "recovery": recovery,
        "recovery_sizes": RECOVERY_SIZES[recovery],
        "epochs": 1,
        "batch_size": 8,
        "workers": 0,
        "cpus": 1,
    }
    return values | more


def saved_run(root: Path, name: str, config: QuestionConfig) -> Path:
    """A run as training leaves it, in no time: every parameter drawn at random."""
    (stage,) = question_stages(config)
    randomise(stage.objective, config.seed + 1)
    folder = root / "runs" / name
    save_checkpoint(folder / stage.name, stage.weights(), stage.meta)
    record = {"recipe": stage.name, "config": config.model_dump(mode="json")}
    (folder / CONFIG_FILE).write_text(json.dumps(record))
    logs(folder, stage.name).mkdir(parents=True)
    append_metrics(logs(folder, stage.name), 1, {"epoch_seconds": 2.0, "peak_memory_mb": 10.0})
    return folder
