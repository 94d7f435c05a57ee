"""The registry of corpora: one record gives the options, the help, and the name in studies and sweeps."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs import load_config
from models import registry
from pipelines.corpora.options import overrides
from pipelines.corpora.registry import CORPORA, find_corpus
from pipelines.corpus import corpus_parser, main
from pipelines.manifest import read_manifest
from shards.errors import InputError
from tests.test_corpora_bytes import four

pytestmark = pytest.mark.unit
DOCS = (Path(__file__).resolve().parent.parent / "docs" / "corpora.md").read_text()


def parse(name: str, *arguments: str) -> Any:
    """The config that the command line gives."""
    corpus = find_corpus(name)
    given = corpus_parser(name, corpus).parse_intermixed_args(["--out", "x", *arguments])
    return load_config(corpus.config, None, [*overrides(corpus.config, given), *given.overrides])


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The documented example, a module outside the project, named by the environment as a user would."""
    (example,) = re.findall(r"```python\n(.*?)```", DOCS, flags=re.DOTALL)
    (tmp_path / "beeps_of_mine.py").write_text(example)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(CORPORA, "_members", dict(CORPORA))
    monkeypatch.setitem(registry._state, "plugins", None)
    monkeypatch.setenv(registry.VARIABLE, "beeps_of_mine")
    yield
    sys.modules.pop("beeps_of_mine", None)


def test_options_and_overrides_give_the_same_config():
    config = parse("scenes", "--clips", "640", "--seconds", "1.5")
    assert (config.clips, config.seconds, config.size) == (640, 1.5, 96)
    assert config == parse("scenes", "clips=640", "seconds=1.5") == parse("scenes", "clips=640", "--seconds=1.5")
    assert parse("ensembles", "per_clip=7", "clips=1") == parse("ensembles", "--questions", "7", "--clips", "1")


@pytest.mark.parametrize("path", ["/home/\U00020bb7\u7530/av", "\udcff/av", "a\x85\u2028b/av"])
def test_any_path_is_an_option(path: str):
    assert str(parse("avdigits", "--source", path).source) == path


def test_documented_commands_are_read():
    commands = re.findall(r"^avmend corpus (\S+) (--out .*|.* --out .*)$", DOCS, flags=re.MULTILINE)
    assert len(commands) >= 10
    for name, arguments in commands:
        parse(name, *shlex.split(arguments.partition("#")[0]))
    for name in CORPORA:
        assert f"`{name}`" in DOCS, f"{name} is not in docs/corpora.md"


def test_a_documented_corpus_of_a_study_is_read():
    from tuning.data import Corpus

    (example,) = re.findall(r"```yaml\ncorpus: (.*?)\n```", DOCS, flags=re.DOTALL)
    assert Corpus.model_validate(yaml.safe_load(example)).split == "speakers"


def test_text_of_an_option_is_no_yaml_and_lists_repeat():
    config = parse("vggsound-csv", "--csv", "a #1: b.csv", "--videos", "007", "--split", "null")
    assert (config.csv, config.videos, config.split) == (Path("a #1: b.csv"), Path("007"), "null")
    config = parse("cavmae-json", "--json", "train=a.json", "--files", "val=b=c.json", "--labels", "l.csv")
    assert config.files == (("train", Path("a.json")), ("val", Path("b=c.json")))
    with pytest.raises(InputError, match="is not SPLIT=FILE"):
        parse("cavmae-json", "--json", "a.json", "--labels", "l.csv")


@pytest.mark.parametrize("name", CORPORA)
def test_every_field_has_an_option_and_a_meaning(name: str):
    text = " ".join(corpus_parser(name, CORPORA[name]).format_help().split())
    assert CORPORA[name].about in text
    for field, info in CORPORA[name].config.model_fields.items():
        assert f"--{field.replace('_', '-')}" in text.replace(",", " ").split()
        assert info.description, f"{name}.{field} has no docstring"


def test_help_says_type_range_and_default(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["ensembles", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--questions INT" in text
    assert "(int, at least 1, at most 9, default 5)" in text
    assert "(float, at least 4, at most 60, whole, default 5.0)" in text
    assert "(int, at least 1, required)" in text
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed for name in CORPORA)


def test_wrong_names_get_the_nearest(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert main(["scene", "--out", str(tmp_path)]) == 2
    assert main(["scenes", "--out", str(tmp_path), "clps=3"]) == 2
    errors = capsys.readouterr().err
    assert "did you mean 'scenes'" in errors
    assert "did you mean 'clips'" in errors
    with pytest.raises(ValueError, match="corpus 'scenes' is registered already"):
        CORPORA.register("scenes", CORPORA["solos"])


@pytest.mark.usefixtures("plugin")
def test_a_corpus_of_a_plugin_is_one_like_any_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from tuning.config import SweepConfig
    from tuning.data import make_corpus
    from tuning.study_config import ClassificationStudyConfig

    assert main(["beeps", "--out", str(tmp_path / "out"), "--clips", "3", "word=toot"]) == 0
    assert capsys.readouterr().out == "beeped\n"
    assert [clip.id for clip in read_manifest(tmp_path / "out" / "beeps.csv")] == ["toot0", "toot1", "toot2"]

    study = {"corpus": {"kind": "beeps", "clips": 2}, "recipes": {"finetune": {}}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    config = load_config(ClassificationStudyConfig, tmp_path / "study.yaml")
    assert len(read_manifest(make_corpus(config.corpus, tmp_path / "data"))) == 2
    with pytest.raises(InputError, match="did you mean 'word'"):
        load_config(ClassificationStudyConfig, tmp_path / "study.yaml", ["corpus.wrd=a"])

    sweep = {"recipe": "finetune", "data": {"corpus": {"kind": "beeps", "clips": 5}}, "space": {"lr": {"grid": [1]}}}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    corpus = load_config(SweepConfig, tmp_path / "sweep.yaml").data.corpus
    assert corpus is not None
    assert len(read_manifest(make_corpus(corpus, tmp_path / "data"))) == 5


def test_a_plugin_that_fails_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv(registry.VARIABLE, "no_such_module_here")
    assert main(["scenes", "--out", "x", "--clips", "1"]) == 2
    error = capsys.readouterr().err
    assert "no_such_module_here" in error
    assert f"correct {registry.VARIABLE}" in error
    assert "Traceback" not in error


def test_a_setting_called_split_is_the_corpuss_own():
    from tuning.data import Corpus

    config = Corpus.model_validate({"kind": "vggsound-csv", "csv": "a.csv", "videos": "v", "split": "test"})
    assert (config.split, config.settings.model_dump()["split"]) == (None, "test")
    assert Corpus.model_validate(config.model_dump(mode="json")) == config
    with pytest.raises(ValueError, match=r"kind\n.*should be 'scenes' or"):
        Corpus.model_validate({"kind": ["scenes"]})


def test_a_studys_corpus_needs_media(tmp_path: Path):
    from tuning.data import Corpus, make_corpus

    (tmp_path / "val_qa.json").write_text(json.dumps([four(1)]))
    corpus = Corpus.model_validate({"kind": "avqa", "source": tmp_path})
    with pytest.raises(InputError, match=r"the corpus avqa has no manifest(.|\n)*give the folder of its videos"):
        make_corpus(corpus, tmp_path / "data")
    with_videos = Corpus.model_validate({"kind": "avqa", "source": tmp_path, "videos": tmp_path})
    assert len(read_manifest(make_corpus(with_videos, tmp_path / "data"))) == 1


def test_a_question_study_takes_any_corpus_with_questions():
    from tuning.question_data import QuestionCorpus

    config = QuestionCorpus.model_validate({"kind": "ensembles-2", "clips": 5, "per_clip": 3, "coupling": 0.5})
    assert config.model_dump()["questions"] == 3
    with pytest.raises(ValueError, match="the corpus scenes has no questions"):
        QuestionCorpus.model_validate({"kind": "scenes", "clips": 5})


def test_a_studys_corpus_reads_what_it_writes():
    from tuning.data import Corpus

    values = {"kind": "avdigits", "clips": 7, "source": "here", "split": "speakers"}
    config = load_config(Corpus, None, [f"{name}={value}" for name, value in values.items()])
    assert config.settings.model_dump()["limit"] == 7
    assert Corpus.model_validate(config.model_dump(mode="json")) == config
    assert "jobs" not in config.model_dump()
