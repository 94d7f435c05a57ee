"""Shell completion, asked as a shell asks it."""

from __future__ import annotations

import io
import os

import pytest

import avmend
from configs import completion

pytestmark = pytest.mark.unit


def completed(line: str, monkeypatch) -> list[str]:
    answer = io.BytesIO()
    answer.close = lambda: None  # type: ignore[method-assign]
    breaks = " \t\n\"'><=;|&(:"
    environment = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_COMP_WORDBREAKS": breaks}
    for name, value in (environment | {"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9"}).items():
        monkeypatch.setenv(name, value)

    real = os.fdopen

    def not_nine(descriptor: int, *arguments, **options):
        """argcomplete takes descriptor 9 for its debugging, which in a test is anybody's."""
        if descriptor == 9:
            raise OSError
        return real(descriptor, *arguments, **options)

    monkeypatch.setattr(os, "fdopen", not_nine)

    class Ended(Exception):
        pass

    def end(status: int) -> None:
        raise Ended

    output = io.TextIOWrapper(answer, encoding="utf-8", write_through=True)
    with pytest.raises(Ended):
        completion.complete(avmend.COMMANDS, avmend.parser_of, output_stream=output, exit_method=end)
    return [word.strip() for word in answer.getvalue().decode().split("\n") if word]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("avmend ", list(avmend.COMMANDS)),
        ("avmend tr", ["train"]),
        ("avmend train pr", ["prompt"]),
        ("avmend train nosuch ep", []),
        ("avmend train prompt ep", ["epochs="]),
        ("avmend train finetune backbone.pre", ["backbone.preset="]),
        ("avmend train prompt precision=", ["auto", "float32", "bf16"]),  # after '=', which ends a word
        ("avmend train prompt deep=t", ["true"]),
        ("avmend train prompt --ru", ["--runs"]),
        ("avmend sweep prompts-", ["prompts-large"]),
        ("avmend study dem", ["demo"]),
        ("avmend ingest --manifest x --out y frame_mode=a", ["approximate"]),
        ("avmend shards ver", ["verify"]),
        ("avmend features import --lay", ["--layout"]),
        ("avmend features import --layout pst", ["pstp"]),
        ("avmend features import --layout plain frame", ["frame_token="]),
        ("avmend list rec", ["recipes", "recoveries"]),
    ],
)
def test_the_shell_is_told(line, words, monkeypatch):
    assert completed(line, monkeypatch) == words
