"""What the adapters of public question sets share: their JSON files, and the corpus that is written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic

from pipelines.corpora.corpus import CorpusConfig, Summary
from pipelines.corpora.public.split_files import SplitFiles
from pipelines.corpora.question_report import report, table
from pipelines.manifest import write_manifest
from shards.atomic import write_text
from shards.errors import InputError
from shards.questions import Question, save_questions

ORDER = ("train", "val", "test")
OFFICIAL = "official"  # the split of the published files


class QuestionFilesConfig(CorpusConfig):
    """Base of the settings of public question sets."""

    source: Path | None = None
    """Folder of the published JSON files."""
    files: SplitFiles = ()
    """Instead of the folder: the question files, each with its split; may be repeated."""
    videos: Path | None = None
    """Folder of the videos; given, the manifest is made, too."""

    @pydantic.model_validator(mode="after")
    def _has_files(self) -> QuestionFilesConfig:
        if self.source is None and not self.files:
            raise ValueError("no question files: give source=FOLDER, or files as SPLIT=FILE")
        return self

    def find(self, names: Mapping[str, Sequence[str]]) -> list[tuple[str, Path]]:
        """(split, file) of every question file: those that were given, or those of the folder by ``names``.

        Raises:
            InputError: the folder has none of them.
        """
        if self.files:
            return list(self.files)
        assert self.source is not None
        return find_files(self.source, names)


def find_files(source: str | Path, names: Mapping[str, Sequence[str]]) -> list[tuple[str, Path]]:
    """(split, file) for the first pattern of each split that matches files in ``source``.

    Raises:
        InputError: none of them is there.
    """
    source = Path(source)
    found = []
    for split, patterns in names.items():
        matches = (sorted(source.glob(pattern)) for pattern in patterns)
        found += [(split, path) for path in next((paths for paths in matches if paths), [])]
    if not found:
        wanted = ", ".join(patterns[0] for patterns in names.values())
        raise InputError("no question files here", file=source, remedy=f"give the folder of {wanted}")
    return found


def entries(path: str | Path) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """(where, number, entry) of a JSON file that holds a list of objects.

    Raises:
        InputError: it does not.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror}", file=path, remedy="check the path") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}", file=path, remedy="download it again") from None
    if not isinstance(content, list) or not content:
        raise InputError("no list of questions", file=path, remedy="the form is [{...}, ...]")
    for number, entry in enumerate(content):
        where = f"{path}: entry {number}"
        if not isinstance(entry, dict):
            raise InputError("no object", file=where, remedy="the form is [{...}, ...]")
        yield where, number, entry


def text_of(where: str, entry: Mapping[str, Any], field: str) -> str:
    """A field that must be a string, or a whole number, that is not empty.

    Raises:
        InputError: it is not.
    """
    value = entry.get(field)
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise InputError("missing, empty, or no text", file=where, field=field, remedy=f"give '{field}'")
    return str(value).strip()


def question_of(where: str, **fields: Any) -> Question:
    """The question of these fields.

    Raises:
        InputError: they are no question.
    """
    try:
        return Question(**fields)
    except pydantic.ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"]) or None
        raise InputError(problem["msg"], file=where, field=field, remedy="correct or delete it") from None


def write_corpus(
    out: str | Path,
    name: str,
    sets: Mapping[str, Sequence[Question]],
    rows: Mapping[str, Mapping[str, Any]] | None,
    facts: Mapping[str, Any],
) -> Summary:
    """Write ``questions*.jsonl``, ``corpus.json`` and, given ``rows``, ``manifest*.csv``.

    Args:
        out: folder to make.
        name: of the corpus.
        sets: split -> questions; the files of `OFFICIAL` have no ending, those of others ``-<split>``.
        rows: clip -> the manifest's columns that name its media; None: there are no videos here.
        facts: what else ``corpus.json`` says; its ``files`` are printed.
    """
    out = Path(out)
    content: dict[str, Any] = {"name": name, **facts}
    files, manifests, lines = {}, {}, [f"read {', '.join(facts['files'])}"]
    for split, questions in sets.items():
        ending = "" if split == OFFICIAL else f"-{split}"
        files[split] = save_questions(out / f"questions{ending}.jsonl", questions)
        if rows is not None:
            manifests[split] = out / f"manifest{ending}.csv"
            write_manifest(out / f"manifest{ending}.csv", _manifest(questions, rows))
        found = content[f"splits{ending}"] = report(questions)
        counts = ", ".join(f"{count} {split}" for split, count in found["questions"].items())
        lines.append(f"{counts}: {out / f'questions{ending}.jsonl'}\n{table(found)}")
    write_text(out / "corpus.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    clips = {question.clip for questions in sets.values() for question in questions}
    return Summary(len(clips), manifests, files, tuple(lines))


def _manifest(questions: Sequence[Question], rows: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """One row per clip, labelled by its questions' types; of several splits it gets the first of `ORDER`."""
    splits: dict[str, set[str]] = {}
    types: dict[str, set[str]] = {}
    for question in questions:
        splits.setdefault(question.clip, set()).add(question.split)
        types.setdefault(question.clip, set()).add(question.type)
    for clip, those in splits.items():
        split = next((split for split in ORDER if split in those), min(those))
        yield {"id": clip, **rows[clip], "label": sorted(types[clip]), "split": split}
