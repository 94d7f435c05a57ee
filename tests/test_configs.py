from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import pydantic
import pytest

from configs import PRESET_FOLDER, Config, config_hash, config_to_dict, load_config, preset_names
from configs.presets import apply_override, format_value, parse_value
from shards.errors import InputError
from tests.conftest import ROOT

unit, integration = pytest.mark.unit, pytest.mark.integration


class Optim(Config):
    lr: float = pydantic.Field(default=1e-3, gt=0)
    name: Literal["adamw", "sgd"] = "adamw"


class Train(Config):
    epochs: int = 3
    optim: Optim = Optim()
    extra_optim: Optim | None = None
    sizes: tuple[int, ...] = (1, 2)
    tag: str = "plain"
    out: Path = Path("runs")


class Needs(Config):
    data: str


@unit
@pytest.mark.parametrize(
    "text",
    [
        "/home/\U00020bb7\u7530/data",
        "bell \U0001f514",
        "\udcff.csv",
        "a\u2028b\x85c\x7f\ufeff",
        r"\ud842\udfb7",
        "a\n: #\t'\"{",
    ],
)
def test_a_value_that_is_written_as_an_override_is_read_as_it_was(text):
    for value in (text, [text, 1, None], {text: [text]}):
        assert parse_value(format_value(value), "here") == value


def refusal(cls=Train, preset=None, overrides=()) -> str:
    with pytest.raises(InputError) as caught:
        load_config(cls, preset, overrides)
    return str(caught.value)


@pytest.fixture
def preset(tmp_path):
    def write(text: str, name: str = "p.yaml") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


@unit
def test_defaults_preset_and_overrides_are_laid_over_each_other(preset):
    path = preset("# command: x\nepochs: 5\noptim: {lr: 0.1}\nsizes: [4]\n")
    config = load_config(Train, path, ["optim.lr=2e-4", "tag=no", "extra_optim.name=sgd"])
    assert config == Train(epochs=5, optim=Optim(lr=2e-4), sizes=(4,), tag="no", extra_optim=Optim(name="sgd"))
    assert load_config(Train) == Train()


@unit
def test_config_is_frozen():
    with pytest.raises(pydantic.ValidationError):
        Train().epochs = 4


@unit
def test_unknown_override_names_itself_the_nearest_and_all_valid_names():
    text = refusal(overrides=["optim.lrr=1"])
    assert "override 'optim.lrr=1'" in text
    assert "did you mean 'optim.lr'?" in text
    assert "valid names: lr, name" in text


@unit
def test_unknown_name_in_a_preset_names_the_file_and_a_deeper_namesake(preset):
    path = preset("lr: 3\n")
    text = refusal(preset=path)
    assert str(path) in text
    assert "did you mean 'optim.lr'?" in text
    assert "valid names: epochs, extra_optim, optim, out, sizes, tag" in text


@unit
def test_unknown_name_inside_an_optional_config():
    assert "valid names: lr, name" in refusal(overrides=["extra_optim.nme=sgd"])


@unit
@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optim.lr=-1", ["'optim.lr'", "-1 does not fit", "greater than 0"]),
        ("optim.lr=.nan", ["'optim.lr'", "finite"]),
        ("epochs=many", ["'epochs'", "'many' does not fit", "valid integer"]),
        ("optim.name=adam", ["'optim.name'", "did you mean 'adamw'?", "'adamw' or 'sgd'"]),
        ("sizes=[1, x]", ["'sizes.1'", "override 'sizes=[1, x]'"]),
        ("epochs.x=1", ["'epochs'", "{'x': 1} does not fit", "valid integer"]),
        ("epochs", ["key.sub=value"]),
        ("sizes=[1", ["YAML"]),
        ("~epochs", ["'epochs'", "nothing of that name was given", "given are: (none)"]),
    ],
)
def test_wrong_values_name_field_value_and_remedy(override, words):
    text = refusal(overrides=[override])
    assert "remedy: " in text
    for word in words:
        assert word in text


@unit
@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("010", 10),
        ("08", 8),
        ("-007", -7),
        ("+5", 5),
        ("0", 0),
        ("1e-3", 1e-3),
        ("0.50", 0.5),
        ("/x/k #1", "/x/k #1"),
        ("#1", "#1"),
        ("a: b", "a: b"),
        ("- a", "- a"),
        ("@home", "@home"),
        ("*star", "*star"),
        ("&and", "&and"),
        ("!bang", "!bang"),
        ("| bar", "| bar"),
        ("%d.jpg", "%d.jpg"),
        ("C:\\data", "C:\\data"),
        ("yes", "yes"),
        ("2024-01-01", "2024-01-01"),
        ("true", True),
        ("null", None),
        ("", None),
        ("'010'", "010"),
        ('"a # b"', "a # b"),
        ("[08, x]", [8, "x"]),
        ("{a: 010}", {"a": 10}),
    ],
)
def test_values_are_read_as_a_person_writes_them(written, value):
    values: dict = {}
    apply_override(values, {}, f"key={written}")
    assert values == {"key": value}
    assert type(values["key"]) is type(value)


@unit
@pytest.mark.parametrize(
    ("taken_out", "left"),
    [
        ("~rows.rmm", {"rows": {"zero 0.5": {"lr": 1}}, "seed": 0}),
        ("~rows.zero 0.5", {"rows": {"rmm": {}}, "seed": 0}),
        ("~seed", {"rows": {"zero 0.5": {"lr": 1}, "rmm": {}}}),
    ],
)
def test_what_a_preset_gives_is_taken_out(taken_out, left):
    values = {"rows": {"zero 0.5": {"lr": 1}, "rmm": {}}, "seed": 0}
    apply_override(values, {}, taken_out)
    assert values == left


@unit
@pytest.mark.parametrize(
    ("taken_out", "remedy"),
    [
        ("~rows.rm", "did you mean 'rows.rmm'? given are: rows.zero, rows.rmm"),
        ("~rows.rmm.lr", "given are: (none)"),
        ("~sed", "did you mean 'seed'? given are: rows, seed"),
        ("~seed.x", "did you mean 'seed'? given are: rows, seed"),
        ("~", "given are: rows, seed"),
    ],
)
def test_what_was_not_given_is_not_taken_out(taken_out, remedy):
    values = {"rows": {"zero": {}, "rmm": {}}, "seed": 0}
    with pytest.raises(InputError, match=re.escape(taken_out)) as refused:
        apply_override(values, {}, taken_out)
    assert refused.value.remedy == remedy
    assert values == {"rows": {"zero": {}, "rmm": {}}, "seed": 0}


@unit
def test_numbers_in_a_preset_are_decimal_too(preset):
    assert load_config(Train, preset("epochs: 010\nsizes: [08, 09]\n")) == Train(epochs=10, sizes=(8, 9))


@integration
@pytest.mark.parametrize(
    "text",
    [f"{'[' * 5000}{']' * 5000}", f"{'[' * 100}{']' * 100}", "&a [*a]", "x: &a {y: *a}"],
)
def test_nesting_without_end_is_refused_with_the_file(preset, text):
    path = preset(f"epochs: {text}\n" if not text.startswith("x") else text)
    assert f"{path}: is nested too deeply" in refusal(preset=path)
    if text.startswith("[") and len(text) < 1000:
        assert f"override 'epochs={text}': is nested too deeply" in refusal(overrides=[f"epochs={text}"])


@unit
def test_an_alias_used_often_is_no_deep_nesting(preset):
    lines = ["a0: &a0 [1]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40))]
    assert "unknown name" in refusal(preset=preset("\n".join(lines)))


@unit
def test_a_namesake_further_in_is_nearer_than_a_similar_name():
    assert "did you mean 'optim.name'?" in refusal(overrides=["name=sgd"])
    assert "did you mean 'optim'?" in refusal(overrides=["optm.lr=3"])


@unit
def test_inner_name_of_a_plain_value_is_refused(preset):
    text = refusal(preset=preset("epochs: 3\n"), overrides=["epochs.x=1"])
    assert "field 'epochs'" in text
    assert "set 'epochs' itself" in text


@unit
def test_missing_field_is_named():
    assert "field 'data': is required" in refusal(Needs)


@unit
def test_base_is_laid_under_and_each_value_keeps_its_own_file(preset):
    base = preset("epochs: 9\noptim: {lr: 0.5, name: sgd}\n", "base.yaml")
    top = preset("base: base.yaml\noptim: {lr: 0.25}\n", "top.yaml")
    assert load_config(Train, top) == Train(epochs=9, optim=Optim(lr=0.25, name="sgd"))
    preset("epochs: x\n", "base.yaml")
    assert str(base) in refusal(preset=top)
    preset("base: top.yaml\n", "base.yaml")
    assert "is its own base" in refusal(preset=top)


@unit
@pytest.mark.parametrize("text", ["epochs: 1\nepochs: 2\n", "- 1\n", "epochs: [\n", "3: 4\n"])
def test_unreadable_presets_name_the_file(preset, text):
    path = preset(text)
    assert str(path) in refusal(preset=path)


@unit
def test_unknown_preset_lists_what_there_is():
    assert "no preset 'demoo'" in refusal(preset="demoo")


@unit
def test_hash_changes_with_every_value_and_only_with_values():
    assert config_hash(Train()) == config_hash(Train(epochs=3))
    assert len(config_hash(Train())) == 12
    assert config_hash(Train()) != config_hash(Train(optim=Optim(lr=0.002)))
    assert config_to_dict(Train())["out"] == "runs"


@unit
@pytest.mark.parametrize("name", preset_names())
def test_preset_carries_its_command_expectation_and_time_on_top(name):
    lines = (PRESET_FOLDER / f"{name}.yaml").read_text().splitlines()
    header = [line for i, line in enumerate(lines) if all(before.startswith("#") for before in lines[: i + 1])]
    for word in ("command", "expected", "time"):
        assert word in "\n".join(header).lower(), f"configs/{name}.yaml: no '{word}' in the comments on top"
    for place in re.findall(r"benchmarks/results/[\w-]+|docs/\w+\.md", "\n".join(header)):
        assert (ROOT / place).exists(), f"configs/{name}.yaml: {place} is not there"
