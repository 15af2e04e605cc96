"""Hooks of mkdocs: pages of the repository root become pages of the site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROOT_PAGES = ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of the repository root."""
    from mkdocs.structure.files import File

    root = Path(config["config_file_path"]).parent
    for name in ROOT_PAGES:
        files.append(File.generated(config, name, content=(root / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Rewrite links between the repository root and ``docs/`` to links within the site."""
    path = page.file.src_uri
    if path in ROOT_PAGES:
        return markdown.replace("](docs/", "](")
    to_docs = "../" * path.count("/")
    for name in ROOT_PAGES:
        markdown = markdown.replace(f"]({to_docs}../{name}", f"]({to_docs}{name}")
    return markdown
