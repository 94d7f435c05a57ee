"""Differences between methods in words and figures: differences.csv, and a part of results.md.

Three families, each corrected for the number of its comparisons by itself (Holm): every method against the baseline of
its network; the same by kind of question; every pair of methods.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from shards.errors import InputError, nearest
from trainers.bootstrap import DRAWS, holm
from trainers.comparing import Comparison
from trainers.scored import ALL
from trainers.tables import markdown_table, write_rows

DIFFERENCES_FILE = "differences.csv"
AGAINST, BY_KIND, PAIRS = "baseline", "kinds", "pairs"
LEVEL = 0.05
SAME = "no difference"
Sets = Mapping[str, Sequence[str]]  # what a column shows: a condition, or the mean of several


@dataclass(frozen=True)
class DifferenceRow:
    """One method less another.

    Attributes:
        family: whose comparisons are corrected together: "baseline", "kinds" or "pairs".
        network: of the method.
        method, other: lines of the table.
        condition: or the mean of several.
        kind: of question, or "all".
        seeds: that both have; 1: the interval is over clips alone.
        difference: of shares, -1..1.
        low, high: interval of 95 % of this difference, not corrected.
        p: that there is none, not corrected.
        p_corrected: by Holm, within the family.
        verdict: "higher" or "lower" where p_corrected is at most 0.05, else "no difference": none is shown.
    """

    family: str
    network: str
    method: str
    other: str
    condition: str
    kind: str
    seeds: int
    difference: float
    low: float
    high: float
    p: float
    p_corrected: float = math.nan
    verdict: str = SAME

    @property
    def words(self) -> str:
        """Points with their interval, or that no difference is shown."""
        if self.verdict == SAME:
            return SAME
        return f"{100 * self.difference:+.1f} ({100 * self.low:.1f} to {100 * self.high:.1f})"


def chosen_baseline(methods: Sequence[str], wanted: str | None, usual: Sequence[str]) -> str | None:
    """The method that the others are compared with: as wanted, else the first of the usual ones that is there.

    Raises:
        InputError: the wanted one is not evaluated.
    """
    if wanted is None:
        return next((name for name in usual if name in methods), None)
    if wanted not in methods:
        known = ", ".join(dict.fromkeys(methods))
        message = f"no method '{wanted}' is evaluated; {nearest(wanted, methods)}these are: {known}"
        raise InputError(message, field="baseline", remedy="name one of them, or evaluate its runs, too")
    return wanted


def difference_rows(compared: Comparison, sets: Sets, baseline: str | None) -> list[DifferenceRow]:
    """All three families.

    Args:
        sets: conditions by the name of what is shown.
        baseline: a method that networks have, or a line; None: pairs alone.
    """
    out: list[DifferenceRow] = []
    against = [(line, other) for line, other in baselines(compared, baseline).items() if line != other]
    out += _corrected(_rows(compared, AGAINST, against, sets, (ALL,)))
    single = {name: conditions for name, conditions in sets.items() if len(conditions) == 1}
    kinds = [kind for kind in compared.kinds if kind != ALL]
    out += _corrected(_rows(compared, BY_KIND, against, single, kinds))
    return out + _corrected(_rows(compared, PAIRS, list(combinations(compared.networks, 2)), sets, (ALL,)))


def baselines(compared: Comparison, baseline: str | None) -> dict[str, str]:
    """By line the one that it is compared with, of those that have any: the baseline of its network, trained on clips
    that lacked as much; of a variant without one ("avst_prompts") that of the network that it varies ("avst"). Where
    the baseline is a line and no method, it is that of its network whatever clips lacked."""
    own: dict[str, dict[str, str]] = {lacked: {} for lacked in compared.train_missing.values()}
    for line, network in compared.networks.items():
        lacked = compared.train_missing[line]
        if baseline == line:
            own = {other: {**found, network: line} for other, found in own.items()}
        elif baseline == compared.methods[line]:
            own[lacked][network] = line
    out: dict[str, str] = {}
    for line, network in compared.networks.items():
        known = own[compared.train_missing[line]]
        if (base := varied_network(network, known)) is not None:
            out[line] = known[base]
    return out


def varied_network(network: str, known: Collection[str]) -> str | None:
    """The network itself, or the one among the known ones that it is a variant of ("avst" for "avst_prompts")."""
    if network in known:
        return network
    return max((name for name in known if name and network.startswith(f"{name}_")), key=len, default=None)


def _rows(
    compared: Comparison, family: str, pairs: Sequence[tuple[str, str]], sets: Sets, kinds: Sequence[str]
) -> Iterator[DifferenceRow]:
    for name, conditions in sets.items():
        for line, other in pairs:
            for kind in kinds:
                found = compared.difference(line, other, conditions, kind)
                if found is not None:
                    mean, half = found.estimate.mean, found.estimate.half
                    said = (family, compared.networks[line], line, other, name, kind, found.seeds)
                    yield DifferenceRow(*said, mean, mean - half, mean + half, found.p)


def _corrected(rows: Iterator[DifferenceRow]) -> list[DifferenceRow]:
    """The rows of a family with corrected p-values and verdicts; those without a p-value take no part."""
    known, out = list[DifferenceRow](), list[DifferenceRow]()
    for row in rows:
        (out if math.isnan(row.p) else known).append(row)
    for row, p in zip(known, holm([row.p for row in known]).tolist(), strict=True):
        word = SAME if p > LEVEL else "higher" if row.difference > 0 else "lower"
        out.append(replace(row, p_corrected=p, verdict=word))
    return out


def write_differences(out: Path, compared: Comparison, sets: Sets, baseline: str | None) -> str:
    """Write differences.csv into `out`; returns the part of results.md, empty where there is nothing to compare."""
    rows = difference_rows(compared, sets, baseline)
    (out / DIFFERENCES_FILE).unlink(missing_ok=True)
    if not rows:
        return ""
    write_rows(out / DIFFERENCES_FILE, rows)
    return differences_markdown(rows)


def differences_markdown(rows: Sequence[DifferenceRow]) -> str:
    """What each method adds to the baseline, in points, with the verdict in words; empty without a baseline."""
    against = [row for row in rows if row.family == AGAINST]
    if not against:
        return ""
    columns = list(dict.fromkeys(row.condition for row in against))
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in against:
        cells.setdefault((row.method, row.other), {})[row.condition] = row.words
    head = ["method", "less", *(name.replace("_", " ") for name in columns)]
    body = [[*pair, *(own.get(name, "") for name in columns)] for pair, own in cells.items()]
    return "\n\n".join(["### Differences", markdown_table(head, body, 2), said(against)])


def said(rows: Sequence[DifferenceRow]) -> str:
    """How the intervals were made, and what they leave out."""
    seeds = sorted({row.seeds for row in rows})
    over = "one seed: the interval is over clips alone, another seed would change more" if seeds == [1] else ""
    if not over:
        counted = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        over = f"{counted} seeds, paired; a line of one seed has an interval over clips alone"
        over = over if seeds[0] == 1 else f"{counted} seeds, paired"
    return (
        f"Points of accuracy above the baseline, with their interval of 95 %: bootstrap over clips ({DRAWS:,} draws of "
        f"all methods together), Student's t over seeds ({over}). *No difference*: none is shown once p-values are "
        f"corrected for these {len(rows)} comparisons (Holm); it does not say that the methods are equal. Every pair, "
        f"and each kind of question: {DIFFERENCES_FILE}."
    )
