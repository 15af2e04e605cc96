"""Names of code, paths and links in the documentation exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.config.loader import load_config
from pipeline.config.schema import Config
from tests.docs.pages import ROOT, blocks, name_of, pages

TOP = "pipeline|detectors|storage|forewatch|tests|benchmarks|tools|deploy"
_DOTTED = re.compile(rf"`((?:{TOP})(?:\.\w+)+)(?:\(\))?`")
_PATH = re.compile(rf"`((?:docs|{TOP})/[\w./-]*)(?:::[\w…]+)?`")
_LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
#: Paths that a recipe tells the reader to create.
INVENTED = ("mine", "pulsar", "avro", "acme")
#: The past: names in these pages may be gone.
HISTORY = ("docs/lab-notes/", "CHANGELOG.md")


def current_pages() -> list[Path]:
    return [page for page in pages() if not name_of(page).startswith(HISTORY)]


@cache
def names_in(file: Path) -> frozenset[str]:
    """Names that a module defines: functions, classes, their members, variables and imports."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            found.add(node.value)  # lazily exported names
    return frozenset(found)


def is_defined(dotted: str) -> bool:
    """Return True for a package, a module, or a name (of a name) in one."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        base = ROOT.joinpath(*parts[:count])
        file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        if file.is_file() or (base.is_dir() and count == len(parts)):
            return all(name in names_in(file) for name in parts[count:]) if file.is_file() else True
    return False


def is_config_key(dotted: str) -> bool:
    """Return True for a key such as ``storage.keep_models``, which looks like a module."""
    head, _, key = dotted.partition(".")
    field = Config.model_fields.get(head)
    return field is not None and key in getattr(field.annotation, "model_fields", {})


@pytest.mark.parametrize("page", current_pages(), ids=name_of)
def test_dotted_names_exist(page):
    found = set(_DOTTED.findall(page.read_text(encoding="utf-8"))) - {"forewatch.yaml"}
    unknown = {name for name in found if not is_defined(name) and not is_config_key(name)}
    assert {name for name in unknown if not name.endswith(INVENTED)} == set()


@pytest.mark.parametrize("page", current_pages(), ids=name_of)
def test_paths_exist(page):
    found = set(_PATH.findall(page.read_text(encoding="utf-8")))
    assert {p for p in found if not (ROOT / p).exists() and Path(p).stem not in INVENTED} == set()


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_links_lead_to_files(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for link in _LINK.findall(text):
        target = link.partition("#")[0]
        if target and "://" not in target and not (page.parent / target).exists():
            broken.append(link)
    assert broken == []


def test_functions_of_the_architecture_page_are_in_the_file_that_it_names():
    """A line of a walk reads: `path/to/file.py`: `function`, `Class.method` …"""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    walks = re.findall(r"`([\w/]+\.py)`: ((?:`[\w.]+`(?:, )?)+)", text)
    assert len(walks) >= 20
    missing = [
        f"{path}: {name}"
        for path, names in walks
        for name in re.findall(r"`([\w.]+)`", names)
        if not set(name.split(".")) <= names_in(ROOT / path)
    ]
    assert missing == []


#: What an example leaves out ("source, format, ...").
STREAM = {
    "source": {"kafka": {"brokers": ["localhost:9092"], "topics": ["records"]}},
    "format": {"json": {"series": ["site"], "time": "ts", "values": ["pressure", "temperature"]}},
}
EXAMPLES = [
    pytest.param(block.text, id=f"{name_of(page)}:{block.line}")
    for page in current_pages()
    for block in blocks(page, "yaml")
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_yaml_examples_are_valid(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in re.findall(r"\w+\.pem", example):
        (tmp_path / name).touch()
    yaml = YAML()
    config = {"database": "sqlite:///forewatch.db", "streams": {"plant": {}}} | yaml.load(example)
    config["streams"] = {name: STREAM | dict(stream) for name, stream in config["streams"].items()}
    with (tmp_path / "forewatch.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(config, file)
    load_config(tmp_path / "forewatch.yaml")


def test_tests_that_the_documentation_names_exist():
    functions = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", file.read_text(encoding="utf-8"))
    }
    modules = {file.stem for file in (ROOT / "tests").rglob("test_*.py")}
    missing = [
        f"{name_of(page)}: {name}"
        for page in pages()
        for name, cut in re.findall(r"\b(test_\w+)(…?)", page.read_text(encoding="utf-8"))
        if name not in functions | modules and not (cut and any(f.startswith(name) for f in functions))
    ]
    assert missing == []
