"""Kills commands at random moments of their first use of a folder, and goes on by the same command.

    python -m benchmarks.first_run --times 200

Everything that is made once is made then: the MLflow store and its schema, lock files, an ingestion's plan and
dataset, a run's folder and identity, a local Ray. A round begins with nothing, is struck up to eight times by
SIGKILL, SIGTERM or SIGINT, and then left to end: with status 0, no traceback, and what an undisturbed run makes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kills import FIELDS, build_corpus, digests
from benchmarks.processes import Marked, stoppable
from benchmarks.report import RESULTS, machine, positive, save_folder, table
from shards.command import command

SIGNALS = ("KILL", "TERM", "INT")
PER_ROUND = 8
HANGS = 240.0  # seconds after which a run that was not struck counts as hung
WINDOWS = ("store", "ingest", "train", "ingest on Ray", "train on Ray")
GRACE = 20.0  # seconds in which what a killed command leaves behind has to end
SIZES = {"dim": 32, "heads": 2, "mlp_ratio": 2, "depth": 2, "target_length": 32, "image_size": 32}


@dataclass(frozen=True)
class Round:
    """A folder's first use: what struck it, and how it ended.

    Attributes:
        strikes: signal and second of the run.
        tracebacks: printed by the run that was left to end, and by those that were struck.
        as_calm: it made what an undisturbed run makes.
        left: processes that a killed run left behind.
    """

    window: str
    strikes: tuple[tuple[str, float], ...]
    status: int
    tracebacks: int
    as_calm: bool
    left: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Window:
    """A command that makes things for the first time: its arguments, and what an undisturbed one makes."""

    arguments: Callable[[Path], list[str]]
    made: Callable[[Path], Any]


def windows(work: Path) -> dict[str, Window]:
    """All windows; what they need besides lies in `work`."""
    manifest, data = build_corpus(work, None), work / "data"

    def ingest(workers: int) -> Callable[[Path], list[str]]:
        fields = [*FIELDS, f"workers={workers}"]
        return lambda out: ["-m", "pipelines.ingest", "--manifest", str(manifest), "--out", str(out), *fields]

    def train(workers: int) -> Callable[[Path], list[str]]:
        sizes = [f"backbone.{name}={value}" for name, value in SIZES.items()]
        given = [f"data={data}", "epochs=1", "batch_size=8", "cpus=1", f"workers={workers}", *sizes]
        return lambda out: ["-m", "trainers.train", "finetune", "--runs", str(out), *given]

    if not (data / "dataset.json").is_file():
        with Marked.start(*ingest(0)(data), log=work / "data.log") as run:
            if run.process.wait():
                raise RuntimeError((work / "data.log").read_text()[-2000:])
    return {
        "store": Window(lambda out: ["-m", "benchmarks.first_run", "--open", str(out)], recorded),
        "ingest": Window(ingest(0), digests),
        "train": Window(train(0), recorded),
        "ingest on Ray": Window(ingest(1), digests),
        "train on Ray": Window(train(1), recorded),
    }


@command
def open_store(argv: list[str]) -> int:
    """The smallest first use of a store: a run with a metric."""
    root = Path(argv[0])
    from trainers.tracking import Store

    with Store(root).run("first", "demo", {"a": 1}, folder=root / "first") as run:
        run.log(1, {"loss": 1.0})
        run.summary({"best/loss": 1.0})
    return 0


def recorded(root: Path) -> list[tuple[str, str, list[str]]]:
    """The runs of a store: name, status, and the names of their metrics."""
    from trainers.tracking import read_runs

    return sorted((run.name, run.status, sorted(run.metrics)) for run in read_runs(root))


def one_round(window: str, wanted: Window, out: Path, calm: tuple[Any, float], rng: np.random.Generator) -> Round:
    """Strike a folder's first use, then let the same command end."""
    begin, log = time.monotonic(), out.with_suffix(".log")
    strikes: list[tuple[str, float]] = []
    left: list[str] = []
    tracebacks = 0
    for number in range(PER_ROUND):
        struck = out.with_suffix(f".struck-{number}.log")
        with Marked.start(*wanted.arguments(out), log=struck) as run:
            name, delay = str(rng.choice(SIGNALS)), rng.uniform(0, calm[1])
            while run.process.poll() is None and time.monotonic() < run.begin + delay:
                time.sleep(0.01)
            if run.process.poll() is None:
                run.process.send_signal(getattr(signal, f"SIG{name}"))
                strikes.append((name, round(time.monotonic() - run.begin, 2)))
            run.process.wait(HANGS)
            left += run.left(GRACE)
        tracebacks += _tracebacks(struck.read_text())
    with Marked.start(*wanted.arguments(out), log=log) as run:
        status = run.process.wait(HANGS)
        left += run.left(GRACE)
    tracebacks += _tracebacks(log.read_text())
    as_calm = status == 0 and wanted.made(out) == calm[0]
    found = Round(window, tuple(strikes), status, tracebacks, as_calm, tuple(left), time.monotonic() - begin)
    if not is_bad(found):
        shutil.rmtree(out)
    return found


def _tracebacks(text: str) -> int:
    """Those of a command; one of an interpreter that a signal met while it imported is Python's own."""
    importing = "<frozen importlib._bootstrap" in text or "init_import_site" in text
    return 0 if importing else text.count("Traceback (most recent")


def is_bad(found: Round) -> bool:
    """It did not end as an undisturbed run does."""
    return bool(found.status or found.tracebacks or found.left or not found.as_calm)


def undisturbed(wanted: Window, out: Path) -> tuple[Any, float]:
    """What the command makes when nothing strikes it, and its seconds."""
    shutil.rmtree(out, ignore_errors=True)
    begin = time.monotonic()
    with Marked.start(*wanted.arguments(out), log=out.with_suffix(".log")) as run:
        if run.process.wait(HANGS):
            raise RuntimeError(out.with_suffix(".log").read_text()[-2000:])
    return wanted.made(out), time.monotonic() - begin


def measure(args: argparse.Namespace, work: Path) -> list[Round]:
    """Rounds, the windows in turn, until there are enough strikes; those of earlier calls on `work` count."""
    journal = work / "rounds.jsonl"
    rounds = [_round(json.loads(line)) for line in journal.read_text().splitlines()] if journal.exists() else []
    known, calm = windows(work), dict[str, tuple[Any, float]]()
    while sum(len(r.strikes) for r in rounds) < args.times:
        name = args.windows[len(rounds) % len(args.windows)]
        if name not in calm:
            calm[name] = undisturbed(known[name], work / f"calm-{name.replace(' ', '-')}")
        out = work / f"struck-{len(rounds):04d}"
        shutil.rmtree(out, ignore_errors=True)
        rng = np.random.default_rng([args.seed, len(rounds)])
        rounds.append(one_round(name, known[name], out, calm[name], rng))
        with journal.open("a") as file:
            file.write(json.dumps(asdict(rounds[-1])) + "\n")
        strikes = sum(len(r.strikes) for r in rounds)
        print(f"{strikes} of {args.times} strikes, {sum(map(is_bad, rounds))} bad rounds", flush=True)
    return rounds


def _round(record: Mapping[str, Any]) -> Round:
    strikes = tuple((name, second) for name, second in record["strikes"])
    return Round(**{**record, "strikes": strikes, "left": tuple(record["left"])})


def write(out: Path, rounds: Sequence[Round], record: dict[str, Any]) -> None:
    """Table by window, and a figure of the moments."""
    names = list(dict.fromkeys(r.window for r in rounds))
    cells = [_cells(name, [r for r in rounds if r.window == name]) for name in names]
    cells.append(_cells("all", rounds))
    columns = ["first use", "strikes", *SIGNALS, "folders", "tracebacks", "status not 0", "as undisturbed", "left"]
    flat = [dict(zip(columns, row, strict=True)) for row in cells]
    total = flat[-1]
    line = [f"{total['strikes']} kills of {total['folders']} first uses", f"{total['tracebacks']} tracebacks"]
    line.append(f"{total['as undisturbed']} of {total['folders']} as undisturbed")
    text = table(columns, cells) + f"\n\nA folder's first use is struck up to {PER_ROUND} times, then left to end."
    found = {**record, "rounds": list(rounds)}
    save_folder(out, "first-run", "Kills of first uses", text, found, _draw(rounds), flat, line)


def _cells(name: str, rounds: Sequence[Round]) -> list[Any]:
    struck = [signal_name for r in rounds for signal_name, _ in r.strikes]
    ends = [sum(r.tracebacks for r in rounds), sum(r.status != 0 for r in rounds), sum(r.as_calm for r in rounds)]
    return [name, len(struck), *map(struck.count, SIGNALS), len(rounds), *ends, sum(len(r.left) for r in rounds)]


def _draw(rounds: Sequence[Round]) -> Callable[[Any], None]:
    def draw(figure: Any) -> None:
        axes = figure.subplots()
        names = list(dict.fromkeys(r.window for r in rounds))
        for marker, name in zip("xo^", SIGNALS, strict=True):
            at = [(second, names.index(r.window)) for r in rounds for n, second in r.strikes if n == name]
            if at:
                axes.scatter(*zip(*at, strict=True), marker=marker, alpha=0.6, label=name)
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="seconds after the command's start", title="When first uses were struck")
        axes.legend()

    return draw


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0; 1 if a round did not end as an undisturbed run."""
    parser = argparse.ArgumentParser(prog="benchmarks.first_run", description=__doc__)
    parser.add_argument("--times", type=positive, default=200, help="strikes in all (default 200)")
    parser.add_argument("--windows", type=lambda text: text.split(","), default=list(WINDOWS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="folder to go on in (default: a temporary one)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the files go")
    parser.add_argument("--open", type=Path, metavar="DIR", help="only open a store there (what 'store' strikes)")
    args = parser.parse_args(argv)
    if args.open is not None:
        return int(open_store([str(args.open)]))
    work = (args.work or Path(tempfile.mkdtemp(prefix="first-run-"))).absolute()
    work.mkdir(parents=True, exist_ok=True)
    record = {"machine": machine("cpu"), "settings": {"windows": args.windows, "seed": args.seed}}
    with stoppable(f"to go on, give --work {work} too"):
        rounds = measure(args, work)
    write(args.out, rounds, record)
    if args.work is None:
        shutil.rmtree(work)
    return int(any(map(is_bad, rounds)))


if __name__ == "__main__":
    sys.exit(main())
