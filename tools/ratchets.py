"""Check that the counts of known style problems only go down.

A rule of ruff that passes everywhere is enabled in ``pyproject.toml``. The rules here do not pass yet: their counts
stand in ``ratchets.json``. ``python tools/ratchets.py`` fails if a count has grown, and ``--update`` writes the
lower counts. The rules of docstrings do not apply to ``tests/``.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from structure import (
    PACKAGES,
    ROOT,
    Source,
    function_lines,
    functions,
    read_sources,
    starts_with_question_word,
)

COUNTS = ROOT / "tools" / "ratchets.json"
RUFF = str(Path(sys.executable).with_name("ruff"))
#: Rules of ruff and the folders in which each counts.
RUFF_RULES = {
    "D": (*PACKAGES, "tools", "benchmarks"),
    "D401": (*PACKAGES, "tools", "benchmarks"),
    "PLR0913": (*PACKAGES, "tools", "benchmarks", "tests"),
    "C901": (*PACKAGES, "tools", "benchmarks", "tests"),
    "E501": (*PACKAGES, "tools", "benchmarks", "tests"),
}
MAX_FUNCTION_LINES = 50
MAX_MODULE_LINES = 400
MAX_SUMMARY_CHARACTERS = 80
MAX_PARAMETERS_WITHOUT_ARGS = 3

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def ruff_problems() -> Iterator[tuple[str, str]]:
    """Yield the rule and the place of every problem that ruff finds."""
    for rule, folders in RUFF_RULES.items():
        command = [RUFF, "check", "--quiet", "--exit-zero", "--output-format=json", f"--select={rule}"]
        existing = [folder for folder in folders if (ROOT / folder).is_dir()]
        found = subprocess.run([*command, *existing], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
        for problem in json.loads(found):
            path = Path(problem["filename"]).relative_to(ROOT)
            yield problem["code"], f"{path}:{problem['location']['row']}"


def question_word_docstrings(source: Source) -> Iterator[int]:
    """Yield the lines of docstrings that begin with what, who, where, which ..."""
    return (line for line, text in _docstrings(source.tree) if starts_with_question_word(text))


def long_summaries(source: Source) -> Iterator[int]:
    """Yield the lines of docstrings whose first line is too long."""
    for line, text in _docstrings(source.tree):
        if len(text.splitlines()[0]) > MAX_SUMMARY_CHARACTERS:
            yield line


def missing_args_sections(source: Source) -> Iterator[int]:
    """Yield the lines of public functions with several parameters and a docstring without ``Args:``."""
    for node in functions(source.tree):
        arguments = node.args
        names = [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        count = sum(name not in ("self", "cls") for name in names)
        text = ast.get_docstring(node) or ""
        if count > MAX_PARAMETERS_WITHOUT_ARGS and not node.name.startswith("_") and "Args:" not in text:
            yield node.lineno


def long_functions(source: Source) -> Iterator[int]:
    """Yield the lines of functions that are too long."""
    return (node.lineno for node in functions(source.tree) if function_lines(node) > MAX_FUNCTION_LINES)


def long_modules(source: Source) -> Iterator[int]:
    """Yield 1 for a module that is too long."""
    if source.lines > MAX_MODULE_LINES:
        yield 1


#: Own rules: their names, and the function that yields the lines of their problems in a file.
OWN_RULES: dict[str, Callable[[Source], Iterator[int]]] = {
    "docstring-question-word": question_word_docstrings,
    "docstring-summary-length": long_summaries,
    "docstring-args-section": missing_args_sections,
    "function-length": long_functions,
    "module-length": long_modules,
}


def _docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | Definition) and (text := ast.get_docstring(node)):
            yield node.body[0].lineno, text


def find_problems() -> list[tuple[str, str]]:
    """Return the rule and the place of every problem."""
    sources = read_sources(ROOT, (*PACKAGES, "tools", "benchmarks"))
    own = [
        (rule, f"{source.path}:{line}")
        for rule, find in OWN_RULES.items()
        for source in sources
        for line in find(source)
    ]
    return [*ruff_problems(), *own]


def compare_counts(allowed: dict[str, int], counts: Counter[str]) -> list[str]:
    """Return one message for each rule whose count is over the allowed count."""
    return [
        f"{rule}: {count} problems, {allowed.get(rule, 0)} allowed (list them: python "
        f"tools/ratchets.py {rule})"
        for rule, count in sorted(counts.items())
        if count > allowed.get(rule, 0)
    ]


def main() -> int:
    """Check the counts, lower them (``--update``), or list the problems of a rule (its name)."""
    problems = find_problems()
    counts = Counter(rule for rule, _ in problems)
    argument = sys.argv[1] if len(sys.argv) > 1 else ""
    if argument and argument != "--update":
        print("\n".join(place for rule, place in problems if rule == argument))
        return 0
    allowed = json.loads(COUNTS.read_text(encoding="utf-8")) if COUNTS.exists() else dict(counts)
    grown = compare_counts(allowed, counts)
    for message in grown:
        print(message, file=sys.stderr)
    if argument == "--update" and not grown:
        lowered = {rule: counts[rule] for rule in sorted(counts)}
        COUNTS.write_text(json.dumps(lowered, indent=2) + "\n", encoding="utf-8")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
