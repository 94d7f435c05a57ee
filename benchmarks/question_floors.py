"""What the questions of ``ensembles-2`` give away, and what either sense alone can answer, by the corpus's dial.

    python -m benchmarks.question_floors               # 3,000 clips' questions at four settings: minutes on one core
    python -m benchmarks.question_floors --clips 300   # a look at it

No clip is encoded: questions and observers need the scenes alone. The question-only columns are a look-up of the train
questions' words and the majority of their kind; the observers are each of `pipelines.corpora.synthetic.observers`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.report import positive
from pipelines.corpora.synthetic.ensembles_2 import Ensembles2Config, QuestionSet, ask

DIALS = ((0.85, 0.9), (1.0, 1.0), (0.85, 0.5), (0.5, 0.0))  # (sounds, coupling), the corpus's own first
COLUMNS = ("look_up", "majority", "who", "picture", "sound")


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    found = report.machine("cpu")
    sets = {
        dial: ask(Ensembles2Config(clips=args.clips, sounds=dial[0], coupling=dial[1], imagined=args.imagined))
        for dial in DIALS
    }
    parts = [
        f"sounds = {sounds:g}, coupling = {coupling:g}: a class in the picture is heard in "
        f"{100 * each.informed['heard_if_seen']:.0f} %, one that is heard is in the picture in "
        f"{100 * each.informed['seen_if_heard']:.0f} %.\n\n{_table(each.report)}"
        for (sounds, coupling), each in sets.items()
    ]
    text = f"{args.clips} clips; accuracy in percent on the test questions.\n\n" + "\n\n".join(parts)
    settings = {name: value for name, value in vars(args).items() if name != "out"}
    rows = [
        {"sounds": dial[0], "coupling": dial[1], "informed": each.informed, **each.report}
        for dial, each in sets.items()
    ]
    record = {"machine": found, "settings": settings, "rows": rows}
    title = "Floors and ceilings of questions"
    report.save(args.out, "question-floors", title, text, record, lambda figure: _draw(figure, sets))
    return 0


def _columns(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    blind, observers = found["question_only"], found["observers"]
    return {name: observers[name] if name in observers else blind[name] for name in COLUMNS}


def _table(found: dict[str, Any]) -> str:
    columns, counts = _columns(found), found["by_type"]["test"]
    rows = [
        [kind, counts.get(kind, sum(counts.values())), *(f"{100 * column[kind]:.1f}" for column in columns.values())]
        for kind in columns["look_up"]
    ]
    return report.table(["kind", "asked", "look-up", "majority", *COLUMNS[2:]], rows)


def _draw(figure: Any, sets: dict[tuple[float, float], QuestionSet]) -> None:
    axes = figure.subplots()
    width = 0.8 / len(COLUMNS)
    for place, name in enumerate(COLUMNS):
        heights = [100 * _columns(each.report)[name]["all"] for each in sets.values()]
        axes.bar([x + place * width for x in range(len(sets))], heights, width, label=name.replace("_", "-"))
    axes.set_xticks([x + 0.4 - width / 2 for x in range(len(sets))], [f"{s:g}, {c:g}" for s, c in sets])
    axes.set_xlabel("sounds, coupling")
    axes.set_ylabel("accuracy, all questions (%)")
    axes.legend()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.question_floors", description=__doc__)
    parser.add_argument("--clips", type=positive, default=3000)
    parser.add_argument("--imagined", type=positive, default=50, help="scenes imagined per clip (default 50)")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="where the files go")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
