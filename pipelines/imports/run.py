"""An import from plan to dataset.json and import.jsonl; Ray at its edge."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.imports.layout import Found, Members, places_of
from pipelines.imports.layouts import LAYOUTS
from pipelines.imports.notes import IMPORT_FILE, Note, What
from pipelines.imports.plan import ImportShard, asked_clips, asked_questions, shards_of, unasked_clips
from pipelines.imports.settings import ImportConfig
from pipelines.imports.shard import ImportLedger, Making, import_shard, lost_items, read_import_ledger
from pipelines.on_ray import run_tasks
from pipelines.resume import finish, keep_plan, remove_partial_files, split_info
from pipelines.running_stats import add, statistics
from shards.atomic import write_text
from shards.errors import InputError
from shards.lock import folder_lock
from shards.progress import Progress
from shards.questions import Question, load_questions
from shards.schema import SCHEMA_VERSION, BackboneInfo, DatasetInfo, Normalisation, canonical_json
from shards.sequence import SEQUENCE, SequenceSpec

PLAN_FILE = "import.json"
QUESTIONS = "questions"  # folder of the questions' own features, and what these are called in dataset.json
QUESTIONS_PER_SHARD = 256


@dataclass(frozen=True)
class Import:
    """Everything that is known before a byte is read.

    Attributes:
        shards, making: of the clips.
        asked: every question, with its clip.
        notes: what is noted already.
        question_shards, question_making: of the questions' own features; none where there are none.
    """

    layout: str
    config: ImportConfig
    found: Found
    asked: tuple[Question, ...]
    shards: tuple[ImportShard, ...]
    making: Making
    notes: tuple[Note, ...]
    question_shards: tuple[ImportShard, ...] = ()
    question_making: Making | None = None

    @property
    def spec(self) -> SequenceSpec:
        """Sizes of a clip's features."""
        audio, visual = self.found.members["audio"], self.found.members["visual"]
        token = self.found.frame_token
        places = places_of(visual) - token
        return SequenceSpec(
            audio=audio[0].width, visual=visual[0].width, steps=self.making.rows, places=places, frame_token=token
        )

    @property
    def fingerprint(self) -> str:
        """Of the kind of features: another folder of the same layout has the same."""
        kind = {"layout": self.layout, "members": _said(self.found.members), "frame_token": self.found.frame_token}
        return hashlib.sha256(canonical_json(kind).encode()).hexdigest()


def planned(source: Path, questions: Path, layout: str, config: ImportConfig) -> Import:
    """What an import would do; nothing is written.

    Raises:
        InputError: no such folder or questions, or no question has features.
    """
    source = Path(source).absolute()
    if Path(questions).suffix == ".json":
        remedy = "make questions.jsonl of it: avmend corpus music_avqa --source DIR --out DIR (or avqa)"
        raise InputError("is a published question file", file=questions, field="questions", remedy=remedy)
    asked = load_questions(questions)
    found = LAYOUTS[layout].find(config, source)
    items, notes = asked_clips(asked, found)
    if not any(item.entries for item in items):
        example = f"'{items[0].id}' is the first that is asked about" + (
            f", '{min(found.entries)}' the first that there is" if found.entries else ""
        )
        remedy = "give the questions about these clips, and the folder that holds the layout's folders"
        raise InputError(f"no question has features here: {example}", file=source, field="source", remedy=remedy)
    more, unasked = unasked_clips(items, found, config.unasked == "keep")
    rows = next(part.shape[0] for part in found.members["audio"] + found.members["visual"] if part.form != "clip")
    making = Making(source, found.members, rows, config)
    plan = Import(
        layout,
        config,
        found,
        asked,
        tuple(shards_of([*items, *more], config.samples_per_shard)),
        making,
        (*found.notes, *notes, *unasked),
    )
    return _with_questions(plan) if found.question_members else plan


def _with_questions(plan: Import) -> Import:
    items, notes = asked_questions(plan.asked, plan.found)
    making = replace(plan.making, members=plan.found.question_members, rows=1, modalities=False)
    shards = tuple(shards_of(items, QUESTIONS_PER_SHARD))
    return replace(plan, question_shards=shards, question_making=making, notes=(*plan.notes, *notes))


def import_features(
    source: Path, questions: Path, out: Path, layout: str, config: ImportConfig, stage: str | None = None
) -> list[Note]:
    """Import a folder of features into ``out``; what an earlier run finished there is kept, and shards whose files have
    come or changed since are made again.

    Args:
        source: folder of the features.
        questions: questions.jsonl about their clips; it says which split a clip is in.
        layout: one of `LAYOUTS`, of which `config` is.
        stage: place in a longer job, for the progress line.

    Returns:
        all that is in ``import.jsonl``.

    Raises:
        InputError: as `planned`; or an `out` begun otherwise, nothing that could be imported, a full disk.
    """
    plan, out = planned(source, questions, layout, config), Path(out).absolute()
    try:
        with folder_lock(out, "import"):
            _keep(out, plan, plan.shards)
            remove_partial_files(out, "ledger", "index")
            results = _work(plan.shards, plan.making, out, "import", "clips", stage)
            asked = _import_questions(plan, out, stage)
            notes = _account(plan, results, asked)
            write_text(out / IMPORT_FILE, "".join(note.line() for note in notes))
            _refuse_nothing(plan, results, out)
            finish(_assemble(plan, results), out)
    except OSError as error:
        remedy = "make room, or correct the rights or the disk; the same command then goes on"
        raise InputError(f"{error.strerror or error}", file=error.filename or out, remedy=remedy) from error
    return notes


def _keep(out: Path, plan: Import, shards: Sequence[ImportShard]) -> None:
    mine = {
        "schema_version": SCHEMA_VERSION,
        "dataset": "",
        "features": plan.fingerprint,
        "config": {"layout": plan.layout, **plan.config.content()},
        "shards": {shard.name: shard.planned for shard in shards},
    }
    remedy = f"remove {out} to import anew, or give the config and questions that it was begun with"
    keep_plan(out / PLAN_FILE, mine, "question file", remedy)


def _work(
    shards: Sequence[ImportShard], making: Making, out: Path, label: str, unit: str, stage: str | None
) -> dict[str, ImportLedger]:
    """Results of all shards by name; those that are finished are read, the others made."""
    found = {shard.name: read_import_ledger(out, shard) for shard in shards}
    done = {name: result for name, result in found.items() if result is not None}
    todo = [shard for shard in shards if shard.name not in done]
    if not todo:
        return done
    if lost := [name for shard in todo for name in lost_items(out, shard, making)]:
        message = f"{len(lost)} that were imported have no files any more, such as '{lost[0]}'"
        remedy = f"bring the files back; or remove {out} to import anew what is left"
        raise InputError(message, file=making.source, field="source", remedy=remedy)
    sizes = {shard.name: len(shard.items) for shard in shards}
    before, config = sum(sizes[name] for name in done), making.config
    with Progress(label, sum(sizes.values()), unit, done=before, stage=stage) as progress:
        for name, result in run_tasks(import_shard, todo, (making, out), config.workers, config.worker_tries, out):
            done[name] = result
            progress.advance(sizes[name])
    return done


def _import_questions(plan: Import, out: Path, stage: str | None) -> dict[str, ImportLedger]:
    """The questions' own features, as a dataset in a folder of their own."""
    if plan.question_making is None:
        return {}
    folder = out / QUESTIONS
    folder.mkdir(parents=True, exist_ok=True)
    _keep(folder, plan, plan.question_shards)
    remove_partial_files(folder, "ledger", "index")
    results = _work(plan.question_shards, plan.question_making, folder, "import", "questions", stage)
    if any(result.shard.samples for result in results.values()):
        said = {"features": QUESTIONS, "layout": plan.layout, "members": _said(plan.found.question_members)}
        said |= {"dtype": plan.config.dtype}
        finish(_dataset(plan, plan.question_shards, results, said, Normalisation()), folder)
    return results


def _refuse_nothing(plan: Import, results: Mapping[str, ImportLedger], out: Path) -> None:
    if any(result.shard.samples for result in results.values()):
        return
    first = next(note for shard in plan.shards for note in results[shard.name].notes)
    message = f"no clip could be imported; the first, '{first.clip}': {first.what}: {first.message}"
    raise InputError(message, file=out / IMPORT_FILE, remedy=first.remedy)


def _account(plan: Import, clips: Mapping[str, ImportLedger], questions: Mapping[str, ImportLedger]) -> list[Note]:
    """Every note, in an order that depends on nothing but the source: what was found, clips, questions."""
    made = [clips[shard.name] for shard in plan.shards] + [questions[shard.name] for shard in plan.question_shards]
    notes = [*plan.notes, *(note for ledger in made for note in ledger.notes)]
    imported = {name for ledger in clips.values() for name in ledger.imported}
    failed = {note.clip: note for note in notes if note.outcome == "left out" and note.clip is not None}
    for question in plan.asked:
        if question.clip not in imported:
            notes.append(_unanswerable(question, failed.get(question.clip)))
    if plan.question_making is not None:
        own = {name for ledger in questions.values() for name in ledger.imported}
        lacking = [question for question in plan.asked if question.id not in own]
        notes += [
            Note(
                what=What.NO_FEATURES,
                outcome="left out",
                question=question.id,
                message="has no features of its own text",
                remedy="extract them, or train networks that read words",
            )
            for question in lacking
        ]
    return notes


def _unanswerable(question: Question, why: Note | None) -> Note:
    return Note(
        what=What.NO_FEATURES,
        outcome="left out",
        question=question.id,
        clip=question.clip,
        message=f"its clip was left out: {why.what}" if why else "there is no file of its clip",
        remedy=why.remedy if why else "extract or fetch the clip's features; the same command then imports them, too",
    )


def _assemble(plan: Import, results: Mapping[str, ImportLedger]) -> DatasetInfo:
    """dataset.json, from the shards' results alone, in the plan's order."""
    ordered = [results[shard.name] for shard in plan.shards]
    said: dict[str, Any] = {
        **plan.config.content(),
        "features": SEQUENCE,
        "spec": plan.spec.model_dump(),
        "layout": plan.layout,
        "encoders": _said(plan.found.members),
    }
    normalisation = Normalisation(
        audio=statistics(add([ledger.audio for ledger in ordered])),
        visual=statistics(add([ledger.visual for ledger in ordered])),
    )
    return _dataset(plan, plan.shards, results, said, normalisation)


def _dataset(
    plan: Import,
    shards: Sequence[ImportShard],
    results: Mapping[str, ImportLedger],
    said: dict[str, Any],
    normalisation: Normalisation,
) -> DatasetInfo:
    splits: dict[str, list[ImportLedger]] = {}
    for shard in shards:
        splits.setdefault(shard.split, []).append(results[shard.name])
    labels = {label for shard in shards for item in shard.items for label in item.labels}
    fingerprint = plan.fingerprint
    return DatasetInfo(
        kind="features",
        preprocessing=said,
        labels=tuple(sorted(labels)),
        splits={split: split_info(those) for split, those in splits.items()},
        normalisation=normalisation,
        backbone=BackboneInfo(id=fingerprint[:12], fingerprint=fingerprint, depth=None, variants=("clean",)),
    )


def _said(members: Members) -> dict[str, Any]:
    """What members are made of, for dataset.json."""
    return {
        name: [{"name": part.name, "form": part.form, "shape": list(part.shape)} for part in parts]
        for name, parts in members.items()
    }
