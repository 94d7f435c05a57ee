"""``avmend list KIND``: what there is by name, from the registries, presets and sweeps."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from configs import PRESET_FOLDER, preset_names
from configs.fields import first_sentence
from configs.presets import sweep_names
from models.registry import imported
from shards.command import Parser, command

REGISTRIES = {  # kind -> mapping of names to classes, functions or records with docstrings
    "recipes": "trainers.recipes:RECIPES",
    "networks": "models.avqa.networks:NETWORKS",
    "recoveries": "models.avqa.recovery:RECOVERIES",
    "fusions": "models.fusion:FUSIONS",
    "adaptations": "models.adaptation:ADAPTATIONS",
    "corpora": "pipelines.corpora.registry:CORPORA",
    "conditions": "models.conditions:CONDITIONS",
    "protocols": "models.conditions:PROTOCOLS",
    "layouts": "pipelines.imports.layouts:LAYOUTS",
}
FOLDERS = {"presets": (PRESET_FOLDER, preset_names), "sweeps": (PRESET_FOLDER / "sweeps", sweep_names)}


def parser() -> Parser:
    """``avmend list KIND``."""
    found = Parser(prog="avmend list", description="What there is by name, with a line about each.")
    found.add_argument("kind", choices=[*REGISTRIES, *FOLDERS], help="of what")
    return found


def members(kind: str) -> Iterator[tuple[str, str]]:
    """Names of a kind, each with what its docstring (or its file's first line) says."""
    if kind in FOLDERS:
        folder, names = FOLDERS[kind]
        for name in names():
            first = (folder / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0]
            yield name, first.lstrip("# ")
        return
    registry: Mapping[str, Any] = imported(REGISTRIES[kind])
    for name, member in registry.items():
        yield name, about(member)


def about(member: Any) -> str:
    """The first sentence of a class's or function's docstring; of a record, its ``about``, else its fields."""
    if isinstance(text := getattr(member, "about", None), str):
        return text
    if inspect.isclass(config := getattr(member, "config", None)):
        return first_sentence(config)
    if inspect.isclass(member) or inspect.isroutine(member):
        return first_sentence(member)
    fields = {k: v for k, v in vars(member).items() if v and k != "name"}
    return ", ".join(f"{k} {v if isinstance(v, str) else ' '.join(map(str, v))}" for k, v in fields.items())


@command
def main(argv: list[str]) -> int:
    """Exit status as `shards.command.command` has it."""
    found = list(members(parser().parse(argv).kind))
    width = max((len(name) for name, _ in found), default=0)
    for name, text in found:
        print(f"{name:<{width}}  {text}".rstrip())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
