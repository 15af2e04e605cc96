"""Measure the structure and the language of the source tree.

``python tools/structure.py`` measures the working tree; ``--rev REV`` puts the figures of another commit beside
them. A unit is a package or module directly below ``pipeline``, or the whole of ``detectors`` or ``storage``.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import grimp

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("forewatch", "pipeline", "detectors", "storage")
#: The commit before the tree was put in layers; commit subjects of the working tree are counted from here.
BASE_COMMIT = "c0e9772"
QUESTION_WORDS = re.compile(r"(What|Who|Whom|Whose|Where|Which|How|Whether|Of|The same)\b")

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
Figures = dict[str, object]


class Source(NamedTuple):
    """One parsed file."""

    path: Path
    lines: int
    tree: ast.Module


def read_sources(root: Path, folders: tuple[str, ...]) -> list[Source]:
    """Parse every Python file below the folders of ``root`` that exist."""
    found = []
    for path in sorted(p for folder in folders for p in (root / folder).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        found.append(Source(path.relative_to(root), len(text.splitlines()), ast.parse(text)))
    return found


def docstrings(tree: ast.Module) -> Iterator[str]:
    """Yield the docstrings of a module, its classes and its functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | Definition) and (text := ast.get_docstring(node)):
            yield text


def starts_with_question_word(docstring: str) -> bool:
    """Return whether a docstring begins with a word such as what, who, where or which."""
    return QUESTION_WORDS.match(docstring) is not None


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function and method, nested ones included."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def function_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function without its decorators."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def import_figures(root: Path) -> Figures:
    """Count units, edges, cycles and upward edges. ``root`` must be first on ``sys.path``."""
    packages = [name for name in PACKAGES if (root / name).is_dir()]
    graph = grimp.build_graph(*packages, exclude_type_checking_imports=False, cache_dir=None)
    edges = defaultdict(set)
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            if (importer := _unit(module)) != (other := _unit(imported)):
                edges[importer].add(other)
    units = {_unit(module) for module in graph.modules}
    cycles = [group for group in _components(units, edges) if len(group) > 1]
    upward = {
        (_unit(importer), _unit(imported)) for importer, imported in graph.nominate_cycle_breakers("pipeline")
    }
    return {
        "units": len(units),
        "package edges": sum(map(len, edges.values())),
        "upward edges (fewest to remove until the packages have an order)": len(upward),
        "import cycles of units": len(cycles),
        "units in the largest cycle": max(map(len, cycles), default=0),
        "loose modules in pipeline/": sum(
            path.name != "__init__.py" for path in (root / "pipeline").glob("*.py")
        ),
    }


def _unit(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "pipeline" else parts[0]


def _components(units: set[str], edges: dict[str, set[str]]) -> list[set[str]]:
    """Return the strongly connected components: units that reach each other."""
    reached = {unit: _reachable(unit, edges) for unit in units}
    found: list[set[str]] = []
    for unit in sorted(units):
        if not any(unit in group for group in found):
            found.append({unit} | {other for other in reached[unit] if unit in reached[other]})
    return found


def _reachable(start: str, edges: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    stack = [start]
    while stack:
        for other in edges.get(stack.pop(), ()):
            if other not in seen:
                seen.add(other)
                stack.append(other)
    return seen


def name_figures(sources: list[Source]) -> Figures:
    """Count homonyms and one-word function names."""
    files = Counter(source.path.name for source in sources if source.path.name != "__init__.py")
    classes = Counter(
        node.name
        for source in sources
        for node in source.tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    figures: Figures = {
        "file names that stand more than once": sum(count > 1 for count in files.values()),
        "public class names that stand more than once": sum(count > 1 for count in classes.values()),
    }
    for package in ("pipeline", "detectors"):
        names = [
            node.name.strip("_")
            for source in sources
            if source.path.parts[0] == package
            for node in functions(source.tree)
            if not node.name.startswith("__")
        ]
        share = sum("_" not in name for name in names) / len(names)
        figures[f"one-word function names in {package}/"] = f"{share:.0%}"
    return figures


def size_figures(sources: list[Source], tests: list[Source]) -> Figures:
    """Measure docstrings, functions, modules and the share of tests."""
    texts = [text for source in sources for text in docstrings(source.tree)]
    lengths = [function_lines(node) for source in sources for node in functions(source.tree)]
    questions = sum(map(starts_with_question_word, texts))
    return {
        "docstrings that begin with what, who, where ...": f"{questions / len(texts):.1%} ({questions})",
        "docstrings whose first line is over 80 characters": sum(
            len(text.splitlines()[0]) > 80 for text in texts
        ),
        "lines of the median function": statistics.median(lengths),
        "functions over 50 lines": sum(length > 50 for length in lengths),
        "modules over 400 lines": sum(source.lines > 400 for source in sources),
        "test lines per source line": f"{sum(t.lines for t in tests) / sum(s.lines for s in sources):.2f}",
    }


def commit_figures(revisions: str) -> Figures:
    """Measure the subjects of the commits in a range of revisions."""
    subjects = _git("log", "--no-merges", "--format=%s", revisions).decode().splitlines()
    lengths = [len(subject) for subject in subjects]
    return {
        "commits measured": len(lengths),
        "characters of the median commit subject": statistics.median(lengths) if lengths else 0,
        "characters of the longest commit subject": max(lengths, default=0),
        "commit subjects over 72 characters": sum(length > 72 for length in lengths),
    }


def measure(root: Path, revisions: str) -> Figures:
    """Return every figure of the tree at ``root`` and of the commits in ``revisions``."""
    sources = read_sources(root, PACKAGES)
    return (
        import_figures(root)
        | name_figures(sources)
        | size_figures(sources, read_sources(root, ("tests",)))
        | commit_figures(revisions)
    )


def measure_revision(revision: str) -> Figures:
    """Measure a commit: its files in a temporary folder, and its history of commit subjects."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=BytesIO(_git("archive", revision))) as archive:
            archive.extractall(folder, filter="data")
        return _measure_in_new_process(Path(folder), revision)


def _measure_in_new_process(root: Path, revisions: str) -> Figures:
    """Measure in a fresh interpreter, which has no packages of another tree on its path."""
    command = [sys.executable, __file__, "--tree", str(root), "--commits", revisions]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", "-C", ROOT, *arguments], stdout=subprocess.PIPE, check=True).stdout


def _print_table(columns: dict[str, Figures]) -> None:
    rows = list(next(iter(columns.values())))
    width = max(map(len, rows))
    print(f"{'':{width}}", *(f"{title:>14}" for title in columns))
    for row in rows:
        print(f"{row:{width}}", *(f"{figures[row]!s:>14}" for figures in columns.values()))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rev", help="also measure this commit, with all commits up to it")
    parser.add_argument("--since", default=BASE_COMMIT, help="first commit whose subject is not measured")
    parser.add_argument("--tree", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--commits", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tree is not None:
        sys.path.insert(0, str(options.tree))
        print(json.dumps(measure(options.tree, options.commits)))
        return
    columns = {options.rev: measure_revision(options.rev)} if options.rev else {}
    columns["working tree"] = _measure_in_new_process(ROOT, f"{options.since}..HEAD")
    _print_table(columns)


if __name__ == "__main__":
    main()
