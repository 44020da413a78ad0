"""Hooks of mkdocs.yml: pages and files of the site that are not stored in docs/.

- pages of the project's folder (README.md is the start page), with their links turned to the site's;
- copies of other files of the project that a page links to, in files/;
- the tutorial as a page, with the outputs that the notebook holds;
- the picture of the stages, drawn from dvc.yaml.
"""

from __future__ import annotations

import base64
import json
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from stage_graph import stage_graph

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}
ORIGINS = {page: ROOT / name for name, page in PAGES.items()}
NOTEBOOK = DOCS / "tutorial.ipynb"
GRAPH = "pictures/stages/graph.svg"
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")
MARKED = re.compile(r"<!-- how it works -->\n## .*?\n(.*?)<!-- /how it works -->\n", re.DOTALL)  # of the README
STYLE = re.compile(r'<style.*?</style>|(?<=<table) border="1" class="dataframe"', re.DOTALL)  # of pandas


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages and pictures."""
    for page, origin in ORIGINS.items():
        files.append(File.generated(config, page, content=origin.read_text(encoding="utf-8")))
    for uri, content in notebook_files(json.loads(NOTEBOOK.read_text(encoding="utf-8"))):
        files.append(File.generated(config, uri, content=content))
    files.append(File.generated(config, GRAPH, content=stage_graph(ROOT)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return the page with its links, and with the README's section on how it works on its own page only."""
    uri = page.file.src_uri
    if uri == "index.md":
        markdown = MARKED.sub("", markdown)
    elif uri == "how-it-works.md":
        found = MARKED.search((ROOT / "README.md").read_text(encoding="utf-8"))
        assert found, "README.md has no section between <!-- how it works --> and <!-- /how it works -->"
        markdown = markdown.replace("<!-- how it works -->", found[1])
        markdown = markdown.replace(
            "<!-- graph -->", f"![Stages of dvc.yaml, with arrows to those that read from them]({GRAPH})"
        )
    folder = ORIGINS.get(uri, DOCS / uri).parent

    def link(match: re.Match[str]) -> str:
        path = Path(os.path.normpath(folder / match[1]))
        if not path.exists() or not path.is_relative_to(ROOT):
            return match[0]  # the build reports it
        return f"]({posixpath.relpath(_site_uri(path, config, files), posixpath.dirname(uri) or '.')}{match[2] or ''})"

    return LINK.sub(link, markdown)


def notebook_files(notebook: dict[str, Any]) -> Iterator[tuple[str, str | bytes]]:
    """Yield the pictures of an executed notebook, and its page, by their place in the site."""
    parts: list[str] = []
    num_pictures = 0
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                num_pictures += 1
                name = f"pictures/tutorial/{num_pictures}.png"
                yield name, base64.b64decode("".join(data["image/png"]))
                parts.append(f"![Output of the cell above]({name})")
            elif "text/html" in data:
                parts.append(STYLE.sub("", "".join(data["text/html"])))
            elif text := "".join(output.get("text", data.get("text/plain", ""))):
                parts.append(f"```text\n{text.rstrip()}\n```")
    yield "tutorial.md", "\n\n".join(parts)


def _site_uri(path: Path, config: MkDocsConfig, files: Files) -> str:
    """Return the place of a project's file in the site; a file without one is copied to files/."""
    name = path.relative_to(ROOT).as_posix()
    if name in PAGES:
        return PAGES[name]
    if path.is_relative_to(DOCS):
        return (path / "README.md" if path.is_dir() else path).relative_to(DOCS).as_posix()
    uri = f"files/{name}"
    if path.is_file() and files.get_file_from_path(uri) is None:
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return uri
