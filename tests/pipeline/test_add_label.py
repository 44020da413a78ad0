"""`tailorset add-label` on a small project: prompts, images, filter, training, thresholds and the new version."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import torch

from pipeline import add_label as script
from tailorset.classifiers import load_classifier
from tailorset.commands.adding import Addition
from tailorset.generation.studio import Studio
from tailorset.project.layout import ADDED_DATA, ADDED_MODELS, CLASSIFIER
from tailorset.project.versions import ADDED, content_here
from tailorset.records import read_prompts
from tailorset.registry.measurement import Measurement
from tailorset.storage.image_set import load_image_set, real_rows
from tailorset.thresholds.rules import Thresholds
from tests.addition_project import start_addition, write_addition_project

NAME = "tailorset-small"
Add = Callable[..., None]


@pytest.fixture
def added_to(project: Path, tiny_clip_folder: Path, tiny_judge_folder: Path, one_thread: None) -> Path:
    write_addition_project(tiny_clip_folder, tiny_judge_folder)
    return project


@pytest.fixture
def add(monkeypatch: pytest.MonkeyPatch) -> Add:
    def add(*names: str, model: str = str(CLASSIFIER)) -> None:
        addition = Addition(names=names, model=model)
        monkeypatch.setattr("sys.argv", ["add_label.py", addition.model_dump_json()])
        script.main()

    return add


def test_the_added_label_has_images_a_score_a_threshold_and_a_version(
    added_to: Path, add: Add, capsys: pytest.CaptureFixture[str]
) -> None:
    add("drum")
    data, models = ADDED_DATA / "drum", ADDED_MODELS / "drum"
    prompts = read_prompts(data / "prompts.parquet")
    assert {prompt.labels for prompt in prompts} == {("drum",), ("key", "drum"), ("cup", "drum"), ("fish", "drum")}
    assert len(prompts) == 12
    manifest = pd.read_parquet(data / "synthetic" / "manifest.parquet")
    assert all("drum" in labels for labels in manifest["labels"])
    assert {len(logits) for logits in manifest["discriminator_logits"]} == {4}  # against all unseen labels

    base, grown = load_classifier(CLASSIFIER), load_classifier(models / "classifier")
    rows, targets = real_rows(data / "real", "test", grown.label_space)
    assert (targets[:, -1] == -1).all()  # nobody annotated drums
    photos = load_image_set(rows, targets, data / "real", grown.image_px).images.float() / 255
    with torch.no_grad():
        assert (grown(photos)[:, :-1] - base(photos)).abs().max() <= 1e-6
    rules, before = Thresholds.load(models / "thresholds.json"), Thresholds.load("models/thresholds.json")
    assert (rules.labels, rules.photo_px) == ((*before.labels, "drum"), 64)
    assert all(rules.rules[name] == before.rules[name] for name in before.labels)

    client = mlflow.MlflowClient(f"sqlite:///{added_to / 'mlflow.db'}")
    version = client.get_model_version_by_alias(NAME, "challenger")
    assert version.tags[ADDED] == "drum"
    assert version.tags["content.sha256"] == content_here(models)
    assert client.get_run(version.run_id).data.params["add_label.names"] == "['drum']"
    measured = Measurement.load(models / "measured.json")
    assert measured.added == {"drum": [None, None]}
    assert measured.before is not None
    assert set(measured.before.average_precision) == set(before.labels)
    notes = json.loads((data / "added.json").read_text())
    assert notes == {"labels": ["drum"], "next_to": ["key", "cup", "fish"], "to": str(CLASSIFIER)} | {
        "label_file": "data/labels/small.yaml"
    }
    output = capsys.readouterr().out
    assert "Prompts: 12, after 0 refused replies." in output
    kept = int(pd.read_parquet(data / "filtered" / "manifest.parquet")["kept"].sum())
    assert f"Images: {len(manifest)} drawn, {kept} kept" in output
    assert "4 labels" not in output
    assert "| drum |" in (models / "MODEL_CARD.md").read_text()
    assert not list(Path(".work/add_label").iterdir())
    assert content_here() != content_here(models)  # models/ itself stays as it was


def test_a_second_addition_keeps_the_first(added_to: Path, add: Add) -> None:
    add("drum")
    first = ADDED_MODELS / "drum" / "classifier"
    add("lamp", model=str(first))
    base, grown = load_classifier(first), load_classifier(ADDED_MODELS / "lamp" / "classifier")
    assert grown.labels[-2:] == ("drum", "lamp")
    images = torch.rand(5, 3, 40, 40)
    with torch.no_grad():
        assert (grown(images)[:, :-1] - base(images)).abs().max() <= 1e-6


def test_photos_that_are_annotated_for_the_label_choose_and_measure(added_to: Path, add: Add) -> None:
    targets = pd.read_parquet("data/real/targets.parquet")
    shown = targets["image_id"].str.startswith("train").map({True: -1, False: 1}).astype("int8")
    targets["drum"] = shown.where(targets.index % 2 == 0, shown - 1).clip(lower=-1).astype("int8")
    targets.to_parquet("data/real/targets.parquet")
    add("drum")
    ((ours, clip),) = Measurement.load(ADDED_MODELS / "drum" / "measured.json").added.values()
    assert ours is not None
    assert clip is not None


def test_too_few_kept_images_end_it_before_training(added_to: Path, add: Add) -> None:
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("min_images_per_label: 4", "min_images_per_label: 1000"))
    with pytest.raises(
        ValueError, match=r"images of drum were kept, and 1000 or more are needed .*; rejected: .* \(--alias\)"
    ):
        add("drum")
    assert not ADDED_DATA.exists()


def test_a_killed_addition_goes_on_and_ends_as_an_uninterrupted_one(added_to: Path, add: Add) -> None:
    addition = Addition(names=("drum",), model=str(CLASSIFIER))
    process = start_addition(addition, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while len(seals := list(Path(".work").glob("add_label/*/*.tar.sha256"))) < 2:
            assert process.poll() is None, "it ended before it had finished two shards"
            time.sleep(0.01)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    written = {seal: seal.stat().st_mtime_ns for seal in seals}
    add("drum")
    resumed = products()
    add("drum")  # from the start, as the first one has ended
    assert products() == resumed
    assert all(not seal.exists() for seal in written)  # the resume folder is gone


def test_an_addition_that_could_not_be_registered_goes_on_at_the_registration(
    added_to: Path, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[object] = []
    draw, register = Studio.draw_shard, script.register

    def counted(studio: Studio, *arguments: Any) -> Any:
        drawn.append(arguments)
        return draw(studio, *arguments)

    monkeypatch.setattr(Studio, "draw_shard", counted)
    monkeypatch.setattr(script, "register", lambda *_: 1 / 0)
    with pytest.raises(ValueError, match=r"nothing was registered.*run it again"):
        add("drum")
    assert drawn
    drawn.clear()
    monkeypatch.setattr(script, "register", register)
    add("drum")
    assert not drawn
    assert not list(Path(".work/add_label").iterdir())


def products() -> dict[str, bytes]:
    files = [path for folder in (ADDED_DATA, ADDED_MODELS) for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): path.read_bytes() for path in files}
