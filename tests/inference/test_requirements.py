"""A registered version loads and answers with what its own requirements.txt declares, and with nothing else."""

from __future__ import annotations

import ast
import contextlib
import json
import shutil
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow
import pytest
from packaging.utils import canonicalize_name

from tailorset.inference import declared_environment
from tailorset.inference.declared_environment import closure
from tailorset.inference.versions import _is_fair, find_version, request_problem
from tailorset.registry.version import REQUIREMENTS

ANSWER = """
import json, sys
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
photo = open(sys.argv[2], "rb").read()
rows = model.predict(pd.DataFrame({"image": [photo]}))
ours = [module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] == "tailorset"]
loaded = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps({"rows": len(rows), "ours": [file for file in ours if file], "loaded": loaded}))"""


@pytest.fixture
def model(registry: Path) -> Path:
    """The folder of the registered version."""
    return next((registry / "mlartifacts").rglob("MLmodel")).parent


def declared(model: Path) -> list[str]:
    return (model / "requirements.txt").read_text().splitlines()


def answer(python: str | Path, model: Path, photo: Path) -> dict[str, Any]:
    """Load the version in a process of its own and let it answer; what was loaded, files of the package by name."""
    script = photo.with_name("answer.py")
    script.write_text(ANSWER)
    done = subprocess.run(
        [python, "-P", script, model, photo], cwd=photo.parent, env={}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_every_package_that_loading_imports_is_declared(model: Path, photos: Path) -> None:
    found = answer(sys.executable, model, photos / "turned.jpg")
    ours = [*map(Path, found["ours"]), next(model.rglob("inference/mlflow_model.py"))]
    assert all(file.is_relative_to(model) for file in ours), "the version must run its own code"
    parts = {part for file in ours for part in file.relative_to(model).with_suffix("").parts}
    assert {"project", "prompts", "params", "tracking", "stage", "location", "shards"}.isdisjoint(parts)
    with_code = {file for file in ours if len(ast.parse(file.read_text(encoding="utf-8")).body) > 1}
    assert len(with_code) <= 25, sorted(map(str, with_code))
    names = {name for file in ours for name in imported(file)} & set(found["loaded"])
    owners = metadata.packages_distributions()
    used = {name: set(map(canonicalize_name, owners[name])) for name in names - sys.stdlib_module_names - {"tailorset"}}
    assert [name for name, distributions in used.items() if not distributions & set(REQUIREMENTS)] == []
    assert set(REQUIREMENTS) <= set().union(*used.values()), "declared for nothing"
    assert [line.partition("==")[0] for line in declared(model)] == list(REQUIREMENTS)


def imported(file: Path) -> set[str]:
    """Top-level names of what a module imports, at its top or inside functions."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    origins = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return {name.partition(".")[0] for name in plain | origins}


def test_the_gate_asks_a_version_in_what_it_declares(
    registry: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(registry)
    version = find_version("models:/tiny/1")
    assert request_problem(version) == ""
    forgetful = tmp_path / "forgetful"
    shutil.copytree(model, forgetful)
    lines = [line for line in declared(model) if not line.startswith(("open-clip", "torchvision"))]
    (forgetful / "requirements.txt").write_text("\n".join(lines) + "\n")
    client = mlflow.MlflowClient()
    other = client.create_model_version("tiny", str(forgetful))
    try:
        problem = request_problem(find_version(f"models:/tiny/{other.version}"))
    finally:
        client.delete_model_version("tiny", other.version)
    assert problem.startswith("with what its requirements.txt declares it does not answer a request: ")
    assert "No module named 'open_clip'" in problem or "No module named 'torchvision'" in problem


def test_what_is_not_declared_cannot_be_imported(tmp_path: Path) -> None:
    requirements, tried = tmp_path / "requirements.txt", tmp_path / "tried.py"
    requirements.write_text("pandas\n# a comment\n\n")
    tried.write_text(
        "import importlib.util as u, pandas, numpy, json\nfrom importlib.metadata import version\n"
        "print([name for name in ('torch', 'dvc', 'yaml', 'dateutil', 'json') if u.find_spec(name)])\n"
    )
    command = [sys.executable, "-P", declared_environment.__file__, requirements, "tried"]
    done = subprocess.run(command, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "['dateutil', 'json']", done.stderr
    assert {"pandas", "numpy", "python-dateutil", "six"} <= closure(["pandas"])
    assert "s3fs" not in closure(["pandas"])
    assert "boto3" in closure(["mlflow[extras]"])  # an extra is followed where it is asked for


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(3600)
def test_a_fresh_environment_answers_a_photo(model: Path, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "environment"
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    with contextlib.chdir(tmp_path):
        install = [python, "-m", "pip", "install", "--quiet", "--requirement", model / "requirements.txt"]
        subprocess.run(install, check=True)
        assert answer(python, model, photos / "turned.jpg")["rows"] == 1


@pytest.mark.parametrize(
    ("row", "is_fair"),
    [
        ({"novelty": 7.0, "probability/cup": 0.3, "decision/cup": "open", "score/cup": 0.5}, True),
        ({"cup": 0.4, "ball": 1.0}, True),  # a version of before there were decisions
        ({"novelty": 7.0, "probability/cup": 1.3, "decision/cup": "open"}, False),
        ({"cup": None}, False),
        ({}, False),
    ],
)
def test_an_answer_of_any_version_is_judged(row: dict[str, Any], is_fair: bool) -> None:
    assert _is_fair(row) == is_fair
