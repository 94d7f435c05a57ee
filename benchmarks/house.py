"""How a checkout's code is built: lines, functions, docstrings, circles, chains, and what a new method touches.

Usage: python -m benchmarks.house [NAME=]CHECKOUT ... [--out FILE.md]

Reads the source of each checkout and runs none of it. Tests and benchmarks are left out. Every checkout is a column.
"""

from __future__ import annotations

import argparse
import ast
import functools
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOMS = ("configs", "models", "shards", "pipelines", "trainers", "tuning", "serving")
METHODS = ("rmm", "lavit")  # a recovery method and a network: what names one outside its own file
START = "trainers.train"
ABOUT = """By `python -m benchmarks.house before=CHECKOUT after=.`, which reads the source and runs none of it; tests
and benchmarks are left out. A function's length is from `def` to its end, signature and docstring with it. Public are
functions, classes and methods of public classes whose names have no underscore in front. Class tests are isinstance
or issubclass on a recipe's config class. A chain counts files, as importing the first imports the last. What names a
method has its name as a text, or its config class. A toy method, network, corpus, condition and kind of noise are
trained, evaluated and reported by name in `tests/test_toys.py`; no file of the product knows them."""
Edges = dict[str, set[str]]


@dataclass(frozen=True)
class Source:
    """One file.

    Attributes:
        module: dotted name.
        path: relative to the checkout.
    """

    module: str
    path: Path
    text: str

    @functools.cached_property
    def tree(self) -> ast.Module:
        """Parsed."""
        return ast.parse(self.text)

    @functools.cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """All of the tree's."""
        return tuple(ast.walk(self.tree))

    @property
    def room(self) -> str:
        """The folder at the top; of avmend.py itself."""
        return self.path.parts[0]


def read_checkout(root: Path) -> dict[str, Source]:
    """The product's files by module.

    Raises:
        FileNotFoundError: no such checkout.
    """
    if not (root / "avmend.py").is_file():
        raise FileNotFoundError(f"{root} is no checkout: it has no avmend.py")
    paths = [root / "avmend.py", *(path for room in ROOMS for path in sorted((root / room).rglob("*.py")))]
    found = {}
    for path in paths:
        relative = path.relative_to(root)
        module = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
        found[module] = Source(module, relative, path.read_text(encoding="utf-8"))
    return found


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions and methods, inner ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from ``def`` to the end, signature and docstring with them."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def public(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """Public functions, classes and methods of public classes: name, and whether it has a docstring.

    What implements a protocol or a base class of another library by a name that these give (`forward`) counts, too;
    bodies of ``...`` (overloads, protocols' methods) do not: the class's docstring describes them.
    """

    def visit(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, bool]]:
        for node in body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name[0] == "_":
                continue
            if isinstance(node, ast.ClassDef) or not _is_stub(node):
                yield prefix + node.name, ast.get_docstring(node) is not None
            if isinstance(node, ast.ClassDef):
                yield from visit(node.body, f"{prefix}{node.name}.")

    yield from visit(tree.body, "")


def _is_stub(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return isinstance(last := node.body[-1], ast.Expr) and getattr(last.value, "value", None) is Ellipsis


def config_classes(files: Mapping[str, Source]) -> set[str]:
    """Names of the recipes' and evaluations' config classes: subclasses of TrainConfig, and what they share."""
    bases = {
        node.name: {_last(base) for base in node.bases}
        for file in files.values()
        for node in file.nodes
        if isinstance(node, ast.ClassDef)
    }
    found, size = {"TrainConfig"}, 0
    while size != len(found):
        size = len(found)
        found |= {name for name, above in bases.items() if above & found}
    return found


def class_tests(files: Mapping[str, Source]) -> list[str]:
    """``file:line`` of each isinstance or issubclass on a recipe's config class, or on their type by name."""
    classes = config_classes(files)
    return [
        f"{file.path}:{node.lineno}"
        for file in files.values()
        for node in file.nodes
        if isinstance(node, ast.Call)
        and _last(node.func) in ("isinstance", "issubclass")
        and any(_last(inner) in classes for inner in ast.walk(node.args[1]))
    ]


def _last(node: ast.AST) -> str:
    """The last part of a name or an attribute."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def imports(files: Mapping[str, Source], deferred: bool) -> Edges:
    """Which of our modules a module imports.

    Args:
        deferred: those within functions and for types alone too; else what importing the module imports.
    """
    return {name: set(_imported(file.tree, files, deferred)) - {name} for name, file in files.items()}


def _imported(node: ast.AST, files: Mapping[str, Source], deferred: bool) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names if alias.name in files)
        elif isinstance(child, ast.ImportFrom) and child.module:
            inner = [f"{child.module}.{alias.name}" for alias in child.names]
            yield from (name for name in inner if name in files)
            if child.module in files and not all(name in files for name in inner):
                yield child.module
        elif isinstance(child, ast.If) and _last(child.test) == "TYPE_CHECKING" and not deferred:
            continue
        elif deferred or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _imported(child, files, deferred)


def components(edges: Edges) -> list[list[str]]:
    """Strongly connected components (Tarjan), each after all that it reaches."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(edges[name]):
            if other not in index:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == index[name]:
            at = stack.index(name)
            found.append(stack[at:])
            del stack[at:]

    for name in edges:
        if name not in index:
            visit(name)
    return found


def longest_chain(edges: Edges, start: str) -> list[str]:
    """The longest chain of imports from a module; of a circle, one module counts."""
    best: dict[str, list[str]] = {}
    for component in components(edges):  # what a component reaches comes before it
        beyond = {other for name in component for other in edges[name]} - set(component)
        after = max((best[other] for other in sorted(beyond)), key=len, default=[])
        for name in component:
            best[name] = [name, *after]
    return best[start]


@functools.cache
def naming(root: Path, method: str) -> list[Path]:
    """Python files, tests included, beside its own that name a method: in a text of code, or as a class."""
    return [
        path.relative_to(root)
        for room in (*ROOMS, "tests")
        for path in sorted((root / room).rglob("*.py"))
        if method not in path.stem and _names(ast.parse(path.read_text(encoding="utf-8")), method)
    ]


def _names(tree: ast.Module, method: str) -> bool:
    """Whether code (docstrings aside) has the method's name as a text, or a name with it."""
    words = (
        str(node.value)
        if isinstance(node, ast.Constant)
        else node.arg or ""
        if isinstance(node, ast.keyword)
        else node.name
        if isinstance(node, ast.alias | ast.ClassDef | ast.FunctionDef)
        else _last(node)
        for node in ast.walk(tree)
    )
    return any(word.lower() in (method, f"models.avqa.recovery.{method}", f"{method}config") for word in words)


def figures(root: Path) -> dict[str, str]:
    """Every figure of a checkout, as text."""
    files = read_checkout(root)
    out: dict[str, str] = {}
    for room in ("avmend.py", *ROOMS):
        mine = [file for file in files.values() if file.room == room]
        out[f"lines: {room}"] = f"{sum(len(f.text.splitlines()) for f in mine):,} in {len(mine)}" if mine else "-"
    out["lines: all"] = f"{sum(len(file.text.splitlines()) for file in files.values()):,} in {len(files)}"
    long = [len(file.text.splitlines()) for file in files.values()]
    out["files over 200, over 400 lines"] = f"{sum(n > 200 for n in long)}, {sum(n > 400 for n in long)}"
    lengths = sorted(length(function) for file in files.values() for function in functions(file.tree))
    out["functions"] = f"{len(lengths):,}"
    tenths = statistics.quantiles(lengths, n=10)
    out["lines of a function: median, 90th percentile"] = f"{statistics.median(lengths):g}, {tenths[-1]:g}"
    described = [has for file in files.values() for _, has in public(file.tree)]
    out["public functions and classes with a docstring"] = f"{sum(described) / len(described):.1%}"
    tests = class_tests(files)
    out["class tests on recipes' configs"] = f"{len(tests)} in {len({t.partition(':')[0] for t in tests})} files"
    at_import, later = imports(files, deferred=False), imports(files, deferred=True)
    out["circles of files, at import"] = str(sum(len(c) > 1 for c in components(at_import)))
    out["circles of files, with imports in functions and for types"] = str(sum(len(c) > 1 for c in components(later)))
    pairs = sum(name in later[other] for name in later for other in later[name]) // 2
    out["pairs of files that import each other, likewise"] = str(pairs)
    out[f"longest import chain of {START}"] = str(len(longest_chain(at_import, START)))
    for method in METHODS:
        found = naming(root, method)
        tests_naming = sum(path.parts[0] == "tests" for path in found)
        out[f"files beside its own that name '{method}': product, tests"] = (
            f"{len(found) - tests_naming}, {tests_naming}"
        )
    return out


def table(columns: Mapping[str, Mapping[str, str]]) -> str:
    """Figures by checkout, as Markdown."""
    rows = ["| | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    names = dict.fromkeys(name for column in columns.values() for name in column)
    rows += [f"| {name} | " + " | ".join(column.get(name, "-") for column in columns.values()) + " |" for name in names]
    return "\n".join(rows)


def main(argv: list[str] | None = None) -> int:
    """Print the table; with ``--out`` also into a file. Exit status 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="+", metavar="[NAME=]CHECKOUT", help="a folder with avmend.py in it")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table as Markdown")
    parser.add_argument("--missing", action="store_true", help="list what has no docstring")
    args = parser.parse_args(argv)
    columns = {}
    for given in args.checkouts:
        name, _, folder = given.rpartition("=")
        columns[name or Path(folder).name] = figures(Path(folder))
        if args.missing:
            for file in read_checkout(Path(folder)).values():
                print(*(f"{file.path}: {public_name}" for public_name, has in public(file.tree) if not has), sep="\n")
    text = table(columns)
    print(text)
    if args.out is not None:
        args.out.write_text(f"# How the code is built\n\n{ABOUT}\n\n{text}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
