"""prepare_dataset, filter_images and validate_data, run in a small project."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from pipeline import filter_images, prepare_dataset, validate_data
from tailorset.commands.reviewing import image_desk
from tailorset.datasets import toybox
from tailorset.datasets.reading import report
from tailorset.images.codec import encode_png
from tailorset.project.assembly import open_studio
from tailorset.project.layout import FILTERED, PREPARED, PROMPTS, REAL, REVIEW, SYNTHETIC
from tailorset.project.params import load_params
from tailorset.prompts.contract import REASONS
from tailorset.records import (
    FILTERED_COLUMNS,
    PROMPT_COLUMNS,
    REAL_COLUMNS,
    SPLITS,
    SYNTHETIC_COLUMNS,
    LabelSpace,
    RealSample,
    Rejected,
    Split,
)
from tailorset.records.verdicts import ImageVerdict, verdict_lines
from tailorset.storage.files import write_json
from tailorset.storage.lent import lent_photos
from tailorset.storage.shards import load_images

pytestmark = pytest.mark.filterwarnings("ignore::tailorset.project.tracking.TrackingWarning")
SIZES = {"train": 20, "val": 9, "test": 12}
REPORT = Path("reports/validation/report.json")


@pytest.fixture
def small_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project with few and small images, and no MLflow server to talk to."""
    sizes = {f"num_{split}": size for split, size in SIZES.items()}
    change_params("prepare_dataset", **sizes, image_px=16, shard_size=8)
    change_params("tune_unet", num_updates=0)
    change_params("validate_data", min_images_per_label=3)
    monkeypatch.setattr("tailorset.project.tracking.connect", refuse)
    monkeypatch.setattr(report, "NUM_EXAMPLES", 2)
    return project


def refuse(root: Path) -> None:
    raise ConnectionError("no tracking server in this test")


def change_params(block: str, **values: Any) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    params[block] |= values
    Path("params.yaml").write_text(yaml.safe_dump(params))


def prepared_with(**values: Any) -> bytes:
    """Run prepare_dataset with other settings, and return what the stages that wait for it depend on."""
    change_params("prepare_dataset", **values)
    prepare_dataset.main()
    return PREPARED.read_bytes()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def metrics_of(stage: str) -> dict[str, float]:
    return json.loads(Path(f"reports/{stage}/metrics.json").read_text())


def space() -> LabelSpace:
    return LabelSpace.load("data/labels/toybox.yaml")


def write_generated() -> None:
    """Prompts for every pair, and three candidates for each: two that show their labels, one that does not."""
    unseen = space().unseen
    prompts = pd.DataFrame(
        [
            (f"p{k}", " next to ".join(f"a {name}" for name in labels), list(labels), "llm", 1)
            for k, labels in enumerate(space().pairs())
        ],
        columns=PROMPT_COLUMNS,
    )
    rows = []
    for k, prompt in enumerate(islice(cycle(prompts.itertuples()), 3 * len(prompts))):
        shown = np.array([10.0 * (name in prompt.labels) for name in unseen])
        logits = shown if k < 2 * len(prompts) else 10.0 - shown
        asked = (f"s{k}", prompt.prompt_id, prompt.text, prompt.labels, k)
        image = ("synthetic-00000.tar", f"sha-s{k}", 16, 16, 0.5, 0.2)
        rows.append((*asked, *image, logits.tolist(), (shown if k % 2 else 10.0 - shown).tolist()))
    refused = {f"prompts/rejected/{reason}": 0 for reason in REASONS}
    write_json(validate_data.WRITTEN, refused)
    PROMPTS.parent.mkdir(parents=True)
    prompts.to_parquet(PROMPTS)
    SYNTHETIC.mkdir(parents=True)
    pd.DataFrame(rows, columns=SYNTHETIC_COLUMNS).to_parquet(SYNTHETIC / "manifest.parquet")


@pytest.mark.usefixtures("small_project")
class TestPrepareDataset:
    def test_products_are_complete(self) -> None:
        prepare_dataset.main()
        manifest, targets = (pd.read_parquet(REAL / f"{name}.parquet") for name in ("manifest", "targets"))
        assert tuple(manifest.columns) == REAL_COLUMNS
        assert tuple(targets.columns) == ("image_id", *space().names)
        assert manifest["split"].value_counts().to_dict() == SIZES
        assert manifest["shard"].nunique() == 3 + 2 + 2
        assert [name for name, _ in load_images(manifest, REAL)] == list(manifest["image_id"])

    def test_unseen_truth_stays_out_of_train(self) -> None:
        prepare_dataset.main()
        targets = pd.read_parquet(REAL / "targets.parquet")
        train = pd.read_parquet(REAL / "manifest.parquet")["split"].eq("train")
        assert (targets.loc[train, list(space().unseen)] == -1).all(axis=None)
        assert (targets.loc[train, list(space().seen)] >= 0).all(axis=None)
        assert (targets.loc[~train, list(space().names)] >= 0).all(axis=None)

    def test_reports_say_what_is_there(self) -> None:
        prepare_dataset.main()
        counts = pd.read_csv("reports/prepare_dataset/plots/label_counts.csv", index_col="label")
        targets = pd.read_parquet(REAL / "targets.parquet")
        assert counts.loc["car", ["train", "val", "test"]].sum() == (targets["car"] == 1).sum()
        assert (counts.loc[list(space().unseen), "train"] == 0).all()
        metrics = metrics_of("prepare_dataset")
        assert {split: metrics[f"real/{split}/num_images"] for split in SIZES} == SIZES
        assert metrics["real/train/num_labels"] <= len(space().seen)
        plots = {path.name for path in Path("reports/prepare_dataset/plots").iterdir()}
        assert plots == {"photo_style.png", "web_style.png", "label_counts.csv", "rejected.csv"}

    def test_shard_size_changes_no_image(self) -> None:
        prepare_dataset.main()
        small = pd.read_parquet(REAL / "manifest.parquet")
        change_params("prepare_dataset", shard_size=1000)
        prepare_dataset.main()
        large = pd.read_parquet(REAL / "manifest.parquet")
        assert large["shard"].nunique() == 3
        assert small.drop(columns="shard").equals(large.drop(columns="shard"))

    def test_an_interrupted_run_goes_on_where_it_was(self, monkeypatch: pytest.MonkeyPatch) -> None:
        prepare_dataset.main()
        expected = contents(REAL)
        (REAL / "manifest.parquet").unlink()
        drawn: list[str] = []
        monkeypatch.setattr(toybox.Toybox, "samples", counting(toybox.Toybox.samples, drawn, stop_after=21))
        with pytest.raises(KeyboardInterrupt):
            prepare_dataset.main()
        assert not (REAL / "manifest.parquet").exists()
        drawn.clear()
        prepare_dataset.main()
        assert contents(REAL) == expected
        assert len(drawn) == sum(SIZES.values()) - 20  # three finished shards of train stay
        assert not any(Path(".work/prepare_dataset").iterdir())

    def test_rejected_images_are_counted_listed_and_in_no_product(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        samples = toybox.Toybox.samples
        damaged = {"train-000003", "test-000000"}

        def some_damaged(*args: Any) -> Iterator[RealSample | Rejected]:
            for sample in samples(*args):
                yield Rejected(sample.image_id, "cut off") if sample.image_id in damaged else sample

        monkeypatch.setattr(toybox.Toybox, "samples", some_damaged)
        with caplog.at_level("WARNING"):
            prepare_dataset.main()
        manifest, targets = (pd.read_parquet(REAL / f"{name}.parquet") for name in ("manifest", "targets"))
        assert manifest["image_id"].tolist() == targets["image_id"].tolist()
        assert len(manifest) == sum(SIZES.values()) - 2
        assert not damaged & set(manifest["image_id"])
        assert len(list(load_images(manifest, REAL))) == len(manifest)
        assert manifest["width"].dtype == "int64"
        rejected = pd.read_csv("reports/prepare_dataset/plots/rejected.csv")
        assert set(zip(rejected["image_id"], rejected["split"], rejected["reason"], strict=True)) == {
            ("train-000003", "train", "cut off"),
            ("test-000000", "test", "cut off"),
        }
        assert metrics_of("prepare_dataset")["real/num_rejected"] == 2
        assert "2 images left out" in caplog.text

    def test_blank_images_and_copies_in_another_split_are_rejected(self, monkeypatch: pytest.MonkeyPatch) -> None:
        samples = toybox.Toybox.samples
        blank = encode_png(np.full((16, 16, 3), 7, dtype=np.uint8))
        noise = encode_png(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
        pixels = {"val-000002": blank, "train-000001": noise, "val-000001": noise, "test-000001": noise}

        def planted(*args: Any) -> Iterator[RealSample]:
            for sample in samples(*args):
                yield sample._replace(png=pixels.get(sample.image_id, sample.png))

        monkeypatch.setattr(toybox.Toybox, "samples", planted)
        prepare_dataset.main()
        rejected = pd.read_csv("reports/prepare_dataset/plots/rejected.csv").set_index("image_id")["reason"]
        copy = "the same pixels as an image of val or test"
        assert rejected.to_dict() == {"val-000002": "black or constant", "train-000001": copy, "val-000001": copy}
        assert "test-000001" in set(pd.read_parquet(REAL / "manifest.parquet")["image_id"])

    def test_what_was_made_of_other_files_is_not_gone_on_with(self, monkeypatch: pytest.MonkeyPatch) -> None:
        drawn: list[str] = []
        monkeypatch.setattr(toybox.Toybox, "samples", counting(toybox.Toybox.samples, drawn, stop_after=21))
        with pytest.raises(KeyboardInterrupt):
            prepare_dataset.main()
        drawn.clear()
        monkeypatch.setattr(prepare_dataset, "state_of", lambda *blocks: "other files")
        prepare_dataset.main()
        assert len(drawn) == sum(SIZES.values())

    @pytest.mark.parametrize("unread", [("val",), SPLITS])  # all of them: photos of a kind that needs a library
    def test_a_split_of_which_nothing_can_be_read_is_refused(
        self, unread: tuple[Split, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        samples = toybox.Toybox.samples

        def damaged(data: toybox.Toybox, split: Split, start: int = 0) -> Iterator[RealSample | Rejected]:
            for sample in samples(data, split, start):
                yield Rejected(sample.image_id, "cut off") if split in unread else sample

        monkeypatch.setattr(toybox.Toybox, "samples", damaged)
        with pytest.raises(ValueError, match=f"no {unread[0]} image can be used, the first one because: cut off"):
            prepare_dataset.main()

    def test_what_waits_for_photos_goes_stale_only_with_photos_that_are_lent(self) -> None:
        prepare_dataset.main()
        kept_back, product = PREPARED.read_bytes(), contents(REAL)
        assert prepared_with(num_train=SIZES["train"] - 1) == kept_back
        lent = prepared_with(num_train=SIZES["train"], lend_photos="train")
        assert lent != kept_back
        assert contents(REAL) == product
        assert prepared_with(num_test=SIZES["test"] - 1) == lent
        assert prepared_with(num_train=SIZES["train"] - 1) != lent

    def test_a_folder_lends_its_photos_but_none_like_those_that_measure(self, tmp_path: Path) -> None:
        prepare_dataset.main()
        manifest = pd.read_parquet(REAL / "manifest.parquet")
        folder = tmp_path / "more photos"
        folder.mkdir()
        (folder / "broken.png").write_bytes(b"nothing")
        (folder / "gone.png").symlink_to("nowhere.png")
        images = dict(load_images(manifest, REAL))
        for name in ("val-000001", "test-000002"):  # larger and brighter, so that no byte is the same
            images[name].resize((40, 40)).point(lambda level: 20 + level // 2).save(folder / f"{name}.png")
        for number in range(3):
            pixels = np.random.default_rng(number).integers(0, 256, (600, 700, 3), dtype=np.uint8)
            (folder / f"own-{number}.png").write_bytes(encode_png(pixels))
        change_params("prepare_dataset", lend_photos=str(folder))
        prepare_dataset.main()
        lent = lent_photos(REAL)
        assert [image.size for _, image in load_images(*lent)] == [(597, 512)] * 3
        assert metrics_of("prepare_dataset")["real/num_lent"] == 3
        assert metrics_of("prepare_dataset")["real/num_not_lent"] == 4
        assert pd.read_parquet(REAL / "manifest.parquet").equals(manifest)
        assert len(lent.some(2, seed=0).rows) == 2
        for path in folder.glob("own-*"):
            path.unlink()
        with pytest.raises(
            ValueError, match=r"none of 3 photos in .* can be lent: 2 cannot be read, 2 are like a photo of val or test"
        ):
            prepare_dataset.main()

    def test_what_is_retrieved_is_not_like_a_photo_that_measures(self, tmp_path: Path, tiny_clip_folder: Path) -> None:
        (tmp_path / "tuning.json").write_text('{"num_updates": 0}')
        pool = tmp_path / "pool"
        pool.mkdir()
        model = f"local-dir:{tiny_clip_folder}"
        params = yaml.safe_load(Path("params.yaml").read_text())
        params["generator"] = {"name": "retrieval", "images": str(pool), "model": model, "image_px": 16}
        params["clip"] |= {"discriminator": {"model": model}, "judge": {"model": model}}
        for stage in ("tune_unet", "tune_text_encoder"):
            params[stage]["num_updates"] = 0
        params["generate_images"]["negative_images"] = 0
        Path("params.yaml").write_text(yaml.safe_dump(params))
        prepare_dataset.main()
        compared = PREPARED.read_bytes()
        for image_id, image in load_images(pd.read_parquet(REAL / "manifest.parquet"), REAL):
            if image_id in ("train-000000", "val-000001", "test-000002"):
                image.resize((40, 40)).point(lambda level: 20 + level // 2).save(pool / f"{image_id}.png")
        params, space = load_params(), LabelSpace.load(load_params().label_space)
        studio = open_studio(params, space, torch.device("cpu"), {"text_encoders": tmp_path})
        assert [path.stem for path in studio.generator.paths] == ["train-000000"]
        assert len(open_studio(params, space, torch.device("cpu"), {}).generator.paths) == 3
        assert prepared_with(num_train=SIZES["train"] - 1) == compared
        assert prepared_with(num_test=SIZES["test"] - 1) != compared

    def test_a_data_set_that_ends_early_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        samples = toybox.Toybox.samples
        monkeypatch.setattr(toybox.Toybox, "samples", lambda *args: islice(samples(*args), 5))
        with pytest.raises(ValueError, match="train ended after 5 of 20 images: correct `sizes`"):
            prepare_dataset.main()


def counting(samples: Any, drawn: list[str], stop_after: int) -> Any:
    """`samples` that notes each image, and once is interrupted."""
    budget = [stop_after]

    def noted(self: toybox.Toybox, split: Any, start: int = 0) -> Iterator[RealSample]:
        for sample in samples(self, split, start):
            if budget[0] == 0:
                budget[0] = -1
                raise KeyboardInterrupt
            budget[0] -= 1
            drawn.append(sample.image_id)
            yield sample

    return noted


@pytest.mark.usefixtures("small_project")
class TestFilterImages:
    def test_every_candidate_is_decided_on(self) -> None:
        write_generated()
        filter_images.main()
        filtered = pd.read_parquet(FILTERED / "manifest.parquet")
        synthetic = pd.read_parquet(SYNTHETIC / "manifest.parquet")
        assert tuple(filtered.columns) == FILTERED_COLUMNS
        assert filtered["image_id"].equals(synthetic["image_id"])
        assert filtered["kept"].sum() == 2 * len(space().pairs())
        for row, requested in zip(filtered.itertuples(), synthetic["labels"], strict=True):
            assert list(row.labels) == (list(requested) if row.kept else [])
            assert (row.reason == "kept") == row.kept
            assert row.prompt == " next to ".join(f"a {name}" for name in requested)

    def test_copies_of_photos_are_rejected_with_a_reason_of_their_own(self) -> None:
        write_generated()
        path = SYNTHETIC / "manifest.parquet"
        drawn = pd.read_parquet(path).assign(photo_id="train-000001", photo_similarity=0.5, copies_photo=False)
        drawn.loc[:4, "copies_photo"] = True
        drawn.to_parquet(path)
        filter_images.main()
        filtered = pd.read_parquet(FILTERED / "manifest.parquet")
        assert set(filtered.loc[:4, "reason"]) == {"near-duplicate of its photo"}
        assert not filtered.loc[:4, "kept"].any()
        assert metrics_of("filter_images")["filter/kept"] == 2 * len(space().pairs()) - 5
        reasons = pd.read_csv("reports/filter_images/plots/reasons.csv").set_index("reason")["num_images"]
        assert reasons["near-duplicate of its photo"] == 5

    def test_a_person_has_the_last_word(self) -> None:
        write_generated()
        path, num_pairs = SYNTHETIC / "manifest.parquet", len(space().pairs())
        drawn = pd.read_parquet(path)
        drawn["sha256"] = [f"{number:064x}" for number in range(len(drawn))]
        drawn.to_parquet(path)
        last = len(drawn) - 1
        requested = list(drawn.loc[3, "labels"])
        others = tuple(label for label in space().unseen if label not in requested)[:1]
        verdicts = {
            "s0": ImageVerdict(sha256=f"{0:064x}", labels=()),
            "s1": ImageVerdict(sha256=f"{1:064x}", labels=tuple(drawn.loc[1, "labels"])),  # as the filter decided
            "s2": ImageVerdict(sha256=f"{7:064x}", labels=()),  # was another picture
            "s3": ImageVerdict(sha256=f"{3:064x}", labels=others),
            f"s{last}": ImageVerdict(sha256=f"{last:064x}", labels=tuple(drawn.loc[last, "labels"])),  # was rejected
            "elsewhere": ImageVerdict(sha256=f"{8:064x}", labels=("no such label",)),
        }
        REVIEW.write_text(verdict_lines(verdicts), encoding="utf-8")
        filter_images.main()
        filtered = pd.read_parquet(FILTERED / "manifest.parquet").set_index("image_id")
        assert filtered.loc["s0", ["kept", "reason"]].tolist() == [False, "struck out in review"]
        assert list(filtered.loc["s0", "labels"]) == []
        assert filtered.loc[["s1", "s2"], "reason"].tolist() == ["kept", "kept"]
        assert filtered.loc[["s3", f"s{last}"], "reason"].tolist() == ["relabelled in review"] * 2
        assert tuple(filtered.loc["s3", "labels"]) == others
        judged = {image_id: tuple(labels) for image_id, labels in filtered["reviewed"].items() if len(labels)}
        assert judged == dict.fromkeys(["s0", "s1", "s3", f"s{last}"], space().unseen)
        reasons = pd.read_csv("reports/filter_images/plots/reasons.csv").set_index("reason")["num_images"]
        assert reasons["struck out in review"] == 1
        assert reasons["relabelled in review"] == 2
        metrics = metrics_of("filter_images")
        assert metrics["filter/kept"] == 2 * num_pairs
        assert [metrics[f"filter/{key}"] for key in ("struck", "relabelled")] == [1, 2]
        assert [metrics[f"filter/verdicts_{key}"] for key in ("changed", "gone")] == [1, 1]
        kept, rejected = (set(image_desk(space(), rejected=one).ids) for one in (False, True))
        assert kept == {*filtered.index[filtered["kept"]], "s0"}  # a verdict can be corrected
        assert rejected == {*filtered.index[~filtered["kept"]], *("s0", "s1", "s2", "s3", f"s{last}")}

    def test_reports_agree_with_the_manifest(self) -> None:
        write_generated()
        filter_images.main()
        metrics, pairs = metrics_of("filter_images"), space().pairs()
        assert metrics["filter/candidates"] == 3 * len(pairs)
        assert metrics["filter/kept"] == 2 * len(pairs)
        assert metrics["filter/judge_precision"] == pytest.approx(0.5)
        with_cup = sum("cup" in labels for labels in pairs)
        assert metrics["filter/kept_per_label/cup"] == 2 * with_cup
        assert metrics["filter/pass_rate/cup"] == pytest.approx(2 / 3)
        labels = pd.read_csv("reports/filter_images/plots/labels.csv", index_col="label")
        assert labels.loc["cup", ["requested", "passed", "kept"]].tolist() == [3 * with_cup, 2 * with_cup, 2 * with_cup]
        reasons = pd.read_csv("reports/filter_images/plots/reasons.csv", index_col="reason")["num_images"]
        assert reasons["kept"] == 2 * len(pairs)
        assert reasons.sum() == 3 * len(pairs)

    def test_the_other_rule_is_a_setting(self) -> None:
        write_generated()
        params = yaml.safe_load(Path("params.yaml").read_text())
        params["filter_images"] = {"name": "top_k", "k": 2}
        Path("params.yaml").write_text(yaml.safe_dump(params))
        filter_images.main()
        filtered = pd.read_parquet(FILTERED / "manifest.parquet")
        assert filtered.loc[~filtered["kept"], "reason"].str.contains("not among the 2 best").all()

    def test_no_kept_image_is_reported_not_hidden(self) -> None:
        write_generated()
        change_params("filter_images", threshold=0.999999)
        filter_images.main()
        metrics = metrics_of("filter_images")
        assert metrics["filter/kept"] == 0
        assert "filter/judge_precision" not in metrics


@pytest.mark.usefixtures("small_project")
class TestValidateData:
    def make_products(self) -> None:
        prepare_dataset.main()
        write_generated()
        filter_images.main()

    def test_good_products_pass(self) -> None:
        self.make_products()
        validate_data.main()
        passed = validate_data.PASS_FILE.read_bytes()
        assert len(json.loads(passed)) == 5
        assert json.loads(REPORT.read_text())["passed"]
        page = validate_data.PAGE.read_bytes()
        assert b"The data can be trained on" in page
        assert metrics_of("validate_data")["validation/critical"] == 0
        report = REPORT.read_bytes()
        validate_data.main()
        assert (validate_data.PASS_FILE.read_bytes(), REPORT.read_bytes()) == (passed, report)
        assert validate_data.PAGE.read_bytes() == page

    def test_images_that_a_person_relabelled_pass(self) -> None:
        self.make_products()
        path = FILTERED / "manifest.parquet"
        filtered = pd.read_parquet(path)
        filtered.at[0, "labels"] = [next(one for one in space().unseen if one not in filtered.at[0, "labels"])]
        filtered.loc[0, "reason"] = "relabelled in review"
        filtered.to_parquet(path)
        validate_data.main()
        assert json.loads(REPORT.read_text())["passed"]

    def test_leaked_truth_stops_with_a_report(self) -> None:
        self.make_products()
        validate_data.PASS_FILE.write_text("{}")  # of an earlier run
        targets = pd.read_parquet(REAL / "targets.parquet")
        targets.loc[3, "fish"] = 1
        targets.to_parquet(REAL / "targets.parquet")
        with pytest.raises(SystemExit) as stop:
            validate_data.main()
        message = str(stop.value.code)
        assert "train images are not annotated for unseen labels" in message
        assert "1 of 41 rows" in message
        assert "train-000003: fish" in message
        assert "remedy: " in message
        assert "page: reports/validation/index.html" in message
        assert not json.loads(REPORT.read_text())["passed"]
        assert "train-000003: fish" in validate_data.PAGE.read_text()
        assert not validate_data.PASS_FILE.exists()

    def test_a_manifest_without_its_columns_stops(self) -> None:
        self.make_products()
        synthetic = pd.read_parquet(SYNTHETIC / "manifest.parquet")
        synthetic.drop(columns="judge_logits").to_parquet(SYNTHETIC / "manifest.parquet")
        with pytest.raises(SystemExit) as stop:
            validate_data.main()
        assert "synthetic_columns: has exactly its columns" in str(stop.value.code)

    def test_few_images_only_warn(self, caplog: pytest.LogCaptureFixture) -> None:
        self.make_products()
        change_params("validate_data", min_images_per_label=10_000)
        validate_data.main()
        assert validate_data.PASS_FILE.exists()
        assert "[warning] unseen_labels: shown by enough kept images" in caplog.text
