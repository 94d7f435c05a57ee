"""Training runs: one line per configuration over its seeds, with the settings that differ and no others."""

from __future__ import annotations

import hashlib
import json
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from trainers.identity import EXECUTION_FIELDS
from trainers.tables import SHARES, is_share
from trainers.tracking import Recorded
from tuning.report import intervals
from tuning.report.parts import Block, Cell, Folded, Table, figure, folded_rows, plural, short, spread, text
from tuning.report.run_selection import Chosen, base_name

WHERE = EXECUTION_FIELDS | {"seed"}  # the seed, and where and how it ran
SHOWN = 24
VALIDATED = tuple(f"/val_{name}" for name in SHARES)
_A_RUN = re.compile(r'[^"\s,\[\]]*/([\w.+-]+-[0-9a-f]{12})(?![\w-])')
_REFERENCE = re.compile(r"⟨([^@⟩]+)@([0-9a-f]{8})⟩")


@dataclass(frozen=True)
class Configuration:
    """Runs that differ in their seed and place alone.

    Attributes:
        recipe: its name, as the runs' folders have it.
        settings: flat, as text; another run that one starts from is named by its own configuration.
        runs: oldest first, finished or not.
    """

    recipe: str
    settings: dict[str, str]
    runs: tuple[Recorded, ...]

    @property
    def finished(self) -> list[Recorded]:
        """Its runs that finished."""
        return [run for run in self.runs if run.status == "FINISHED"]

    @property
    def digest(self) -> str:
        """Eight hex digits of recipe and settings."""
        return _digest(self.recipe, self.settings)

    def over_seeds(self, figures: dict[str, dict[str, float]], name: str) -> list[float]:
        """A figure per seed; of several runs of one seed their mean.

        Args:
            figures: run id -> name -> figure.
        """
        by_seed: dict[str, list[float]] = {}
        for run in self.finished:
            if name in figures[run.run_id]:
                by_seed.setdefault(run.params.get("seed", ""), []).append(figures[run.run_id][name])
        return [statistics.fmean(values) for values in by_seed.values()]


def _digest(recipe: str, settings: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps([recipe, settings], sort_keys=True).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Configurations:
    """The configurations of training runs."""

    runs: tuple[Recorded, ...]

    @cached_property
    def all(self) -> list[Configuration]:
        """In the order of their first runs."""
        groups: dict[str, list[Recorded]] = {}
        for run in self.runs:
            groups.setdefault(_digest(base_name(run), self._settings(run)), []).append(run)
        return [Configuration(base_name(g[0]), self._settings(g[0]), tuple(g)) for g in groups.values()]

    @cached_property
    def letters(self) -> dict[str, str]:
        """Digest -> letter, where a recipe has several configurations."""
        out: dict[str, str] = {}
        for recipe in dict.fromkeys(c.recipe for c in self.all):
            mine = [c for c in self.all if c.recipe == recipe]
            out |= {c.digest: _letter(i) for i, c in enumerate(mine) if len(mine) > 1}
        return out

    def readable(self, value: str) -> str:
        """A setting as it is shown: runs by recipe and letter."""
        return _REFERENCE.sub(lambda m: f"{m[1]} {self.letters.get(m[2], '')}".strip(), value)

    def _settings(self, run: Recorded) -> dict[str, str]:
        known = self.__dict__.setdefault("_known", {})
        if run.run_id not in known:
            own = {k: v for k, v in run.params.items() if k.partition(".")[0] not in WHERE}
            out = {k: _A_RUN.sub(self._reference, v) for k, v in own.items()}
            if fingerprint := run.tags.get("dataset"):
                out["data"] = f"{Path(run.params.get('data', '')).name} {fingerprint[:8]}".strip()
            known[run.run_id] = out | {"commit": run.tags.get("commit", "")}
        return known[run.run_id]

    def _reference(self, match: re.Match[str]) -> str:
        """A path of one of the runs as that run's configuration; any other path as its name."""
        other = self._by_name.get(match[1])
        if other is None:
            return match[1]
        return f"⟨{base_name(other)}@{_digest(base_name(other), self._settings(other))}⟩"

    @cached_property
    def _by_name(self) -> dict[str, Recorded]:
        return {run.name: run for run in self.runs}


def _letter(i: int) -> str:
    return chr(65 + i) if i < 26 else f"{_letter(i // 26 - 1)}{chr(65 + i % 26)}"


def differing(groups: Sequence[Configuration]) -> list[str]:
    """The settings in which configurations differ, in the order of the first one's."""
    names = dict.fromkeys(name for group in groups for name in group.settings)
    return [name for name in names if len({group.settings.get(name) for group in groups}) > 1]


def trained_blocks(chosen: Chosen) -> tuple[Block, ...]:
    """A table per recipe; trials are told with their sweep."""
    sweeps = {run.run_id for run in chosen.of("sweep")}
    everything = Configurations(tuple(chosen.of("training")))
    mine = [c for c in everything.all if any(run.parent not in sweeps for run in c.runs)]
    return tuple(
        block
        for recipe in dict.fromkeys(c.recipe for c in mine)
        for block in _recipe_blocks(recipe, [c for c in mine if c.recipe == recipe], everything)
    )


def _recipe_blocks(recipe: str, groups: list[Configuration], everything: Configurations) -> Iterator[Block]:
    names = differing(groups)
    figures = {run.run_id: run_figures(run) for group in groups for run in group.finished}
    columns = list(dict.fromkeys(name for told in figures.values() for name in told))
    lettered = [""] if len(groups) > 1 else []
    head = (*lettered, *names, "seeds", *(_heading(name) for name in columns))
    body = []
    for group in groups:
        cells = [text(everything.letters.get(group.digest, ""))] if lettered else []
        cells += [_setting(everything.readable(group.settings.get(name, ""))) for name in names]
        cells.append(text(_seeds(group)))
        body.append((*cells, *(_figure(group.over_seeds(figures, name), name) for name in columns)))
    several = any(len(group.finished) > 1 for group in groups)
    note = f"After the last epoch, on validation clips{'; ' + intervals.SAID if several else ''}."
    table = Table(head, tuple(body), len(lettered) + len(names) + 1, recipe, note)
    yield from folded_rows(table, SHOWN, f"all {plural(len(body), 'configuration')}")
    same = [(k, v) for k, v in sorted(groups[0].settings.items()) if k not in names]
    if same:
        rows = tuple((text(k), text(everything.readable(v))) for k, v in same)
        yield Folded(f"what all of {recipe} share", (Table(("setting", "value"), rows, 2),))


def _setting(value: str) -> Cell:
    if value == "null":
        return Cell("–")
    try:
        return Cell(short(value), float(value))
    except ValueError:
        return Cell(short(value))


def _seeds(group: Configuration) -> str:
    seeds = [run.params.get("seed", "?") for run in group.finished]
    told = ", ".join(dict.fromkeys(seeds)) or "none finished"
    left = len(group.runs) - len(group.finished)
    return told + (f" ({left} not finished)" if left and seeds else "")


def run_figures(run: Recorded) -> dict[str, float]:
    """What a training run is compared by: accuracies (or losses) in validation, time and memory."""
    told = {k: v for k, v in run.metrics.items() if not k.startswith("best/")}
    stages = {k: v for k, v in told.items() if k.endswith(VALIDATED)}
    out = stages if len(stages) > 1 else {k: v for k, v in told.items() if re.fullmatch(r"val_(accuracy\w*|mAP)", k)}
    out = out or stages or {k: v for k, v in told.items() if k in ("val_loss", "loss")}
    seconds = [v for k, v in told.items() if k.endswith("/epoch_seconds")]
    seconds = seconds or [v for k, v in told.items() if k == "epoch_seconds"]
    peaks = [v for k, v in told.items() if k.rpartition("/")[2] == "peak_memory_mb"]
    if seconds:
        out["epoch_seconds"] = statistics.fmean(seconds)
    return out | ({"peak_memory_mb": max(peaks)} if peaks else {})


def _heading(name: str) -> str:
    named = {"epoch_seconds": "s / epoch", "peak_memory_mb": "peak MiB"}
    stage, _, metric = name.rpartition("/")
    whole = f"{metric} {stage}".replace("_", " ").strip()
    return named.get(name) or (f"{whole}, %" if is_share(name) else whole)


def _figure(values: Sequence[float], name: str) -> Cell:
    if not values:
        return figure(None)
    if is_share(name):
        return spread(*intervals.of_values(values), 1, 100)
    if name in ("epoch_seconds", "peak_memory_mb"):
        return figure(statistics.fmean(values), 2 if name == "epoch_seconds" else 0)
    return spread(*intervals.of_values(values), 4)
