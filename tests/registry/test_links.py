"""DVC may put copies, hard links or symbolic links of its cache into the project: all are registered."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from tailorset.inference.versions import download, find_version
from tailorset.project.tracking import connect
from tailorset.records import LabelSpace
from tailorset.registry.version import log_model

LINKS = {"copy": shutil.copyfile, "hardlink": os.link, "symlink": os.symlink}


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
def test_products_that_dvc_links_into_its_cache_are_registered(
    registry: Path,
    label_space: LabelSpace,
    tracking_database: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    link: Callable[[Path, Path], object],
) -> None:
    root, cache = tmp_path / "project", tmp_path / "cache"
    shutil.copytree(registry / "models", cache)
    shutil.copytree(registry / "data", root / "data")
    shutil.copy(tracking_database, root)
    for file in (path for path in cache.rglob("*") if path.is_file()):
        file.chmod(0o444)  # as DVC protects it
        (target := root / "models" / file.relative_to(cache)).parent.mkdir(parents=True, exist_ok=True)
        link(file, target)
    monkeypatch.chdir(root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    mlflow.set_experiment(experiment_id=connect(root)[1])
    with mlflow.start_run():
        number = log_model("linked", label_space.names)
    stored = download(find_version(f"models:/linked/{number}"), tmp_path / "stored")
    files = {path.relative_to(cache) for path in cache.rglob("*") if path.is_file()}
    assert {path.relative_to(stored) for path in stored.rglob("*") if path.is_file()} == files
    for name in files:
        assert (stored / name).read_bytes() == (cache / name).read_bytes()
        assert not (stored / name).is_symlink()
        assert os.access(stored / name, os.W_OK)
    monkeypatch.undo()
    os.environ.pop("MLFLOW_TRACKING_URI", None)
