"""The registered model: logged by the stage's own code, loaded in a fresh process, fed files as people have them."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.pyfunc import PyFuncModel
from mlflow.pyfunc.scoring_server import _parse_json_data

from tailorset.images.codec import decode_image, encode_png
from tailorset.inference.predictor import answer_columns
from tailorset.records import LabelSpace
from tailorset.registry.examples import write_examples
from tailorset.registry.version import lineage
from tailorset.storage.annotated import Annotated
from tailorset.storage.shards import sha256, write_shard

ASK = """
import json, sys
from pathlib import Path
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/tiny/1")
files = sorted(path for path in Path(sys.argv[2]).iterdir())
scores = model.predict(pd.DataFrame({"image": [path.read_bytes() for path in files]}))
print(json.dumps({"files": [path.name for path in files], "scores": scores.to_dict("records")}))
"""


@pytest.fixture(scope="module")
def model(registry: Path) -> PyFuncModel:
    """The registered version, loaded in this process."""
    mlflow.set_tracking_uri(f"sqlite:///{registry / 'mlflow.db'}")
    return mlflow.pyfunc.load_model("models:/tiny/1")


def ask(registry: Path, files: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", ASK, f"sqlite:///{registry / 'mlflow.db'}", str(files)]
    strict = {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "PYTHONPATH": ""}
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | strict, check=False, cwd=files)


def test_a_fresh_process_answers_every_kind_of_file(registry: Path, photos: Path, label_space: LabelSpace) -> None:
    answer = ask(registry, photos)
    assert answer.returncode == 0, answer.stderr
    said = json.loads(answer.stdout.splitlines()[-1])
    assert len(said["scores"]) == len(said["files"]) >= 7
    for row in said["scores"]:
        assert list(row) == list(answer_columns(label_space.names))
        for label in label_space.names:
            assert 0 <= row[f"probability/{label}"] <= 1
            assert row[f"decision/{label}"] in ("present", "absent", "open")
            assert 0 <= row[f"threshold/{label}"] <= 1
            assert 0 <= row[f"score/{label}"] <= 1


def test_the_model_says_the_same_over_http_as_in_memory(model: PyFuncModel, label_space: LabelSpace) -> None:
    """Scoring a JSON request, as `mlflow models serve` does, without the network."""
    content = encode_png(np.full((40, 30, 3), 120, np.uint8))
    request = {"columns": ["image"], "data": [[base64.b64encode(content).decode()]]}
    data = json.dumps({"dataframe_split": request})
    parsed = _parse_json_data(data, model.metadata, model.metadata.get_input_schema())
    over_http = model.predict(parsed.data)
    direct = model.predict({"image": [content]})
    assert list(over_http.columns) == list(answer_columns(label_space.names))
    assert list(over_http.columns) == model.metadata.get_output_schema().input_names()
    pd.testing.assert_frame_equal(over_http, direct)


def test_bytes_that_are_no_image_are_named_by_row(model: PyFuncModel) -> None:
    content = encode_png(np.full((40, 30, 3), 120, np.uint8))
    with pytest.raises(ValueError, match=r"row 1: .* not a readable image"):
        model.predict(pd.DataFrame({"image": [content, content[:40]]}))


def test_the_logged_model_holds_no_pickle_and_brings_its_package(registry: Path) -> None:
    names = [path.name for path in (registry / "mlartifacts").rglob("*") if path.is_file()]
    assert {"classifier.safetensors", "config.json", "mlflow_model.py", "shards.py"} <= set(names)
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".pth", ".bin"))]


def test_a_version_says_what_it_was_made_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\n")
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    tags = lineage({})
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    changed = {key for key, value in lineage({}).items() if tags[key] != value}
    assert changed == {"params.sha256"}
    monkeypatch.setenv("DVC_EXP_NAME", "sunny-dune")
    assert lineage({})["dvc.experiment"] == "sunny-dune"


def test_examples_show_many_labels_with_few_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images = {f"p{level}": encode_png(np.full((6, 9, 3), level, np.uint8)) for level in range(6)}
    write_shard(Path("data/real/shards/test-00000.tar"), images.items())
    rows = pd.DataFrame([(name, "test-00000.tar", sha256(png)) for name, png in images.items()])
    rows.columns = ["image_id", "shard", "sha256"]
    targets = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [-1, -1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1]])
    write_examples(Annotated(rows, targets, Path("data/real"), "real"), tmp_path / "examples")
    chosen = [decode_image(file.read_bytes()).getpixel((0, 0))[0] for file in sorted((tmp_path / "examples").iterdir())]
    assert set(chosen) >= {1, 3, 4}  # these three show all four labels
    assert len(chosen) == 4
    write_examples(Annotated(rows[:2], targets[:2], Path("data/real"), "real"), tmp_path / "few")
    assert len(list((tmp_path / "few").iterdir())) == 2


def test_base64_may_be_wrapped_or_a_data_url_and_other_types_are_named_by_row(model: PyFuncModel) -> None:
    served = model.unwrap_python_model()
    content = encode_png(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))
    wrapped, url = base64.encodebytes(content).decode(), f"data:image/png;base64,{base64.b64encode(content).decode()}"
    rows = served.predict(None, pd.DataFrame({"image": [content, wrapped, url]})).to_numpy()
    assert (rows == rows[0]).all()
    for wrong in (None, float("nan"), 5):
        with pytest.raises(ValueError, match=r"row 1: this is .*: send a file's bytes"):
            served.predict(None, pd.DataFrame({"image": pd.Series([content, wrong], dtype=object)}))
