"""README.md of an exported run: a model card, with the front matter that model hubs read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from serving.export.figures import Figures
from serving.export.folder import Export, megabytes
from shards.checkpoint import checkpoint_meta
from trainers.job import read_record
from trainers.recipe import FinishedRun
from trainers.tables import SHARES, markdown_table, percent, titled

MOST_ANSWERS = 400
GONE = ("_missing", "_missing_all")  # ends of conditions in which a modality is not there
UNKNOWN = "unknown"
WHAT = {False: "video-classification", True: "visual-question-answering"}
SAYS = {
    False: "It names the class of a clip from its sound and its picture; either may be missing or ruined.",
    True: "It answers questions about a clip from its sound and its picture; either may be missing.",
}


def front_matter(values: Mapping[str, Any]) -> str:
    """The YAML that a card begins with."""
    text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=10**6)
    return f"---\n{text}---\n"


def model_card(
    run: FinishedRun,
    below: FinishedRun | None,
    taken: Sequence[FinishedRun],
    found: Sequence[Figures],
    license: str | None,
    export: Export,
) -> str:
    """The card.

    Args:
        below: the run that it stands on, if it stands on one.
        taken: the runs that the export holds.
        found: what evaluations said of it.
        license: of the weights; None: not known.
        export: what was written so far.
    """
    name, record = run.folder.absolute().name, read_record(run.folder)
    data = run.recipe.task.experiment(run.config)
    parts = [
        front_matter(_front(run, name, data, found, license)),
        f"# {name}\n",
        f"A run of the recipe `{run.name}` of avmend. {SAYS[run.recipe.task.asks]}\n",
        _facts(run, record, data, license),
        "## How to ask it\n",
        _usage(name),
        "## What is in it\n",
        "\n".join(_contents(run, below, taken, export)) + "\n",
        "## Figures\n",
        "\n".join(_figures(found)),
        "## Intended use, and limits\n",
        "\n".join(_limits(run, found)) + "\n",
        "## Answers\n",
        _answers(below if below is not None and run.recipe.on_features else run),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _front(run: FinishedRun, name: str, data: str, found: Sequence[Figures], license: str | None) -> dict[str, Any]:
    task = WHAT[run.recipe.task.asks]
    results = [result for figures in found for result in _results(figures, task, data)]
    front: dict[str, Any] = {"library_name": "avmend", "license": license or UNKNOWN, "pipeline_tag": task}
    front |= {"tags": ["audio-visual", "missing-modality", run.recipe.name, task], "datasets": [data]}
    front |= {"metrics": list(dict.fromkeys(figures.metric for figures in found)) or [SHARES[0]]}
    return front | ({"model-index": [{"name": name, "results": results}]} if results else {})


def _results(figures: Figures, task: str, data: str) -> Iterator[dict[str, Any]]:
    """One result per condition, as a model index has them."""
    conditions = dict.fromkeys(c for accuracies in figures.methods.values() for c in accuracies)
    for condition in conditions:
        said = {m: values[condition] for m, values in figures.methods.items() if condition in values}
        yield {
            "task": {"type": task},
            "dataset": {"type": data, "name": data, "config": condition, "split": figures.split},
            "metrics": [{"type": figures.metric, "name": method, "value": round(x, 6)} for method, x in said.items()],
        }


def _facts(run: FinishedRun, record: Mapping[str, Any], data: str, license: str | None) -> str:
    rows = [
        ["identity", f"`{record['identity']}`"],
        ["recipe", f"`{run.recipe.name}`, revision {record.get('revision', 1)}, seed {run.config.seed}"],
        ["trained on", f"`{data}`, fingerprint `{record.get('dataset', UNKNOWN)}`"],
        ["started from, or stands on", f"`{record.get('backbone') or 'nothing'}`"],
        ["parameters", _parameters(run)],
        ["commit", f"`{record.get('commit', UNKNOWN)}`"],
        ["licence of the weights", license or f"{UNKNOWN}: whoever exported them named none"],
        ["licence of the data", f"{UNKNOWN} here: see where the data come from"],
    ]
    return markdown_table(["", ""], rows, left=2) + "\n"


def _parameters(run: FinishedRun) -> str:
    counts = {name: checkpoint_meta(run.folder / name)[1] for name in run.recipe.checkpoints(run.config)}
    return ", ".join(f"{count:,} in `{name}`" for name, count in counts.items())


def _usage(name: str) -> str:
    lines = ["avmend import DIR                       # this folder; checks every file against avmend.json"]
    lines += [f"avmend predict runs/{name} clip.mp4"]
    code = f'import avmend\n\nprint(avmend.load("DIR/runs/{name}").predict("clip.mp4").answer)'
    return "```\n" + "\n".join(lines) + f"\n```\n\n```python\n{code}\n```\n"


def _contents(
    run: FinishedRun, below: FinishedRun | None, taken: Sequence[FinishedRun], export: Export
) -> Iterator[str]:
    for one in taken:
        name = one.folder.absolute().name
        size = megabytes(export.size(f"runs/{name}/"))
        role = "the run" if one is run else "the frozen network that it stands on"
        yield f"- `runs/{name}` ({size}): {role}. Weights (safetensors), config, metrics of its training,"
        yield "  and the `dataset.json` of its data: how clips become its input, and the statistics that normalise it."
    if below is not None and below not in taken:
        name = below.folder.absolute().name
        yield f"- **Not in it**: `{name}`, the frozen network that it stands on; put it beside the run."
    elif below is None and run.recipe.task.features is not None:
        yield "- **Not in it**: the public weights that its features were made with (`--weights`)."
    yield "- `avmend.json`: size and sha256 of every file. Not in it: clips, shards, the state of the optimiser."


def _figures(found: Sequence[Figures]) -> Iterator[str]:
    if not found:
        yield "None: it had not been evaluated when it was exported.\n"
    for figures in found:
        conditions = list(dict.fromkeys(c for values in figures.methods.values() for c in values))
        where = "**other data** than it was trained on" if figures.other else "the data it was trained on"
        what = f"{titled(figures.metric)} in percent on split `{figures.split}`"
        yield f"{what} of {where} ({figures.samples} samples; dataset"
        yield f"`{figures.dataset[:12]}`), condition by condition:\n"
        rows = [
            [condition.replace("_", " "), *(_percent(values.get(condition)) for values in figures.methods.values())]
            for condition in conditions
        ]
        yield markdown_table(["condition", *figures.methods], rows) + "\n"
        if figures.noise:
            yield f"Noise, drawn by (seed, sample): `{json.dumps(figures.noise)}`. Where a modality is taken away,"
            yield "clips that have nothing else are left out.\n"


def _percent(value: float | None) -> str:
    return percent(None if value is None else (value, 0.0), several=False)


def _limits(run: FinishedRun, found: Sequence[Figures]) -> Iterator[str]:
    yield "For research on clips like those that it was trained on. It knows no answers but those below and always"
    yield "gives one of them; its probabilities are not to be relied on for other kinds of clips. It was not tested for"
    yield "decisions about people.\n"
    for figures in found:
        for method, values in figures.methods.items():
            whole = values.get("complete", values.get("complete_all"))
            for condition, value in values.items():
                if whole is not None and condition.endswith(GONE):
                    gone = condition.replace("_", " ")
                    said = f"{_percent(whole)} % as the clips are, {_percent(value)} % with {gone}"
                    yield f"- {method}, {figures.metric}: {said}."
    if not found:
        yield "What a missing modality costs it was not measured."


def _answers(run: FinishedRun) -> str:
    meta = checkpoint_meta(run.folder / run.recipe.stage_names(run.config)[0])[0]
    answers = meta.get("labels") or meta.get("vocabulary", {}).get("answers")
    if answers is None:
        return "It answers nothing by itself.\n"
    rest = len(answers) - MOST_ANSWERS
    shown = json.dumps(list(answers[:MOST_ANSWERS]), ensure_ascii=False)
    normalisation = meta.get("normalisation")
    said = f"In the order of the logits: {shown}" + (f" and {rest} more in its `checkpoint.json`" if rest > 0 else "")
    return said + (f"\n\nNormalisation of its input: `{json.dumps(normalisation)}`\n" if normalisation else "\n")
