"""`tailorset export-data` and `import-data` in a project."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner, Result

from tailorset.cli import app
from tailorset.project.layout import FILTERED, LORA, THRESHOLDS, UNET_LORA
from tailorset.records import LabelSpace
from tailorset.records.verdicts import COPY, RELABELLED, ImageVerdict, verdict_lines
from tailorset.storage.checksums import digest
from tailorset.storage.image_set import synthetic_rows
from tailorset.thresholds.rules import one_threshold
from tests.export_products import make_products


@pytest.fixture
def products(project: Path) -> Path:
    """A project whose stages have run, as far as exports need them."""
    space = LabelSpace.load(project / "data" / "labels" / "toybox.yaml")
    make_products(project, 60, num_photos=30, unseen=space.unseen, seen=space.seen)
    one_threshold(space.names).save(project / THRESHOLDS)
    for adapter in (UNET_LORA, LORA):
        (project / adapter).mkdir()
        (project / adapter / "pytorch_lora_weights.safetensors").write_bytes(bytes(adapter))
    return project


def tailorset(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_photos_with_scores_in_three_splits(products: Path) -> None:
    done = tailorset("export-data", "coco", "--photos", "--scores", "--val-share", "0.2", "--test-share", "0.2")
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in Path("export-coco/images.jsonl").read_text().split("\n")[:-1]]
    assert {row["scored_by"] for row in rows if row["split"] == "test"} == {"ours", "discriminator"}
    assert "val, photos: 10 images" in done.output
    assert "no image shows" not in tailorset("export-data", "coco", "-o", "generated").output  # seen labels: of course
    assert f"export-coco: {len(rows)} images, described in croissant.json" in done.output


def test_the_description_names_models_hashes_and_clauses(products: Path) -> None:
    day = ("--published", "2026-12-31", "--url", "https://example.org/set")
    assert tailorset("export-data", "webdataset", "-o", "out", *day).exit_code == 0
    text = Path("out/croissant.json").read_text()
    content = json.loads(text)
    assert content["datePublished"] == "2026-12-31"
    assert content["license"] == ["Apache-2.0, part of tailorset", "Apache-2.0, drawn by tailorset"]  # models, photos
    assert "generated set: commercial use is allowed" in text
    assert digest(LORA) in text
    assert digest(UNET_LORA) in text
    assert "tune the UNet" in text
    assert "tune the text encoder" not in text  # num_updates is 0
    assert "drawn by a diffusion model that learned from annotated photos from prompts" in text
    assert "Photos may show people." in text
    for part in ("discriminator", "judge", "diffusion", "llm"):
        assert f"models/foundation/toybox/{part}" in text
    for setting in ("rule: grouped_softmax", "threshold: 0.9", "base seed: "):
        assert setting in text
    assert str(products) not in text


def test_the_description_names_the_tuning_of_the_text_encoder(products: Path) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["tune_text_encoder"]["num_updates"] = 80
    Path("params.yaml").write_text(yaml.safe_dump(params))
    assert tailorset("export-data", "coco", "-o", "out").exit_code == 0
    assert "tune the text encoder" in Path("out/croissant.json").read_text()


def test_the_description_names_all_that_the_images_are_made_of(products: Path) -> None:
    """Generated images that start from photos show what is on them, and are under their licence too."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["prepare_dataset"]["lend_photos"] = str(products)
    params["generate_images"]["from_photos"] = {"strength": 0.7, "num_photos": 5, "near_duplicate": 0.95}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    assert tailorset("export-data", "coco", "-o", "out").exit_code == 0
    content = json.loads(Path("out/croissant.json").read_text())
    assert any("photos that images start from" in one["description"] for one in content["usageInfo"][1:])
    assert content["rai:personalSensitiveInformation"] == ["Photos may show people."]
    assert "your own photos" in content["license"]


def test_what_was_exported_and_corrected_is_imported(products: Path) -> None:
    assert tailorset("export-data", "fiftyone", "-o", "out").exit_code == 0
    done = tailorset("import-data", "out/train", "-o", "corrected.csv")
    assert done.exit_code == 0, done.output
    assert "images: out/train, annotations: corrected.csv" in done.output
    assert Path("corrected.csv").read_text().startswith("image,umbrella,")


def test_the_description_tells_what_people_changed_in_review(products: Path) -> None:
    assert tailorset("export-data", "coco", "-o", "before").exit_code == 0
    assert "no person has corrected them" in Path("before/croissant.json").read_text()
    path = products / FILTERED / "manifest.parquet"
    manifest = pd.read_parquet(path)
    manifest.loc[manifest.index[manifest["kept"]][:2], "reason"] = RELABELLED
    manifest["reviewed"] = [["boat"] if number < 9 else [] for number in range(len(manifest))]
    manifest.to_parquet(path)
    shown = [(row.image_id, row.sha256, tuple(row.labels) if row.kept else ()) for row in manifest[:9].itertuples()]
    verdicts = {image_id: ImageVerdict(sha256=sha256, labels=labels) for image_id, sha256, labels in shown}
    Path("data/labels/review.yaml").write_text(verdict_lines(verdicts))
    assert tailorset("export-data", "coco", "-o", "after").exit_code == 0
    assert (
        "a person reviewed 9 of the candidates, struck out 0 and relabelled 2 of them"
        in Path("after/croissant.json").read_text()
    )


@pytest.mark.parametrize("day", ["yesterday", "20261231", "2026-02-30"])
def test_a_date_that_is_no_day_is_refused_before_anything_is_written(products: Path, day: str) -> None:
    done = tailorset("export-data", "coco", "--published", day)
    assert done.exit_code == 1
    assert f"--published {day} is not a day: write it as 2026-12-31" in done.output
    assert not Path("export-coco").exists()


def test_a_file_in_the_place_of_a_folder_is_named_with_the_remedy(products: Path) -> None:
    Path("file").write_text("x")
    done = tailorset("export-data", "coco", "-o", "file/out")
    assert done.exit_code == 1
    said = " ".join(done.output.split())
    assert "cannot be used (Not a directory): a file is in the place of a folder: name another place" in said


def test_verdicts_that_the_filter_has_not_applied_stop_the_export(products: Path) -> None:
    """The description would say that no person has corrected the images."""
    rows = pd.read_parquet("data/filtered/manifest.parquet")
    kept = rows[rows["kept"]].iloc[0]
    struck = {kept["image_id"]: ImageVerdict(sha256=kept["sha256"], labels=())}
    Path("data/labels/review.yaml").write_text(verdict_lines(struck))
    result = tailorset("export-data", "coco")
    assert result.exit_code == 1
    assert "1 verdict of data/labels/review.yaml waits to be applied: `make run`, then export" in result.output
    assert not Path("export-coco").exists()
    rows.loc[kept.name, "kept"] = False
    rows.at[kept.name, "reviewed"] = ["boat"]
    rows.to_parquet("data/filtered/manifest.parquet", index=False)
    assert tailorset("export-data", "coco").exit_code == 0
    Path("data/labels/review.yaml").unlink()  # the filter has applied a verdict that is withdrawn
    assert "1 verdict of data/labels/review.yaml waits" in tailorset("export-data", "coco", "-o", "out").output


def test_a_verdict_on_a_copy_of_a_photo_does_not_wait_for_ever(products: Path) -> None:
    rows = pd.read_parquet("data/filtered/manifest.parquet")
    rows.loc[0, ["kept", "reason"]] = False, COPY
    rows.at[0, "reviewed"] = ["boat"]
    rows.to_parquet("data/filtered/manifest.parquet", index=False)
    verdict = {rows.loc[0, "image_id"]: ImageVerdict(sha256=rows.loc[0, "sha256"], labels=("boat",))}
    Path("data/labels/review.yaml").write_text(verdict_lines(verdict))
    assert tailorset("export-data", "coco").exit_code == 0


def test_a_verdict_that_confirms_the_filter_waits_as_well(products: Path) -> None:
    """It tells that labels which the prompt names beside those of the image are absent."""
    rows = pd.read_parquet("data/filtered/manifest.parquet")
    kept = rows[rows["kept"]].iloc[0]
    confirmed = {kept["image_id"]: ImageVerdict(sha256=kept["sha256"], labels=tuple(kept["labels"]))}
    Path("data/labels/review.yaml").write_text(verdict_lines(confirmed))
    assert "1 verdict of data/labels/review.yaml waits" in tailorset("export-data", "coco").output


def test_an_export_annotates_what_training_learns(products: Path) -> None:
    space = LabelSpace.load(Path("data/labels/toybox.yaml"))
    paths = [Path("data") / folder / "manifest.parquet" for folder in ("synthetic", "filtered")]
    tables = [pd.read_parquet(path) for path in paths]
    texts = [f"a thing next to {'two boats' if number % 2 else 'a clock'}" for number in range(len(tables[0]))]
    tables[1]["reviewed"] = [space.unseen if number % 5 == 0 else [] for number in range(len(tables[1]))]
    shown = [(row.image_id, row.sha256, tuple(row.labels)) for row in tables[1].itertuples() if len(row.reviewed)]
    verdicts = {image_id: ImageVerdict(sha256=sha256, labels=labels) for image_id, sha256, labels in shown}
    Path("data/labels/review.yaml").write_text(verdict_lines(verdicts))
    for path, table in zip(paths, tables, strict=True):
        table.assign(prompt=texts).to_parquet(path, index=False)
    assert tailorset("export-data", "coco", "-o", "out").exit_code == 0
    rows, targets = synthetic_rows(paths[1], space)
    learned = {
        image_id: {name for name, target in zip(space.names, row, strict=True) if target == 0}
        for image_id, row in zip(rows["image_id"], targets.tolist(), strict=True)
    }
    lines = [json.loads(line) for line in Path("out/images.jsonl").read_text().splitlines()]
    assert {line["image_id"]: set(line["absent"]) for line in lines} == learned
    assert {len(absent) + len(line["labels"]) for line, absent in zip(lines, learned.values(), strict=True)} == {5, 6}


def test_products_of_an_earlier_version_are_refused(products: Path) -> None:
    path = Path("data/filtered/manifest.parquet")
    pd.read_parquet(path).drop(columns="reviewed").to_parquet(path)
    done = tailorset("export-data", "coco")
    assert done.exit_code == 1
    assert "is of an earlier version of tailorset, with no column reviewed: `make run`" in " ".join(done.output.split())


def test_an_unknown_format_names_the_choices(products: Path) -> None:
    done = tailorset("export-data", "fiftyon")
    assert done.exit_code == 1
    assert "Did you mean 'fiftyone'" in done.output
    assert "webdataset" in done.output


def test_scores_without_photos_are_refused(products: Path) -> None:
    done = tailorset("export-data", "coco", "--scores")
    assert done.exit_code == 1
    assert "add --photos" in done.output


def test_a_project_without_products_is_told_what_is_missing(project: Path) -> None:
    done = tailorset("export-data", "coco")
    assert done.exit_code == 1
    assert "are missing: `dvc pull` or `dvc checkout` restores them, `make run` makes them" in done.output


def test_a_target_that_exists(products: Path) -> None:
    Path("out").mkdir()
    done = tailorset("export-data", "coco", "-o", "out")
    assert done.exit_code == 1
    assert "out exists, and nothing is overwritten" in done.output


def test_a_full_disk_is_told_in_one_line(products: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path, labels: tuple[str, ...], images: Iterable[object]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("tailorset.exports.coco.write_images", full)
        done = tailorset("export-data", "coco", "-o", "out")
    assert done.exit_code == 1
    assert "no room left to write" in done.output
    assert "run it again: what is finished is kept" in done.output
    assert not Path("out").exists()
    assert tailorset("export-data", "coco", "-o", "out").exit_code == 0
