"""Images to export, streamed from the stages' products: rows of tables batch by batch, pictures shard by shard.

Shapes: B images of a batch, L labels, U unseen labels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow.parquet as pq
import torch
from torch import Tensor

from tailorset.clip.losses import grouped_softmax
from tailorset.exports import ExportedImage
from tailorset.records import DRAWN_COLUMNS, FILTERED_COLUMNS, SPLITS, Split, requested_mask
from tailorset.seeding import sample_seed
from tailorset.storage.checksums import file_digest
from tailorset.storage.products import check_columns, missing
from tailorset.storage.shards import load_contents

BATCH_SIZE = 500
READ_BYTES = 1 << 18  # at once; by default whole columns are read
HASHES = 1 << 63
MANIFEST, TARGETS = "manifest.parquet", "targets.parquet"
Decide = Callable[[Tensor], tuple[Tensor, Tensor]]  # scores (B, L) -> probabilities, present (B, L)


class Stored(NamedTuple):
    """An image, and the shard of a product that holds it."""

    image: ExportedImage
    product: Path
    shard: str


class PhotoScores(NamedTuple):
    """The table of scores of the test photos, the method whose scores are exported, and its decisions.

    rules: the file that `decide` was made from.
    """

    path: Path
    method: str
    decide: Decide
    rules: Path


@dataclass(frozen=True)
class ExportSource:
    """Products that an export is made of.

    labels: all; unseen: those that images were generated for. may_show: the unseen labels that an image of a prompt
    may show, by its text; label_digest: of the label file, which tells. filtered: the filter's decisions on the images
    of `synthetic`. real: photos, if they are exported. scores: of the test photos. val_share, test_share: of the
    prompts, with all images drawn from them.

    Raises:
        ValueError: a table is missing or of an earlier version, or the shares are more than everything.
    """

    labels: tuple[str, ...]
    unseen: tuple[str, ...]
    may_show: Callable[[str], Set[str]]
    label_digest: str
    synthetic: Path
    filtered: Path
    real: Path | None = None
    scores: PhotoScores | None = None
    val_share: float = 0.0
    test_share: float = 0.0

    def __post_init__(self) -> None:
        if min(self.val_share, self.test_share) < 0 or self.val_share + self.test_share > 1:
            raise ValueError(f"shares {self.val_share} and {self.test_share}: give two from 0 to 1, at most 1 together")
        if lacking := [path for path in self.tables if not path.exists()]:
            raise ValueError(missing(lacking))
        check_columns(self.synthetic / MANIFEST, DRAWN_COLUMNS)
        check_columns(self.filtered / MANIFEST, FILTERED_COLUMNS)

    @property
    def tables(self) -> list[Path]:
        """Files that the export depends on; a picture is known by its sha256 in them."""
        tables = [self.synthetic / MANIFEST, self.filtered / MANIFEST]
        tables += [self.real / MANIFEST, self.real / TARGETS] if self.real else []
        return tables + ([self.scores.path, self.scores.rules] if self.scores else [])

    def digest(self) -> str:
        """Return a digest of all that the export depends on."""
        choices = [self.labels, self.unseen, self.label_digest, bool(self.real), bool(self.scores)]
        choices += [self.val_share, self.test_share]
        digests = [file_digest(path) for path in self.tables]
        return hashlib.sha256(json.dumps([*choices, *digests]).encode()).hexdigest()

    def count(self) -> int:
        """Return the number of images, and check that there is one.

        Raises:
            ValueError: the filter kept none, and no photos are exported.
        """
        kept = sum(row["kept"] for row in _rows(self.filtered / MANIFEST, ["kept"]))
        photos = pq.ParquetFile(self.real / MANIFEST).metadata.num_rows if self.real else 0
        if not kept + photos:
            raise ValueError(
                f"no image is left to export: the filter kept none of those in {self.filtered / MANIFEST}. Lower"
                " filter_images.threshold, or draw more (generate_images.max_images); the data card tells why"
            )
        return int(kept + photos)

    def images(self, split: Split) -> Iterator[Stored]:
        """Yield the images of a split: generated ones, then photos."""
        if self._generated_in(split):
            yield from (one for one in self._generated() if one.image.split == split)
        if self.real:
            yield from self._photos(split)

    @property
    def splits(self) -> tuple[Split, ...]:
        """Splits that may have images."""
        return SPLITS if self.real else tuple(split for split in SPLITS if self._generated_in(split))

    def _generated_in(self, split: Split) -> bool:
        shares = {"val": self.val_share, "test": self.test_share}
        return bool(shares.get(split, 1 - sum(shares.values())))

    def _generated(self) -> Iterator[Stored]:
        candidates = _rows(self.synthetic / MANIFEST)
        decided = _rows(self.filtered / MANIFEST)
        kept = (both for both in _joined(candidates, decided, self.filtered / MANIFEST) if both[1]["kept"])
        for batch in _batches(kept):
            yield from map(self._drawn, batch, *self._probabilities([row for row, _ in batch]))

    def _probabilities(self, rows: list[dict[str, Any]]) -> Iterator[list[list[float]]]:
        """Yield B lists of U grouped probabilities by discriminator and judge."""
        mask = torch.from_numpy(requested_mask([row["labels"] for row in rows], self.unseen))
        for role in ("discriminator", "judge"):
            logits = torch.tensor([row[f"{role}_logits"] for row in rows], dtype=torch.float64)
            yield grouped_softmax(logits, mask).tolist()

    def _drawn(
        self, rows: tuple[dict[str, Any], dict[str, Any]], probabilities: list[float], judged: list[float]
    ) -> Stored:
        row, decision = rows
        possible = self.may_show(row["prompt"]) - set(decision["reviewed"])
        shown = [label for label in self.labels if label in decision["labels"]]
        scores = {label: round(value, 6) for label, value in zip(self.unseen, probabilities, strict=True)}
        of_judge = dict(zip(self.unseen, judged, strict=True))
        image = ExportedImage(
            **_picture(row),
            split=self._split_of(row["prompt"]),
            source="synthetic",
            labels=shown,
            absent=[label for label in self.unseen if label not in shown and label not in possible],
            scores=scores,
            predicted=shown,
            scored_by="discriminator",
            prompt_id=row["prompt_id"],
            prompt=row["prompt"],
            seed=hex(row["seed"]),
            requested=list(row["labels"]),
            confidence=decision["confidence"],
            judge_confidence=round(min(of_judge[label] for label in row["labels"]), 6),
        )
        return Stored(image, self.synthetic, row["shard"])

    def _split_of(self, prompt: str) -> Split:
        """Return the split of all images of a prompt, by a number in [0, 1) that its text decides."""
        number = sample_seed("export", prompt) / HASHES
        if number < self.test_share:
            return "test"
        return "val" if number < self.test_share + self.val_share else "train"

    def _photos(self, split: Split) -> Iterator[Stored]:
        assert self.real is not None
        targets = _rows(self.real / TARGETS, ["image_id", *self.labels])
        photos = (
            both
            for both in _joined(_rows(self.real / MANIFEST), targets, self.real / TARGETS)
            if both[0]["split"] == split
        )
        scores = self._test_scores() if split == "test" and self.scores else None
        for row, known in photos:
            image = ExportedImage(
                **_picture(row),
                split=split,
                source="real",
                labels=[label for label in self.labels if known[label] == 1],
                absent=[label for label in self.labels if known[label] == 0],
                **(self._scored(row["image_id"], scores) if scores else {"scores": {}, "predicted": []}),
            )
            yield Stored(image, self.real, row["shard"])

    def _test_scores(self) -> Iterator[tuple[str, list[float], list[bool]]]:
        """Yield image id, L probabilities and L decisions of each test photo."""
        assert self.scores is not None
        rows = _rows(self.scores.path, ["method", "image_id", *self.labels])
        for batch in _batches(row for row in rows if row["method"] == self.scores.method):
            scores = torch.tensor([[row[label] for label in self.labels] for row in batch])
            probabilities, present = self.scores.decide(scores)
            yield from zip([row["image_id"] for row in batch], probabilities.tolist(), present.tolist(), strict=True)

    def _scored(self, image_id: str, scores: Iterator[tuple[str, list[float], list[bool]]]) -> Mapping[str, Any]:
        assert self.scores is not None
        scored, probabilities, present = next(scores, ("no photo", [], []))
        if scored != image_id:
            raise ValueError(f"{self.scores.path} has the scores of {scored} in place of {image_id}: run `make run`")
        return {
            "scores": {label: round(value, 6) for label, value in zip(self.labels, probabilities, strict=True)},
            "predicted": [label for label, is_present in zip(self.labels, present, strict=True) if is_present],
            "scored_by": self.scores.method,
        }

    def contents(self, images: Iterable[Stored]) -> Iterator[tuple[ExportedImage, bytes]]:
        """Yield images with their PNG bytes, each shard read once.

        Raises:
            CorruptShardError: a shard is damaged, or a picture is not that of the manifest.
        """
        for (product, shard), group in groupby(images, key=lambda one: (one.product, one.shard)):
            wanted = [one.image for one in group]
            table = pd.DataFrame({"shard": shard, "image_id": [image.image_id for image in wanted]})
            table["sha256"] = [image.sha256 for image in wanted]
            for image, (_, content) in zip(wanted, load_contents(table, product), strict=True):
                yield image, content


def _picture(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that both manifests have; the format sets the file."""
    return {"file": ""} | {key: row[key] for key in ("image_id", "width", "height", "sha256")}


def _rows(path: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table, a batch in memory at once.

    Raises:
        ValueError: a column is missing.
    """
    with pq.ParquetFile(path, buffer_size=READ_BYTES) as table:
        if missing := sorted(set(columns or ()) - set(table.schema_arrow.names)):
            raise ValueError(f"{path} has no column for {missing}: run the stage that makes it again")
        for batch in table.iter_batches(BATCH_SIZE, columns=columns, use_threads=False):
            yield from batch.to_pylist()


def _joined(
    rows: Iterator[dict[str, Any]], others: Iterator[dict[str, Any]], path: Path
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield the rows of two tables of the same images in the same order.

    Raises:
        ValueError: they are of other images.
    """
    try:
        for row, other in zip(rows, others, strict=True):
            if row["image_id"] != other["image_id"]:
                raise ValueError(f"{other['image_id']} in place of {row['image_id']}")
            yield row, other
    except ValueError as error:
        raise ValueError(f"{path} is not of the images in the manifest ({error}): run `make run`") from error


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    items = iter(items)
    while batch := list(islice(items, BATCH_SIZE)):
        yield batch
