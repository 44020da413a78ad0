"""Images that start from photos: which photo it was is stored, and no photo is copied into the set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from pipeline import prepare_dataset
from tailorset.generation.engine import LocalEngine, Shelf, generate_shards
from tailorset.generation.quota import QuotaPlanner
from tailorset.generation.settings import FromPhotos
from tailorset.generation.source_photos import SourcePhotos
from tailorset.generation.studio import Studio
from tailorset.generators.stable_diffusion import Config, build
from tailorset.images.codec import encode_png
from tailorset.records import PHOTO_COLUMNS, SYNTHETIC_COLUMNS
from tailorset.storage.shards import load_images, sha256, write_shard
from tests.generation.test_engine import PX, UNSEEN, prompts, studio
from tests.generation_project import change_params, products, remove_products, run_stage_script

METRICS = Path("reports/generate_images/metrics.json")


@pytest.fixture
def photos(tmp_path: Path) -> pd.DataFrame:
    """Rows of seven photos of different sizes in tmp_path."""
    rng = np.random.default_rng(0)
    sizes = [(8, 8), (12, 8), (8, 20)]
    pixels = [rng.integers(0, 256, (*sizes[number % 3], 3), dtype=np.uint8) for number in range(7)]
    samples = [(f"train-{number}", encode_png(image)) for number, image in enumerate(pixels)]
    write_shard(tmp_path / "shards" / "a.tar", samples)
    return pd.DataFrame([{"image_id": name, "shard": "a.tar", "sha256": sha256(png)} for name, png in samples])


def drawn_by(at_work: Studio, shard_size: int = 10) -> tuple[list[dict[str, object]], dict[str, bytes], QuotaPlanner]:
    """Return rows, image_id -> PNG, and the planner after 20 images."""
    pngs: dict[str, bytes] = {}
    shelf = Shelf(UNSEEN, 0.0, keep=lambda name, rows, samples: pngs.update(samples))
    planner = QuotaPlanner(UNSEEN, prompts(), 50, 20)
    shards = list(generate_shards(LocalEngine(at_work), planner, shard_size, shelf))
    return [row for shard in shards for row in shard.rows], pngs, planner


def painter(folder: Path, rows: pd.DataFrame, model: Path, **settings: float) -> SourcePhotos:
    generator = build(Config(model=str(model), image_px=PX, guidance_scale=3.0), "cpu")
    return SourcePhotos.encode(FromPhotos(**{"strength": 0.5} | settings), generator, rows, folder)


def at_work(photos: SourcePhotos, batch_size: int = 5) -> Studio:
    made = studio(batch_size, painter=photos.generator)
    made.photos = photos
    return made


@pytest.mark.usefixtures("one_thread")
def test_rows_name_the_photo_and_images_are_the_same_alone_and_in_batches(
    tmp_path: Path, photos: pd.DataFrame, tiny_diffusion_folder: Path
) -> None:
    source = painter(tmp_path, photos, tiny_diffusion_folder)
    rows, pngs, _ = drawn_by(at_work(source))
    assert all(tuple(row) == (*SYNTHETIC_COLUMNS, *PHOTO_COLUMNS) for row in rows)
    used = {row["photo_id"] for row in rows}
    assert used <= set(photos["image_id"])
    assert len(used) > 3
    for batch_size, shard_size in ((1, 10), (20, 1000)):
        again, images, _ = drawn_by(at_work(source, batch_size), shard_size)
        assert [row["photo_id"] for row in again] == [row["photo_id"] for row in rows]
        assert images == pngs
    some = photos.iloc[::2].reset_index(drop=True)  # a photo's latents do not depend on the others
    others = painter(tmp_path, some, tiny_diffusion_folder)
    assert torch.equal(others.latents, source.latents[::2])


def test_an_image_like_its_photo_is_stored_but_counts_toward_no_quota(
    tmp_path: Path, photos: pd.DataFrame, tiny_diffusion_folder: Path
) -> None:
    kept = drawn_by(at_work(painter(tmp_path, photos, tiny_diffusion_folder)))[2]
    assert sum(kept.kept.values()) > 0
    (square,) = [np.asarray(image) for _, image in load_images(photos.iloc[:1], tmp_path)]
    source = painter(tmp_path, photos.iloc[:1], tiny_diffusion_folder)
    copy, noise = source.origin(5, square), source.origin(5, square[::-1, ::-1])
    assert copy == {"photo_id": "train-0", "photo_similarity": pytest.approx(1), "copies_photo": True}
    assert noise["copies_photo"] is False
    nothing = np.full_like(square, 255)
    assert source.origin(5, nothing)["photo_similarity"] == 0

    class Copying:
        """Draws the photos themselves."""

        image_px = PX

        def sample_from(self, latents: torch.Tensor, *others: object) -> torch.Tensor:
            return latents

        def encode(self, photo: torch.Tensor) -> torch.Tensor:
            return photo

    copies = SourcePhotos.encode(FromPhotos(strength=0.5), Copying(), photos, tmp_path)
    rows, _, planner = drawn_by(at_work(copies))
    assert all(row["copies_photo"] for row in rows)
    assert sum(planner.kept.values()) == 0


def test_tuning_never_starts_from_photos(tmp_path: Path, photos: pd.DataFrame, tiny_diffusion_folder: Path) -> None:
    source = painter(tmp_path, photos, tiny_diffusion_folder)
    with pytest.raises(ValueError, match="tuning draws from noise"):
        source.sample(["a cup"], [1], 4, backprop_steps=1)


@pytest.fixture
def photo_project(generation_project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in which every image starts from one of 9 train photos."""
    monkeypatch.setattr("tailorset.project.tracking.connect", refuse)
    params = yaml.safe_load(Path("params.yaml").read_text())
    sizes = {"num_train": 9, "num_val": 4, "num_test": 4, "image_px": 24}
    drawing = params["generate_images"] | {"negative_images": 0, "max_images": 40}
    drawing["from_photos"] = {"strength": 0.5, "num_photos": 6}
    change_params(prepare_dataset=params["prepare_dataset"] | sizes | {"lend_photos": "train"}, generate_images=drawing)
    prepare_dataset.main()
    return generation_project


def refuse(root: Path) -> None:
    raise ConnectionError("no tracking server in this test")


@pytest.mark.filterwarnings("ignore::tailorset.project.tracking.TrackingWarning")
def test_the_stage_stores_the_photos_of_images_and_makes_the_same_again(photo_project: Path) -> None:
    run_stage_script()
    manifest = pd.read_parquet("data/synthetic/manifest.parquet")
    real = pd.read_parquet("data/real/manifest.parquet").set_index("image_id")
    assert tuple(manifest.columns) == (*SYNTHETIC_COLUMNS, *PHOTO_COLUMNS)
    assert manifest["photo_id"].nunique() <= 6
    assert set(real.loc[manifest["photo_id"], "split"]) == {"train"}
    assert json.loads(METRICS.read_text())["generate/photo_copies"] == manifest["copies_photo"].sum()
    expected = products(photo_project)
    remove_products(photo_project)
    run_stage_script()
    assert products(photo_project) == expected
