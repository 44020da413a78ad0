"""An export that is interrupted, repeated, refused, or larger than the memory."""

from __future__ import annotations

import errno
import json
import multiprocessing
import shutil
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tailorset.exports import ExportedImage
from tailorset.exports.parts.run import IMAGES, partial_folder, run_export
from tests.export_products import DESCRIPTION, digests, export, exported, format_named, make_products, peak_of_export

CONTAINERS = ("fiftyone", "parquet", "webdataset")


def interrupted(name: str, after: int, error: BaseException) -> SimpleNamespace:
    """Return a format whose writing ends after a number of images."""
    form, count = format_named(name), iter(range(after))

    def write_images(folder: Path, labels: tuple[str, ...], images: Iterable[tuple[ExportedImage, bytes]]) -> None:
        def some() -> Iterable[tuple[ExportedImage, bytes]]:
            for image in images:
                if next(count, None) is None:
                    raise error
                yield image

        form.write_images(folder, labels, some())

    return SimpleNamespace(place=form.place, write_images=write_images, write_labels=form.write_labels)


@pytest.mark.parametrize("name", CONTAINERS)
def test_an_interrupted_export_goes_on_with_the_same_bytes(name: str, tmp_path: Path) -> None:
    source = make_products(tmp_path / "project", 90)
    whole = export(name, source, tmp_path / "whole", part_size=10)
    output = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run_export(name, interrupted(name, 35, KeyboardInterrupt()), source, output, DESCRIPTION, 10)
    assert not output.exists()
    rows = sorted((partial_folder(output) / "rows").iterdir())
    assert len(rows) == 3
    times = [path.stat().st_mtime_ns for path in rows]
    again: list[int] = []
    run_export(name, counting(name, again, rows, times), source, output, DESCRIPTION, 10)
    assert digests(output) == digests(whole)
    assert sum(again) == len(exported(source)) - 30
    assert not partial_folder(output).exists()


def counting(name: str, written: list[int], rows: list[Path], times: list[int]) -> SimpleNamespace:
    """Return a format that counts what it writes, and finds that finished parts are left alone."""
    form = format_named(name)

    def write_images(folder: Path, labels: tuple[str, ...], images: Iterable[tuple[ExportedImage, bytes]]) -> None:
        assert [path.stat().st_mtime_ns for path in rows] == times
        content = list(images)
        written.append(len(content))
        form.write_images(folder, labels, content)

    return SimpleNamespace(place=form.place, write_images=write_images, write_labels=form.write_labels)


def test_what_is_left_of_a_finished_export_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill before the last remains are removed; a second export would take its pictures for written."""
    source, output = make_products(tmp_path / "project", 30), tmp_path / "out"
    rmtree = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", lambda *args, **kw: interrupt() if output.exists() else rmtree(*args, **kw))
    with pytest.raises(KeyboardInterrupt):
        export("coco", source, output)
    monkeypatch.undo()
    shutil.rmtree(output)
    assert digests(export("coco", source, output)) == digests(export("coco", source, tmp_path / "whole"))


def interrupt() -> None:
    raise KeyboardInterrupt


def test_what_is_left_of_another_export_is_not_used(tmp_path: Path) -> None:
    output = tmp_path / "out"
    earlier = make_products(tmp_path / "earlier", 50)
    with pytest.raises(KeyboardInterrupt):
        run_export("coco", interrupted("coco", 25, KeyboardInterrupt()), earlier, output, DESCRIPTION, 10)
    source = make_products(tmp_path / "project", 30)
    assert digests(export("coco", source, output)) == digests(export("coco", source, tmp_path / "fresh"))


def test_a_full_disk_leaves_no_export_and_the_next_one_goes_on(tmp_path: Path) -> None:
    source, output = make_products(tmp_path / "project", 60), tmp_path / "out"
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="No space left"):
        run_export("cvat", interrupted("cvat", 25, full), source, output, DESCRIPTION, 10)
    assert not output.exists()
    assert digests(export("cvat", source, output, part_size=10)) == digests(export("cvat", source, tmp_path / "whole"))


def test_a_disk_that_fills_up_while_labels_are_written(tmp_path: Path) -> None:
    source, output = make_products(tmp_path / "project", 30), tmp_path / "out"
    form = format_named("coco")

    def full(folder: Path, written: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    broken = SimpleNamespace(place=form.place, write_images=form.write_images, write_labels=full)
    with pytest.raises(OSError, match="No space left"):
        run_export("coco", broken, source, output, DESCRIPTION)
    assert not output.exists()
    assert digests(export("coco", source, output)) == digests(export("coco", source, tmp_path / "whole"))


def test_a_target_that_exists_is_left_alone(tmp_path: Path) -> None:
    source = make_products(tmp_path / "project", 10)
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="exists, and nothing is overwritten"):
        export("coco", source, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_set_without_an_image_is_refused(tmp_path: Path) -> None:
    source = make_products(tmp_path / "project", 10, kept_share=0)
    with pytest.raises(ValueError, match=r"no image is left.*filter_images\.threshold"):
        export("coco", source, tmp_path / "out")
    assert not partial_folder(tmp_path / "out").exists()


def test_no_prompt_is_in_two_splits(tmp_path: Path) -> None:
    source = replace(make_products(tmp_path / "project", 300), val_share=0.3, test_share=0.2)
    rows = [json.loads(line) for line in (export("coco", source, tmp_path / "out") / IMAGES).open()]
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["prompt"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    shares = {name: sum(name in found for found in splits.values()) / len(splits) for name in ("val", "test")}
    assert abs(shares["val"] - 0.3) < 0.15
    assert abs(shares["test"] - 0.2) < 0.15
    assert len(rows) == source.count()


def test_shares_of_more_than_everything_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at most 1 together"):
        replace(make_products(tmp_path / "project", 10), val_share=0.7, test_share=0.4)


def test_a_damaged_picture_ends_the_export(tmp_path: Path) -> None:
    source = make_products(tmp_path / "project", 20)
    shard = next((source.synthetic / "shards").iterdir())
    content = bytearray(shard.read_bytes())
    content[512 + 60] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match="differs from its sha256"):
        export("coco", source, tmp_path / "out")


def test_tables_of_other_images_are_refused(tmp_path: Path) -> None:
    source, other = (make_products(tmp_path / name, number) for name, number in (("one", 20), ("other", 23)))
    with pytest.raises(ValueError, match="is not of the images in the manifest"):
        export("coco", replace(source, filtered=other.filtered), tmp_path / "out")


def growth(name: str, folder: Path, few: int, many: int, **options: Any) -> float:
    """Return by how many MiB an export of many images exceeds one of few at its peak, in a process of its own."""
    sources = [make_products(folder / f"of_{number}", number, **options) for number in (few, many)]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        outputs = (folder / "few", folder / "many")
        before, after = (pool.submit(peak_of_export, name, *one).result() for one in zip(sources, outputs, strict=True))
    return after - before


@pytest.mark.parametrize("name", ["label_studio", "parquet"])
def test_memory_does_not_grow_with_the_set(name: str, tmp_path: Path) -> None:
    assert growth(name, tmp_path, 1000, 4000, image_px=128) < 56  # 100 MiB of kept pictures more


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["label_studio", "parquet", "webdataset"])
def test_100_000_images_fit_the_memory(name: str, tmp_path: Path) -> None:
    """The rest of the growth is of allocators, and of the texts of 30,000 prompts: half a KiB per image."""
    assert growth(name, tmp_path, 10_000, 100_000, kept_share=1, image_px=8) < 80
