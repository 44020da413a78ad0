"""The documentation site, the tutorial and the files that describe the project to others."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tailorset.project.checks import contradictions
from tailorset.project.params import check_params
from tailorset.project.presets import overlay, preset_text
from tailorset.records import LabelSpace

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"
LOADED = re.compile(r'<(?:script|img|iframe|source)[^>]* src="(?:https?:)?//|<link[^>]* href="(?:https?:)?//')


PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))


def examples(language: str) -> dict[str, str]:
    """Every example of the pages in this language, by page and line."""
    block = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    texts = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
    return {
        f"{name}:{text.count(chr(10), 0, found.start()) + 1}": found[1]
        for name, text in texts.items()
        for found in block.finditer(text)
    }


SETTINGS, CODE = examples("yaml"), examples("python")


@pytest.mark.parametrize("place", [place for place in SETTINGS if not place.startswith("CONTRIBUTING")])
def test_settings_shown_in_the_docs_are_valid(place: str) -> None:
    """Those of CONTRIBUTING name plug-ins that are written there: tests/test_recipes.py."""
    params = check_params(yaml.safe_load(overlay(preset_text("coco"), SETTINGS[place])), place)
    assert not [*contradictions(params, LabelSpace.load(ROOT / "data/labels/coco.yaml"))]


@pytest.mark.parametrize("place", CODE)
def test_code_shown_in_the_docs_can_be_read(place: str) -> None:
    ast.parse(CODE[place], place)


def test_commands_shown_in_the_docs_begin_alike() -> None:
    deeper = re.compile(r"^ {5,}(?:tailorset |make |dvc |pip |git |print\(|[A-Z_]+=).*", re.MULTILINE)
    assert {page.name: deeper.findall(page.read_text(encoding="utf-8")) for page in PAGES} == {
        page.name: [] for page in PAGES
    }


def build(folder: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build as `make docs` does, without its environment of `make`."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(site)],
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    done = build(ROOT, tmp_path)
    assert done.returncode == 0, done.stderr
    pages = {
        path.relative_to(tmp_path).as_posix(): path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")
    }
    assert not [name for name, text in pages.items() if LOADED.search(text)]
    assert "18 minutes on two CPU cores" in pages["index.html"]
    assert "<svg" in (tmp_path / "pictures/stages/graph.svg").read_text()
    assert all(
        f'id="{name}"' in pages["how-it-works.html"]
        for name in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    )
    assert all(
        f'id="tailorset.{name}"' in pages["api.html"] for name in ("load", "generate", "llms.LLM", "filters.Filter")
    )
    assert (tmp_path / "files/data/labels/toybox.yaml").is_file()  # a page links to it, outside docs/


def test_faults_of_links_and_navigation_fail_the_build(tmp_path: Path) -> None:
    """In a copy of docs/ and of the files next to it; other folders are linked."""
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
        elif path.name not in {"docs", "site", ".git"}:
            (tmp_path / path.name).symlink_to(path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    page = tmp_path / "docs" / "team.md"
    page.write_text(f"{page.read_text()}\n[one](guides/nowhere.md) [two](models.md#nowhere) [three](/models.md)\n")
    (tmp_path / "docs" / "orphan.md").write_text("# Not in the navigation\n")
    done = build(tmp_path, tmp_path / "out")
    assert done.returncode != 0
    for fault in ("guides/nowhere.md", "models.md#nowhere", "/models.md", "orphan.md"):
        assert fault in done.stderr


def test_the_tutorial_holds_its_outputs() -> None:
    assert NOTEBOOK.stat().st_size < 600_000
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1)), "run `make tutorial`"
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "models/classifier").exists(), reason="needs the classifier of `make run`")
def test_the_tutorial_runs(tmp_path: Path) -> None:
    target = tmp_path / "tutorial.ipynb"
    subprocess.run([sys.executable, "docs/tools/tutorial.py", str(target)], cwd=ROOT, check=True)
    assert target.stat().st_size < 600_000


def test_the_citation_names_software_and_paper() -> None:
    citation: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation.keys() >= {"cff-version", "message", "title", "authors", "version", "license", "references"}
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert version
    assert citation["version"] == version[1]
    (paper,) = citation["references"]
    assert paper["title"] in re.sub(r"\s+", " ", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert [author["family-names"] for author in paper["authors"]] == ["Zhang", "Yuan", "Huang"]


def test_a_bug_report_asks_for_the_doctor() -> None:
    assert "tailorset doctor" in (ROOT / ".github/ISSUE_TEMPLATE/bug_report.md").read_text(encoding="utf-8")
