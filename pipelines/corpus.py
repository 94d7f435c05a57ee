"""``avmend corpus NAME``: make a corpus (clips and manifest), or a manifest for one that is there.

Options are generated from the corpus's config class: ``--clips 640`` and ``clips=640`` are the same.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import sys
from pathlib import Path
from typing import Any

from configs import load_config
from configs.cluster import lasting
from pipelines.corpora.corpus import Corpus
from pipelines.corpora.options import add_options, overrides
from pipelines.corpora.registry import corpora, find_corpus
from shards.errors import InputError
from shards.progress import Progress


def main(argv: list[str] | None = None) -> int:
    """Run ``avmend corpus``; 0 if all went well, 2 if the input is wrong."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    try:
        if name.startswith("-") or not name:
            list_parser().parse_args([name] if name else [])
            list_parser().print_help(sys.stderr)
            return 2
        corpus = find_corpus(name)
        given = corpus_parser(name, corpus).parse_intermixed_args(rest)
        lasting(given.out, "--out")
        config = load_config(corpus.config, None, [*overrides(corpus.config, given), *given.overrides])
        summary = corpus.build(config, given.out, functools.partial(Progress, name))
    except InputError as error:
        print(f"avmend corpus {name}: {error}", file=sys.stderr)
        return 2
    print(*summary.lines, sep="\n")
    return 0


def list_parser() -> argparse.ArgumentParser:
    """The parser whose help lists the corpora."""
    found = corpora()
    width = max(map(len, found))
    lines = [f"  {name:<{width}}  {corpus.about}" for name, corpus in found.items()]
    return argparse.ArgumentParser(
        prog="avmend corpus",
        usage="avmend corpus NAME --out FOLDER [--FIELD VALUE | FIELD=VALUE ...]",
        description=(__doc__ or "") + "\ncorpora:\n" + "\n".join(lines),
        epilog="avmend corpus NAME --help prints a corpus's fields.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def corpus_parser(name: str, corpus: Corpus[Any]) -> argparse.ArgumentParser:
    """The parser of one corpus: its fields as options."""
    parser = argparse.ArgumentParser(
        prog=f"avmend corpus {name}",
        usage=f"avmend corpus {name} --out FOLDER [--FIELD VALUE | FIELD=VALUE ...]",
        description=inspect.getdoc(corpus.config),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder to make")
    parser.add_argument("overrides", nargs="*", metavar="FIELD=VALUE", help="the same as --FIELD VALUE")
    add_options(parser.add_argument_group("fields"), corpus.config)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
