"""``avmend COMMAND ...``: a thin front for each command's own ``main``, imported when it is called."""

from __future__ import annotations

import difflib
import importlib
import sys

COMMANDS = {
    "corpus": ("pipelines.corpus", "make clips and a manifest: scenes, avdigits, or from a corpus's folders"),
    "ingest": ("pipelines.ingest", "manifest and clips to media shards, dataset.json, quarantine.jsonl"),
    "audit": ("pipelines.audit.command", "what is wrong with the clips of a corpus, and which are the same"),
    "features": ("pipelines.features", "media shards to feature shards by a frozen backbone"),
    "shards": ("shards.inspect", "look into shards, verify them against dataset.json"),
    "train": ("trainers.train", "train a recipe: finetune, prompt, lora, adapter; avqa, rmm, avr"),
    "evaluate": ("trainers.evaluate", "conditions x methods: results.csv, results.md, figure"),
    "study": ("tuning.study", "all of it, from clips to the results table: demo, results, avqa"),
    "sweep": ("tuning.sweep", "a recipe over a space: prompts, slots, steps, loss-weights, or your own"),
    "report": ("tuning.report", "runs as one HTML file: tables, figures, failures, provenance, clips"),
    "doctor": ("tuning.doctor", "what is wrong, before anything expensive: machine, cluster, store, shards"),
    "ui": ("trainers.ui", "open the MLflow UI on the runs"),
}


def help_text() -> str:
    """The list of commands, one line each."""
    lines = [f"  {name:<10}{line}" for name, (_, line) in COMMANDS.items()]
    ending = "avmend COMMAND --help tells more; python -m MODULE does the same on a cluster."
    return "\n".join(["usage: avmend COMMAND ...", "", *lines, "", ending])


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0 done, 2 wrong input (said in one line, no traceback), 130 interrupted."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"commands: {', '.join(COMMANDS)}"
        print(f"error: unknown command '{name}'\n  remedy: {hint}", file=sys.stderr)
        return 2
    return _run(COMMANDS[name][0], rest)


def _run(module: str, arguments: list[str]) -> int:
    from shards.errors import InputError

    try:
        return importlib.import_module(module).main(arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
