"""From train_classifier to evaluate on a small project: which split each may touch, what they write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

from tailorset.clip.model import load_clip
from tailorset.evaluation.metrics import zero_shot_metrics
from tailorset.records import LabelSpace
from tailorset.storage.image_set import load_image_set, real_rows
from tests.classifier_project import ACCEPTANCE, LABELS, SIZES, run, write_classifier_project, write_real

ROOT = Path(__file__).resolve().parents[2]
METRICS = ("map", "f1_at_3", "precision_at_3", "recall_at_3", "num_labels_without_positive")
RULES = ("fitted", "one_threshold", "real_labels")
TRUST = ("ece", "f1_macro", "f1_micro", "risk", "aurc", "coverage")


@pytest.fixture
def small_project(project: Path, tiny_judge_folder: Path) -> Path:
    write_classifier_project(tiny_judge_folder)
    return project


def drop_split(split: str) -> None:
    """As if the split had never been: a stage that needs it fails."""
    manifest = pd.read_parquet("data/real/manifest.parquet")
    manifest[manifest["split"] != split].to_parquet("data/real/manifest.parquet")
    Path(f"data/real/shards/{split}-00000.tar").unlink()


def test_training_and_thresholds_never_need_test_and_evaluation_never_needs_train(small_project: Path) -> None:
    drop_split("test")
    run("train_classifier")
    training = json.loads(Path("reports/train_classifier/metrics.json").read_text())
    assert training["num_real_images"] == 6
    assert training["num_synthetic_images"] == 7
    history = pd.read_csv("reports/train_classifier/plots/history.csv")
    assert history["epoch"].tolist() == [-1, 0, 1, 2]  # raw CLIP, the start, two epochs
    best = history.loc[history["val/harmonic_map"].idxmax()]
    assert training["best_epoch"] == best["epoch"]
    assert training["val/zsl/map"] == pytest.approx(best["val/zsl/map"])
    assert training["val/raw_clip/gzsl/map"] == pytest.approx(history["val/gzsl/map"][0])
    assert Path("reports/train_classifier/plots/augmented.png").stat().st_size > 1000

    run("fit_thresholds")
    sides = pd.read_parquet("data/real/manifest.parquet")[["width", "height"]]
    assert json.loads(Path("models/thresholds.json").read_text())["photo_px"] == sides.min(axis=1).max()
    write_real()
    drop_split("train")
    run("score_baselines")
    run("evaluate")
    metrics = json.loads(Path("reports/metrics.json").read_text())
    prefixes = ["", *(f"baseline/{name}/" for name in ("clip", "clip_ensemble", "clip_normalised", "clip_patches"))]
    rows = [f"{prefix}{task}/{key}" for prefix in prefixes for task in ("zsl", "gzsl") for key in METRICS]
    measured = {key for key in metrics if not key.startswith("trust/")}
    assert measured == {*rows, *ACCEPTANCE, "evaluate/photos"}
    trust = {f"trust/{rule}/{task}/{key}" for rule in RULES for task in ("zsl", "gzsl") for key in TRUST}
    assert trust <= metrics.keys() <= measured | trust | {key for key in metrics if "/answered/" in key}
    check_table(metrics)
    check_scores(metrics)
    for plot in ("precision_recall", "test_images", "trust"):
        assert Path(f"reports/evaluate/plots/{plot}.png").stat().st_size > 1000
    Path("reports/tune_text_encoder/metrics.json").write_text('{"tune/updates": 0}')  # the text encoder is not tuned
    run("evaluate")
    assert json.loads(Path("reports/metrics.json").read_text()).keys() == metrics.keys() - ACCEPTANCE.keys()
    space = yaml.safe_load(Path("data/labels/small.yaml").read_text())
    Path("data/labels/small.yaml").write_text(yaml.safe_dump(space | {"labels": space["labels"][::-1]}))
    with pytest.raises(ValueError, match="train it again"):
        run("evaluate")


def test_baseline_scores_that_are_missing_or_of_other_photos_are_named_with_their_stage(small_project: Path) -> None:
    for stage in ("train_classifier", "fit_thresholds"):
        run(stage)
    with pytest.raises(ValueError, match=r"score_baselines/scores.parquet is missing: .*`dvc repro score_baselines`"):
        run("evaluate")
    run("score_baselines")
    scores = Path("reports/score_baselines/scores.parquet")
    table = pd.read_parquet(scores)
    table[table["image_id"] != "test3"].to_parquet(scores)
    with pytest.raises(ValueError, match=r"does not hold scores of these photos .*test3.* score_baselines"):
        run("evaluate")
    scores.write_bytes(b"no table")
    with pytest.raises(ValueError, match=r"scores.parquet does not hold scores .*: run `dvc repro score_baselines`"):
        run("evaluate")


def test_all_factors_go_through_all_stages(small_project: Path) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    factors = {"separate_tokens": 1, "interpolation": [0.5], "label_residual_learning_rate": 0.01}
    params["train_classifier"] |= factors | {"cache": {"alpha": [0.5, 50], "beta": [5]}}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    for stage in ("train_classifier", "fit_thresholds", "score_baselines", "evaluate"):
        run(stage)
    history = pd.read_csv("reports/train_classifier/plots/history.csv")
    assert history["epoch"].tolist()[:4] == [-1, 0, 1, 2]
    assert history["interpolation"].tolist()[4] == 0.5
    assert history["cache_alpha"].tolist()[5:] == [0.5, 50]
    training = json.loads(Path("reports/train_classifier/metrics.json").read_text())
    assert training["val/harmonic_map"] == history["val/harmonic_map"].max()
    config = json.loads(Path("models/classifier/config.json").read_text())["config"]
    assert config.items() >= {"separate_tokens": 1, "interpolation": [0.5]}.items()


def test_two_processes_train_as_one_does(small_project: Path) -> None:
    history = Path("reports/train_classifier/plots/history.csv")
    run("train_classifier")
    alone = pd.read_csv(history)
    history.unlink()
    params = yaml.safe_load(Path("params.yaml").read_text()) | {"num_processes": 2}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    command = [sys.executable, str(ROOT / "pipeline" / "train_classifier.py")]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert answer.stderr.count("2 processes share this stage") == 1
    pd.testing.assert_frame_equal(pd.read_csv(history), alone, rtol=1e-3)
    assert load_file("models/classifier/classifier.safetensors")


def check_table(metrics: dict[str, float]) -> None:
    table = pd.read_csv("reports/evaluate/per_label.csv")
    truth = pd.read_parquet("data/real/targets.parquet").set_index("image_id").filter(like="test", axis=0)
    assert table["label"].tolist() == list(LABELS)
    assert table["positives"].tolist() == [int((truth[name] == 1).sum()) for name in LABELS]
    unseen = table[~table["seen"]]
    for column, key in (
        ("ours", ""),
        ("clip", "baseline/clip/"),
        ("clip_normalised", "baseline/clip_normalised/"),
        ("clip_patches", "baseline/clip_patches/"),
    ):
        assert unseen[column].mean() == pytest.approx(metrics[f"{key}zsl/map"])


def check_scores(metrics: dict[str, float]) -> None:
    """The saved scores give the reported figures again."""
    space = LabelSpace.load("data/labels/small.yaml")
    scores = pd.read_parquet("reports/evaluate/scores.parquet")
    assert scores["method"].unique().tolist() == [
        "annotations",
        "clip",
        "clip_ensemble",
        "clip_normalised",
        "clip_patches",
        "ours",
    ]
    ours = scores[scores["method"] == "ours"]
    truth = pd.read_parquet("data/real/targets.parquet").set_index("image_id").loc[ours["image_id"], list(LABELS)]
    values = torch.from_numpy(ours[list(LABELS)].to_numpy())
    found = zero_shot_metrics(values, torch.from_numpy(truth.to_numpy("int8")), space)
    assert found["zsl/map"] == pytest.approx(metrics["zsl/map"])
    assert found["gzsl/f1_at_3"] == pytest.approx(metrics["gzsl/f1_at_3"])


@pytest.mark.parametrize("train_on", ["real", "synthetic"])
def test_training_on_one_kind_of_images(small_project: Path, train_on: str) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["train_classifier"]["train_on"] = [train_on]
    Path("params.yaml").write_text(yaml.safe_dump(params))
    run("train_classifier")
    training = json.loads(Path("reports/train_classifier/metrics.json").read_text())
    counts = {name: training[f"num_{name}_images"] for name in ("real", "synthetic")}
    assert counts.pop(train_on) in (6, 7)  # about half is held out
    assert list(counts.values()) == [0]


def test_targets_follow_images_and_labels_by_name(small_project: Path) -> None:
    from tailorset.storage.image_set import load_image_set, real_rows, synthetic_rows

    space = LabelSpace.load("data/labels/small.yaml")
    rows, targets = real_rows(Path("data/real"), "val", space)
    data = load_image_set(rows, targets, Path("data/real"), 16)
    table = pd.read_parquet("data/real/targets.parquet").set_index("image_id")
    for image_id, row in zip(data.ids, data.targets.tolist(), strict=True):
        assert row == [table.loc[image_id, name] for name in LABELS]
    assert data.images.shape == (9, 3, 16, 16)
    rows, targets = synthetic_rows(Path("data/filtered/manifest.parquet"), space)
    assert targets.tolist() == [[1, 0, 0, -1, -1], [0, 1, 0, -1, -1], [1, 0, 1, -1, -1]] * 4


def thresholds_bytes() -> bytes:
    run("fit_thresholds")
    return Path("models/thresholds.json").read_bytes()


@pytest.mark.parametrize("source", ["seen_photos", "synthetic"])
def test_thresholds_never_read_the_labels_of_the_photos(small_project: Path, source: str) -> None:
    set_param("fit_thresholds", "source", source)
    run("train_classifier")
    before = thresholds_bytes()
    table = pd.read_parquet("data/real/targets.parquet")
    others = table["image_id"].str.startswith(("val", "test"))
    table.loc[others, list(LABELS)] = 1 - table.loc[others, list(LABELS)]
    table.to_parquet("data/real/targets.parquet")
    assert thresholds_bytes() == before


def set_param(block: str, key: str, value: object) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    params[block][key] = value
    Path("params.yaml").write_text(yaml.safe_dump(params))


def test_photos_that_nobody_annotated_are_calibrated_on_and_looked_at(
    small_project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = [{"name": name, "seen": False} for name, seen in LABELS.items() if not seen]
    Path("data/labels/small.yaml").write_text(yaml.safe_dump({"name": "small", "labels": labels}))
    set_param("train_classifier", "train_on", ["synthetic"])
    set_param("fit_thresholds", "source", "synthetic")
    set_param("tune_unet", "num_updates", 0)
    set_param("generate_images", "negative_images", 0)
    table = pd.read_parquet("data/real/targets.parquet")
    table[list(LABELS)] = np.int8(-1)
    table.to_parquet("data/real/targets.parquet")
    drop_split("train")
    for stage in ("train_classifier", "fit_thresholds", "score_baselines", "evaluate"):
        run(stage)
    training = json.loads(Path("reports/train_classifier/metrics.json").read_text())
    assert 0 < training["val/zsl/map"] <= 1  # of held-out generated images
    assert json.loads(Path("reports/metrics.json").read_text()) == ACCEPTANCE | {"evaluate/photos": SIZES["test"]}
    assert "the epoch is chosen on generated images" in caplog.text
    assert "nothing can be measured" in caplog.text
    scores = pd.read_parquet("reports/evaluate/scores.parquet")
    assert scores.loc[scores["method"] == "ours", "image_id"].tolist() == [f"test{i}" for i in range(SIZES["test"])]
    assert Path("reports/evaluate/plots/test_images.png").exists()
    assert pd.read_csv("reports/evaluate/per_label.csv")["ours"].isna().all()


def test_without_seen_labels_settings_must_not_ask_for_them(small_project: Path) -> None:
    space = yaml.safe_load(Path("data/labels/small.yaml").read_text())
    labels = [label | {"seen": False} for label in space["labels"]]
    Path("data/labels/small.yaml").write_text(yaml.safe_dump(space | {"labels": labels}))
    with pytest.raises(ValueError, match=r"no seen label, but train_classifier.train_on asks for real images"):
        run("train_classifier")
    set_param("train_classifier", "train_on", ["synthetic"])
    with pytest.raises(ValueError, match=r"fit_thresholds.source is seen_photos: set it to synthetic"):
        run("train_classifier")
    set_param("fit_thresholds", "source", "synthetic")
    set_param("train_classifier", "choose_on_seen", True)
    with pytest.raises(ValueError, match=r"train_classifier.choose_on_seen is true: set it to false"):
        run("train_classifier")


def test_val_that_lacks_a_label_costs_the_bound_only(small_project: Path, caplog: pytest.LogCaptureFixture) -> None:
    run("train_classifier")
    run("fit_thresholds")
    table = pd.read_parquet("data/real/targets.parquet")
    table.loc[table["image_id"].str.startswith("val"), "cup"] = np.int8(0)
    table.to_parquet("data/real/targets.parquet")
    run("score_baselines")
    run("evaluate")
    metrics = json.loads(Path("reports/metrics.json").read_text())
    assert "zsl/map" in metrics
    assert "trust/fitted/zsl/ece" in metrics
    assert not any(key.startswith("trust/real_labels") for key in metrics)
    assert "no bound for the thresholds: val lacks photos with, or without, cup" in caplog.text


def test_generated_images_are_shown_as_often_as_asked_each_time_augmented_anew() -> None:
    from tailorset.storage.image_set import ImageSet
    from tailorset.training.contract import Augmentation, AugmentConfig
    from tailorset.training.images import epoch_images
    from tailorset.training.loop import augmented
    from tailorset.training.settings import TrainClassifier

    pixels = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    photo = ImageSet(("p",), pixels, torch.tensor([[1, -1]], dtype=torch.int8))
    drawn = ImageSet(("d",), pixels, torch.tensor([[-1, 1]], dtype=torch.int8), "synthetic")
    block = TrainClassifier.model_construct(synthetic_repeats=3, mosaics=0)
    data = epoch_images({"real": photo, "synthetic": drawn}, block, seed=0)
    assert data.targets.tolist() == [[1, -1], [-1, 1], [-1, 1], [-1, 1]]
    assert len(set(data.ids)) == 4
    config = AugmentConfig(synthetic=Augmentation(zoom_out=0.5))
    seen = augmented(data, range(4), config, seed=0, epoch=0)
    assert len({image.numpy().tobytes() for image in seen[1:]}) == 3
    assert torch.equal(seen[0], pixels[0] / 255)  # photos have settings of their own


def test_mosaics_show_four_generated_images_and_what_is_known_of_them() -> None:
    from tailorset.storage.image_set import ImageSet
    from tailorset.training.images import epoch_images
    from tailorset.training.settings import TrainClassifier

    greys = torch.tensor([10, 20, 30, 40, 50], dtype=torch.uint8)
    pixels = greys.view(5, 1, 1, 1).expand(5, 3, 7, 7)  # an odd side
    targets = torch.tensor([[-1, 1, 0], [-1, 0, 0], [-1, 0, 1], [-1, 0, -1], [-1, 0, 0]], dtype=torch.int8)
    drawn = ImageSet(tuple("abcde"), pixels, targets, "synthetic")
    block = TrainClassifier.model_construct(synthetic_repeats=1, mosaics=2)
    data = epoch_images({"synthetic": drawn}, block, seed=0)
    assert len(data) == 15
    assert data.copies == (0,) * 5 + (1,) * 10  # a cache of generated images has no mosaics
    assert set(data.sources) == {"synthetic"}
    assert len(set(data.ids)) == 15
    used = []
    for index in range(5, 15):
        image = data.pixels([index])[0]
        corners = [image[0, 0, 0], image[0, 0, -1], image[0, -1, 0], image[0, -1, -1]]
        four = [int(corner) // 10 - 1 for corner in corners]
        used += four
        assert image[:, :3, :3].eq(corners[0]).all()
        assert image[:, 3:, 3:].eq(corners[3]).all()
        for column, known in enumerate(data.targets[index].tolist()):
            parts = targets[four, column].tolist()
            assert known == (1 if 1 in parts else -1 if -1 in parts else 0)
    assert {used.count(image) for image in range(5)} == {8}
    again = epoch_images({"synthetic": drawn}, block, seed=0)
    other = epoch_images({"synthetic": drawn}, block, seed=1)
    assert torch.equal(again.pixels(range(15)), data.pixels(range(15)))
    assert not torch.equal(other.pixels(range(15)), data.pixels(range(15)))
    photos = ImageSet(("p",), pixels[:1], targets[:1])
    assert len(epoch_images({"real": photos}, block, seed=0)) == 1


def test_a_rare_label_is_held_out_as_well_if_it_can_be() -> None:
    from tailorset.storage.image_set import split_held_out

    rows = pd.DataFrame({"image_id": [f"i{k}" for k in range(40)], "prompt_id": [f"p{k // 2}" for k in range(40)]})
    targets = torch.zeros(40, 3, dtype=torch.int8)
    targets[:, 0] = 1
    targets[[6, 7, 20], 1] = 1  # prompts p3 and p10
    targets[[31], 2] = 1  # only prompt p15: it is needed in training
    (_, kept), (held_out_rows, held_out) = split_held_out(rows, targets, 0.1)
    assert (held_out[:, 1] == 1).any()
    assert (kept[:, 1] == 1).any()
    assert (kept[:, 2] == 1).any()
    assert held_out_rows["prompt_id"].nunique() in (2, 3)


def test_what_is_held_out_shares_no_prompt_with_what_is_trained_on(small_project: Path) -> None:
    from tailorset.storage.image_set import split_held_out, synthetic_rows

    rows, targets = synthetic_rows(Path("data/filtered/manifest.parquet"), LabelSpace.load("data/labels/small.yaml"))
    (kept, kept_targets), (held_out, held_out_targets) = split_held_out(rows, targets, 0.25)
    assert set(kept["image_id"]) | set(held_out["image_id"]) == set(rows["image_id"])
    assert not set(kept["prompt_id"]) & set(held_out["prompt_id"])
    assert held_out["prompt_id"].nunique() in (2, 3)  # a quarter of eight, and one for a label that they lack
    assert (held_out_targets[:, :3] == 1).any(0).all()
    assert (len(kept_targets), len(held_out_targets)) == (len(kept), len(held_out))
    (_, _), (again, again_targets) = split_held_out(rows[::-1], targets.flip(0), 0.25)
    assert again["image_id"].tolist() == held_out["image_id"].tolist()[::-1]
    assert again_targets.flip(0).tolist() == held_out_targets.tolist()


def annotate_val_as_raw_clip_sees_it() -> None:
    """No training can be better on val than raw CLIP, whose best-scored half of the photos shows each label."""
    space, params = LabelSpace.load("data/labels/small.yaml"), yaml.safe_load(Path("params.yaml").read_text())
    clip = load_clip(params["train_classifier"]["backbone"]["model"], "cpu")
    rows, targets = real_rows(Path("data/real"), "val", space)
    images = load_image_set(rows, targets, Path("data/real"), clip.image_px).images.float() / 255
    with torch.no_grad():
        logits = clip.logits(images, clip.encode_texts(space.names, params["clip"]["prompt_template"]))
    shown = pd.DataFrame((logits > logits.median(0).values).numpy(), list(rows["image_id"]), list(space.names), "int8")
    table = pd.read_parquet("data/real/targets.parquet").set_index("image_id")
    table.update(shown)
    table.astype("int8").reset_index().to_parquet("data/real/targets.parquet")


def test_a_classifier_kept_as_raw_clip_measures_as_raw_clip_does(
    small_project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    annotate_val_as_raw_clip_sees_it()
    for stage in ("train_classifier", "fit_thresholds", "score_baselines", "evaluate"):
        run(stage)
    training = json.loads(Path("reports/train_classifier/metrics.json").read_text())
    metrics = json.loads(Path("reports/metrics.json").read_text())
    assert (training["best_epoch"], training["val/zsl/map"]) == (-1, 1)
    assert training["val/trained/zsl/map"] < 1
    assert "Training did not help" in caplog.text
    assert "raw CLIP 100.0 / 100.0" in caplog.text
    for key in METRICS:
        for task in ("zsl", "gzsl"):
            assert metrics[f"{task}/{key}"] == pytest.approx(metrics[f"baseline/clip/{task}/{key}"], abs=1e-6)
