"""Command lines: hints at the right way to write, and help before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path

import pytest

import avmend

pytestmark = pytest.mark.unit
ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("line", "said", "remedy"),
    [
        ("train prompt --data X", "avmend train has no option --data", "write data=X"),
        ("train prompt --data=X", "no option --data", "write data=X"),
        ("train finetune --dim 64", "no option --dim", "write backbone.dim=64"),
        ("train prompt --batch-size 64", "no option --batch-size", "write batch_size=64"),
        ("train prompt --rusn X", "no option --rusn", "did you mean '--runs'?"),
        ("train prompt runs=X", "no field 'runs'", "write --runs X"),
        ("train promt data=X", "unknown recipe 'promt'", "did you mean 'prompt'?"),
        ("train", "required: RECIPE", "avmend train --help"),
        ("ingest --manifest m.csv out=X", "required: --out", "write --out X"),
        ("ingest --manifest m.csv --out X --frames 3", "no option --frames", "write frames=3"),
        ("features data=X", "required: --data", "write --data X"),
        ("features --data X weights=W", "no field 'weights'", "write --weights W"),
        ("sweep prompts --trials 3", "no option --trials", "write search.trials=3"),
        ("sweep prompst", "no sweep 'prompst'", "did you mean 'prompts'?"),
        ("study demmo", "no preset 'demmo'", "did you mean 'demo'?"),
        ("study demo --seeds [1]", "no option --seeds", "write seeds=[1]"),
        ("evaluate RUN --conditions [complete]", "no option --conditions", "--set conditions=[complete]"),
        ("evaluate RUN data=X", "no field 'data'", "write --data X"),
        ("evaluate RUN split=val", "split=val", "write --set split=val"),
        ("shards verfi X", "invalid choice: 'verfi'", "did you mean 'verify'?"),
        ("list recipe", "invalid choice: 'recipe'", "did you mean 'recipes'?"),
        ("evalute RUN", "unknown command 'evalute'", "did you mean 'evaluate'?"),
    ],
)
def test_a_wrong_argument_is_answered_with_the_right_one(line, said, remedy, capsys):
    assert avmend.main(line.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    message, _, advice = printed.err.partition("\n  remedy: ")
    assert said in message
    assert remedy in advice
