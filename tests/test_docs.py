"""Pages: each command is parsed, each example runs, links lead somewhere, and what is named exists."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

import avmend
from configs import load_config, preset_names
from configs.presets import sweep_names
from models import registry
from models.avqa.networks import NETWORKS
from models.avqa.recovery import RECOVERIES
from models.conditions import CONDITIONS
from models.registry import Registry
from models.settings import AUDIO_KINDS, VISUAL_KINDS
from pipelines.corpora.registry import CORPORA
from tests.fixtures.asking import asking_world
from tests.fixtures.documented_commands import PROGRAMS, check
from tests.fixtures.markdown import Block, Line, blocks, command_lines, headings, links, quoted
from tests.fixtures.worlds import World
from tuning.config import SweepConfig
from tuning.data import Corpus
from tuning.studies import STUDIES, study_of

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
OTHER_PAGES = [ROOT / "benchmarks" / "README.md"]  # links and names are checked, its commands by their own tests
BLOCKS = [block for page in PAGES for block in blocks(page)]
LINES = [line for block in BLOCKS if block.language in ("", "bash", "sh") for line in command_lines(block)]
ROOMS = ("configs", "models", "shards", "pipelines", "trainers", "tuning", "serving", "benchmarks", "tests")
EXAMPLES = {block.name: block for block in blocks(ROOT / "CONTRIBUTING.md") if block.language == "python"}
FOREIGN = {"FFmpeg", "PyAV", "MLflow", "OpenCV", "KubeRay", "PixelCrop"}  # names of other projects
FOREIGN |= {
    "GOOGLE_APPLICATION_CREDENTIALS",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_ENDPOINT_URL",
    "RAY_TMPDIR",
}
REGISTRIES: list[Registry] = [NETWORKS, RECOVERIES, CORPORA, CONDITIONS, AUDIO_KINDS, VISUAL_KINDS]
unit, integration = pytest.mark.unit, pytest.mark.integration


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the YAML files that pages show by name, and this project's own files where pages name them."""
    for name in ("cluster.yaml", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    for block in BLOCKS:
        if block.language == "yaml" and block.name:
            (tmp_path / block.name).write_text(block.text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The examples of CONTRIBUTING.md as modules that can be imported; the registries are afterwards as before."""
    folder = tmp_path / "examples"
    folder.mkdir()
    for name, block in EXAMPLES.items():
        assert name, f"{block}: an example's first line is its file's name"
        (folder / name).write_text(block.text)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(registry, "_state", dict(registry._state))
    for each in REGISTRIES:
        monkeypatch.setattr(each, "_members", dict(each._members))
    yield
    for name in EXAMPLES:
        sys.modules.pop(Path(name).stem, None)


@integration
@pytest.mark.parametrize("line", LINES, ids=str)
def test_every_command_parses(line: Line, here: Path, plugins: None, monkeypatch: pytest.MonkeyPatch):
    for name, value in line.variables.items():
        monkeypatch.setenv(name, value)
    check(line.words)


@unit
def test_the_check_of_commands_can_fail(here: Path):
    from shards.errors import InputError

    for words in (
        "avmend train prompt data=x backbone=b lenght=8",
        "avmend train promt data=x",
        "avmend ingest --manifest m.csv --out o image_size=big",
        "avmend study demmo",
        "avmend sweep nowhere.yaml",
        "avmend evaluate runs/a --set splt=val",
        "python -m trainers.train finetune data=x epochs=0",
        "ray job submit --working-dir . -- python -m tuning.sweep prompst",
    ):
        with pytest.raises(InputError):
            check(words.split())
    for words in (
        "avmend trian",
        "make cake",
        "python -m benchmarks.nothing",
        "python -m benchmarks.cost --prest x",
        "rm x",
    ):
        with pytest.raises(AssertionError):
            check(words.split())


@unit
def test_pages_have_commands_and_are_short():
    assert len(LINES) > 60
    assert {line.words[0] for line in LINES} <= set(PROGRAMS)
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


@unit
@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "yaml"], ids=str)
def test_every_yaml_block_is_a_config(block: Block, here: Path):
    """A sweep or a study by itself, or the corpus of one."""
    values = yaml.safe_load(block.text)
    path = here / "block.yaml"
    path.write_text(block.text)
    if set(values) == {"corpus"}:
        Corpus.model_validate(values["corpus"])
    elif "recipe" in values:
        load_config(SweepConfig, path).kind()
    else:
        load_config(STUDIES[study_of(values)].config, path)


@unit
@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    for link in links(page):
        if link.startswith("https://"):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{page.name}: no {target}"
        assert path.is_relative_to(ROOT)
        assert not anchor or anchor in headings(path), f"{page.name}: {target} has no heading #{anchor}"


@unit
def test_every_page_is_in_the_index():
    index = links(ROOT / "docs" / "README.md")
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"} <= set(index)


@cache
def sources() -> str:
    """All text in which an environment variable can be named, and what defines names."""
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    return "\n".join(path.read_text(encoding="utf-8") for path in [*files, ROOT / "cluster.yaml", ROOT / "Makefile"])


@cache
def defined() -> frozenset[str]:
    """Names of classes, functions, constants and fields in the source."""
    found = re.findall(r"^ *(?:class|def) (\w+)|^ *(\w+) *(?::[^=\n]*)?= ", sources(), flags=re.MULTILINE)
    return frozenset(name for names in found for name in names if name)


def exists(name: str) -> bool:
    """Whether a dotted name in the rooms leads to a module or to what a module defines."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        for part in parts[length:]:
            found = getattr(found, part, None) or getattr(found, "model_fields", {}).get(part)  # type: ignore[assignment]
        return found is not None
    return False


@unit
@pytest.mark.parametrize(
    "page", [page for page in (*PAGES, *OTHER_PAGES) if page.name != "CHANGELOG.md"], ids=lambda page: page.name
)
def test_what_is_named_exists(page: Path):
    """Changes of the past may name what is gone; every other page speaks of what is there."""
    wrong = []
    for text in quoted(page):
        word = text.partition("(")[0].strip()
        if re.fullmatch(rf"({'|'.join(ROOMS)})(/[\w.\-]+)*/?", word):
            if "/" in word and not (ROOT / word).exists():
                wrong.append(word)
        elif re.fullmatch(rf"({'|'.join(ROOMS)})(\.\w+)+", word):
            if not exists(word):
                wrong.append(word)
        elif re.fullmatch(r"[A-Z][a-z]+[A-Z]\w*|[A-Z]{2,}[a-z]\w*", word):
            if word not in defined() | FOREIGN:
                wrong.append(word)
        elif re.fullmatch(r"[A-Z][A-Z0-9]*_[A-Z0-9_]+", word):
            if word not in sources() and word not in FOREIGN:
                wrong.append(word)
        elif re.match(r"(avmend|make|python -m) ", text) and "<" not in text and "..." not in text and "|" not in text:
            words = [w for w in text.split() if not re.fullmatch(r"[A-Z]+|[A-Z]+\.yaml|--\w+=?", w)]
            if not (words[0] in PROGRAMS and mentions(words)):
                wrong.append(text)
    assert not wrong


def mentions(words: list[str]) -> bool:
    """Whether a command that is only mentioned names what there is."""
    if len(words) == 1 or words[1].startswith("--"):
        return True
    if words[0] == "avmend":
        if words[1] in ("study", "sweep") and len(words) > 2:
            return words[2] in [*preset_names(), *sweep_names()]
        return words[1] in avmend.COMMANDS
    if words[0] == "make":
        return f"\n{words[1]}:" in (ROOT / "Makefile").read_text()
    return importlib.util.find_spec(words[2]) is not None


@integration
def test_the_examples_of_question_answering_run(tmp_path, mlflow_root, plugins, monkeypatch, capsys):
    """The network and the recovery method of CONTRIBUTING.md train, are evaluated and tabulated by name."""
    monkeypatch.setenv("AVMEND_PLUGINS", "constant,pooled")
    data, questions = asking_world(tmp_path / "world", {"train": 12, "test": 6})
    quick = ["epochs=1", "batch_size=8", "workers=0", "cpus=1", "sizes.dim=6", "recovery_sizes.scale=0.1"]
    command = ["train", "avqa", f"data={data}", f"questions={questions}", "network=pooled", "recovery=constant", *quick]
    assert avmend.main([*command, "weights.constant=0.5", "--runs", str(mlflow_root)]) == 0
    run = capsys.readouterr().out.split()[-1]
    out = mlflow_root / "results"
    assert avmend.main(["evaluate", run, "--out", str(out)]) == 0
    rows = [row.split(",") for row in (out / "results.csv").read_text().splitlines()[1:]]
    assert {tuple(row[:2]) for row in rows if row[1]} == {("constant", "pooled")}  # the others are rules
    metrics = next(Path(run).rglob("metrics.jsonl")).read_text()
    assert '"constant"' in metrics


@unit
def test_the_example_of_a_corpus_is_ingested(tmp_path, plugins, monkeypatch):
    monkeypatch.setenv("AVMEND_PLUGINS", "tones")
    clips, media = tmp_path / "clips", tmp_path / "media"
    assert avmend.main(["corpus", "tones", "--out", str(clips), "--clips", "6", "seconds=0.5"]) == 0
    command = ["ingest", "--manifest", str(clips / "manifest.csv"), "--out", str(media), "frames=1", "image_size=32"]
    assert avmend.main([*command, "workers=0"]) == 0
    from shards.schema import DatasetInfo

    info = DatasetInfo.load(media)
    assert {name: split.samples for name, split in info.splits.items()} == {"train": 4, "test": 2}
    assert info.labels == ("blue", "red")


@integration
def test_the_examples_of_noise_and_condition_are_evaluated(world: World, mlflow_root, plugins, monkeypatch):
    monkeypatch.setenv("AVMEND_PLUGINS", "hum")
    out = mlflow_root / "results"
    settings = ["noise.audio=[hum]", "conditions=[complete,noisy_audio,hum_alone]"]
    assert avmend.main(["evaluate", str(world.backbone), "--out", str(out), "--set", *settings]) == 0
    rows = [row.split(",") for row in (out / "draws.csv").read_text().splitlines()]
    assert any("hum" in row for row in rows)
    conditions = {row.split(",")[3] for row in (out / "results.csv").read_text().splitlines()[1:]}
    assert conditions == {"complete", "noisy_audio", "hum_alone"}


SMALLER = {  # what the page says, and what the test runs instead: less of it, in one process, without Ray
    "--clips 320": "--clips 24",
    "--clips 1600": "--clips 16",
    "--clips 3000": "--clips 20",
    "epochs=16": "epochs=1 workers=0",
    "epochs=4": "epochs=1 workers=0",
    "image_size=96\n": "image_size=96 workers=0\n",
    "--backbone $": "workers=0 --backbone $",
    "sizes.dim=128": "sizes.dim=16 epochs=1 recovery_sizes.slots=4 workers=0",
}


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1], ids=["classification", "questions"])
def test_the_tour_of_the_readme_runs(number: int, tmp_path: Path):
    """The blocks as they stand, by a shell, with fewer clips and epochs."""
    tour = [block.text for block in blocks(ROOT / "README.md") if "avmend corpus" in block.text]
    assert all(large in "".join(tour) for large in SMALLER)
    text = tour[number]
    for large, small in SMALLER.items():
        text = text.replace(large, small)
    program = tmp_path / "bin" / "avmend"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT / "avmend.py"}" "$@"\n')
    program.chmod(0o755)
    env = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    env.pop("RAY_ADDRESS", None)
    work = tmp_path / "work"
    work.mkdir()
    done = subprocess.run(["bash", "-euxc", text], cwd=work, env=env, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr[-4000:]
    results = "runs/results/results.md" if number == 0 else "runs/questions/answers/results.md"
    assert (work / results).is_file()
    assert number == 1 or (work / "report.html").stat().st_size > 10_000
