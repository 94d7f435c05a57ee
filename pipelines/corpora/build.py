"""Building many clips: in parallel processes, each clip whole or absent, finished ones kept."""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from shards.atomic import write_text

Description = Mapping[str, Any]
Encoder = Callable[[Description, Path], None]


def build_clips(
    folder: str | Path,
    descriptions: Sequence[Description],
    encode: Encoder,
    *,
    jobs: int | None,
    advance: Callable[[], object] = lambda: None,
) -> int:
    """Make ``folder/<id>.mp4`` and ``folder/<id>.json`` for every description; return how many were made.

    The json is the description and is written last, so it marks a finished clip: a clip whose json holds
    the same description is kept, any other is made anew. A killed build therefore resumes.

    Args:
        folder: where the clips go.
        descriptions: JSON objects with an ``id`` that is a file name, all that ``encode`` needs to know.
        encode: ``encode(description, mp4 path)``, a function of a module (it runs in other processes).
        jobs: processes; 1 means this one, None as many as there are cores.
        advance: called once per clip that is ready, kept or made.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    todo = []
    for description in descriptions:
        if _finished(folder, description):
            advance()
        else:
            todo.append(description)
    jobs = os.cpu_count() or 1 if jobs is None else jobs
    if jobs <= 1 or len(todo) <= 1:
        for description in todo:
            _build(folder, encode, description)
            advance()
        return len(todo)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(todo)), mp_context=context, initializer=end_with_parent) as pool:
        results = [pool.submit(_build, folder, encode, description) for description in todo]
        try:
            for result in results:
                result.result()
                advance()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return len(todo)


def end_with_parent() -> None:
    """Have this worker of a pool end when the process that made it does, however that ends: a killed one tells
    nobody, and its workers would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.sentinel,), name="end-with-parent", daemon=True).start()


def _follow(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)  # what it was making is written anew, its json comes last


def _finished(folder: Path, description: Description) -> bool:
    try:
        same = (folder / f"{description['id']}.json").read_text("utf-8") == _json(description)
    except (FileNotFoundError, UnicodeDecodeError):
        return False
    return same and (folder / f"{description['id']}.mp4").is_file()


def _build(folder: Path, encode: Encoder, description: Description) -> None:
    note = folder / f"{description['id']}.json"
    note.unlink(missing_ok=True)  # or a crash in between would leave a new clip beside the old description
    encode(description, note.with_suffix(".mp4"))
    write_text(note, _json(description), sync=False)  # an empty note only means: make it again


def _json(description: Description) -> str:
    return json.dumps(description, ensure_ascii=False, indent=1) + "\n"
