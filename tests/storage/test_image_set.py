"""Decoded images: mixed without a copy, and beyond memory in a mapped file that leaves no trace."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tailorset.images.codec import encode_png
from tailorset.records import DRAWN_COLUMNS, NEGATIVES, Label, LabelSpace
from tailorset.storage import annotated, image_set
from tailorset.storage.annotated import Annotated, Several
from tailorset.storage.image_set import ImageSet, Mixture, empty_pixels, load_image_set, real_rows, synthetic_rows
from tailorset.storage.shards import sha256, write_shard


def images_of(name: str, count: int) -> ImageSet:
    pixels = torch.randint(0, 256, (count, 3, 4, 4), dtype=torch.uint8)
    return ImageSet(tuple(f"{name}{i}" for i in range(count)), pixels, torch.full((count, 2), count, dtype=torch.int8))


def stored(folder: Path, count: int = 3) -> tuple[pd.DataFrame, torch.Tensor]:
    """Manifest rows of random images in a shard, and their pixels, (N, 3, 8, 8)."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    samples = [(f"i{number}", encode_png(image)) for number, image in enumerate(pixels)]
    write_shard(folder / "shards" / "a.tar", samples)
    rows = [{"image_id": name, "shard": "a.tar", "sha256": sha256(png)} for name, png in samples]
    return pd.DataFrame(rows), torch.from_numpy(pixels).permute(0, 3, 1, 2)


def test_a_mixture_is_its_sets_one_after_the_other_as_often_as_asked() -> None:
    photos, drawn = images_of("p", 3), images_of("d", 2)
    mixture = Mixture([(photos, 1), (drawn, 2)])
    assert len(mixture) == 7
    assert mixture.ids == ("p0", "p1", "p2", "d0", "d1", "d0#1", "d1#1")
    assert mixture.targets[:, 0].tolist() == [3, 3, 3, 2, 2, 2, 2]
    everything = torch.cat([photos.images, drawn.images, drawn.images])
    assert torch.equal(mixture.pixels(range(7)), everything)
    assert torch.equal(mixture.pixels([6, 0, 3]), everything[[6, 0, 3]])


def test_images_beyond_memory_are_read_from_a_file_that_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, pixels = stored(tmp_path / "data")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(image_set, "IN_MEMORY_BYTES", 0)
    loaded = load_image_set(rows, torch.zeros(3, 1), tmp_path / "data", 8)
    assert torch.equal(loaded.images, pixels)
    assert torch.equal(loaded.pixels([2, 0]), pixels[[2, 0]])
    assert not list(temporary.iterdir())


def test_sets_put_together_are_as_large_as_the_disk_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, pixels = stored(tmp_path)
    one = Annotated(rows, torch.zeros(3, 1, dtype=torch.int8), tmp_path, "synthetic")
    asked: list[tuple[int, ...]] = []
    monkeypatch.setattr(annotated, "empty_pixels", lambda shape: asked.append(shape) or empty_pixels(shape))
    assert torch.equal(Several((one, one)).load(8).images, torch.cat([pixels, pixels]))
    assert asked == [(6, 3, 8, 8)]


def test_a_filter_that_kept_nothing_gives_no_rows(tmp_path: Path) -> None:
    space = LabelSpace(name="one", labels=(Label(name="fish", seen=False),))
    decided({"a fish": ["fish"]}).assign(kept=False).to_parquet(tmp_path / "manifest.parquet")
    rows, targets = synthetic_rows(tmp_path / "manifest.parquet", space)
    assert rows.empty
    assert targets.shape == (0, 1)


def test_what_a_prompt_names_beside_its_labels_is_not_annotated(tmp_path: Path) -> None:
    labels = (
        Label(name="animal", seen=False),
        Label(name="dog", seen=False, parents=("animal",)),
        Label(name="cup", seen=False),
        Label(name="boat", seen=True),
    )
    kept = {
        "a dog by the sea": (["dog", "animal"], [1, 1, 0, -1]),
        "a dog next to a cup": (["dog", "animal"], [1, 1, -1, -1]),  # the cup was not asked for
        "a cup on a boat": (["cup"], [0, 0, 1, -1]),
        "an animal in a wood": (["animal"], [1, -1, 0, -1]),  # perhaps a dog
        "a cup and a dog": (["cup", "dog", "animal"], [1, 1, 1, -1]),
    }
    table, space = decided({text: shown for text, (shown, _) in kept.items()}), LabelSpace(name="pets", labels=labels)
    table.to_parquet(tmp_path / "kept")
    assert synthetic_rows(tmp_path / "kept", space)[1].tolist() == [row for _, row in kept.values()]
    table.assign(reviewed=[space.unseen] * len(table)).to_parquet(tmp_path / "kept")  # a person saw what is not there
    sure = [[max(target, 0) for target in row[:3]] + [-1] for _, row in kept.values()]
    assert synthetic_rows(tmp_path / "kept", space)[1].tolist() == sure
    grown = space.grown([Label(name="sea", seen=False), Label(name="wood", seen=False)])  # which nobody judged
    added = [[-1, 0], [0, 0], [0, 0], [0, -1], [0, 0]]
    assert synthetic_rows(tmp_path / "kept", grown)[1][:, 4:].tolist() == added


def test_a_label_that_is_added_is_not_annotated_in_negatives_that_name_it(tmp_path: Path) -> None:
    space = LabelSpace(name="sea", labels=(Label(name="boat", seen=True), Label(name="fish", seen=False)))
    rows = pd.DataFrame({column: ["?", "?"] for column in DRAWN_COLUMNS}).assign(
        prompt=["a boat", "a boat near a pier"]
    )
    (tmp_path / NEGATIVES).mkdir()
    rows.to_parquet(tmp_path / NEGATIVES / "manifest.parquet")
    for labels, targets in (([], [[-1, 0], [-1, 0]]), ([Label(name="pier", seen=False)], [[-1, 0, 0], [-1, 0, -1]])):
        (negatives,) = annotated.Collection(space.grown(labels), tmp_path, tmp_path, tmp_path).negatives()
        assert negatives.targets.tolist() == targets


def decided(kept: dict[str, list[str]]) -> pd.DataFrame:
    """The filter's table of kept images with these labels, by the text of their prompts."""
    table = pd.DataFrame({"prompt": list(kept), "labels": list(kept.values()), "shard": "0.tar", "sha256": "?"})
    table = table.assign(image_id=[f"p-{number}" for number in range(len(kept))], kept=True)
    return table.assign(reason="kept", confidence=0.9, reviewed=[[]] * len(table))


def test_a_table_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    decided({"a fish": ["fish"]}).drop(columns=["prompt", "reviewed"]).to_parquet(tmp_path / "kept")
    with pytest.raises(ValueError, match=r"kept is of an earlier version .* no column prompt, reviewed: `make run`"):
        synthetic_rows(tmp_path / "kept", LabelSpace(name="one", labels=(Label(name="fish", seen=False),)))


def test_images_that_would_fill_the_disk_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, _ = stored(tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(image_set, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=100))
    with pytest.raises(ValueError, match="set TMPDIR to a folder on a larger disk"):
        load_image_set(rows, torch.zeros(3, 1), tmp_path, 8)


def test_images_of_several_folders_are_split_and_loaded_as_one_set(tmp_path: Path) -> None:
    parts = []
    for name, count in (("a", 4), ("b", 6)):
        rows, _ = stored(tmp_path / name, count)
        rows["image_id"] = [f"i{number}" for number in range(count)]
        parts.append(Annotated(rows, torch.full((count, 2), count, dtype=torch.int8), tmp_path / name, "synthetic"))
    several = Several(tuple(parts))
    loaded = several.load(8)
    assert torch.equal(loaded.images, torch.cat([part.load(8).images for part in parts]))
    assert loaded.targets[:, 0].tolist() == [4] * 4 + [6] * 6
    assert loaded.source == "synthetic"
    for whole, halves in zip(several.split(0.5), zip(*(part.split(0.5) for part in parts), strict=True), strict=True):
        assert whole.load(8).ids == tuple(name for half in halves for name in half.load(8).ids)


def test_a_missing_table_is_named_with_what_restores_and_makes_it(tmp_path: Path) -> None:
    space = LabelSpace.model_validate({"name": "one", "labels": [{"name": "cup", "seen": False}]})
    with pytest.raises(
        ValueError, match=r"manifest.parquet is missing: .*`dvc checkout` restores it, `make run` makes"
    ):
        real_rows(tmp_path, "val", space)
    with pytest.raises(ValueError, match=r"kept.parquet is missing: .*`dvc checkout` restores it, `make run`"):
        synthetic_rows(tmp_path / "kept.parquet", space)
