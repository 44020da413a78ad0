"""Measure what generated images could bring at best: `python benchmarks/flawless.py`, after `make run` of the toybox.

The classifier of params.yaml is trained several times, and measured on val after each epoch: without generated images,
with those that `filter_images` kept, with those labelled anew by the oracle, and with flawless ones in their place,
drawn by the world's own painter with the same labels: as drawings, as snapshots and as photos. The oracle's labels show
what right labels of the kept images would bring, flawless snapshots what a flawless generator would.
Eight to twelve minutes a row on two cores. `--set KEY=VALUE` changes settings of train_classifier.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import yaml
from PIL import Image
from torch import Tensor

import tailorset  # noqa: F401 - sets the offline and telemetry switches before any library is imported
from tailorset.evaluation.selection import History
from tailorset.images.codec import square_pixels
from tailorset.project.layout import FILTERED, REAL, SYNTHETIC
from tailorset.project.params import Params, check_params, read_yaml
from tailorset.records import LabelSpace, Source
from tailorset.seeding import numpy_rng
from tailorset.storage.annotated import Collection
from tailorset.storage.image_set import ImageSet
from tailorset.toybox.oracle import IMAGE_PX, Oracle, load_oracle
from tailorset.toybox.scenes import photo_scene, render, web_scene
from tailorset.training.fit import fit
from tailorset.training.images import epoch_images, selection_set, training_sets

ROWS = ("none", "generated", "relabelled", "drawing", "snapshot", "photo")
ZSL, GZSL = "val/zsl/map", "val/gzsl/map"


def relabelled(images: ImageSet, space: LabelSpace, oracle: Oracle) -> ImageSet:
    """Return the images in which the oracle sees unseen labels, annotated with those that it sees."""
    shown = oracle.sees(images.images.float() / 255, space.unseen)
    targets = images.targets.clone()
    targets[:, space.columns(space.unseen)] = shown.to(targets.dtype)
    return showing(replace(images, targets=targets), space)


def showing(images: ImageSet, space: LabelSpace) -> ImageSet:
    """Return the images that show an unseen label: all but the negatives."""
    chosen = (images.targets[:, space.columns(space.unseen)] == 1).any(1)
    ids = tuple(image_id for image_id, one in zip(images.ids, chosen.tolist(), strict=True) if one)
    return replace(images, ids=ids, images=images.images[chosen], targets=images.targets[chosen])


def flawless(images: ImageSet, names: Sequence[str], style: str) -> ImageSet:
    """Return as many images that show the same labels and nothing else, as sharp as generated ones."""
    side = images.images.shape[-1]
    drawn = [
        _picture(image_id, [names[column] for column in (target == 1).nonzero()[:, 0].tolist()], style, side)
        for image_id, target in zip(images.ids, images.targets, strict=True)
    ]
    return replace(images, images=torch.stack(drawn))


def _picture(image_id: str, labels: Sequence[str], style: str, side: int) -> Tensor:
    """Return (3, side, side) uint8; equal arguments give equal pixels."""
    rng = numpy_rng("flawless", style, image_id)
    if style == "photo":
        scene = photo_scene(rng, labels, len(labels))
    else:
        scene = web_scene(rng, labels, len(labels), "snapshot" if style == "snapshot" else "drawing")
    return square_pixels(Image.fromarray(render(scene, IMAGE_PX)), side)


def trained(params: Params, row: str, work_dir: Path) -> History:
    """Return the metrics on val of all candidates of one training. row: one of ROWS, the images of unseen labels."""
    space, block = LabelSpace.load(params.label_space), params.train_classifier
    classifier = block.build(space, torch.device("cpu"))
    collection = Collection(space, REAL, SYNTHETIC, FILTERED)
    sources: tuple[Source, ...] = ("real",) if row == "none" else ("real", "synthetic")
    sets = training_sets(collection, classifier.image_px, sources, block.held_out_share)
    if row != "none":
        sets["synthetic"] = showing(sets["synthetic"], space)
    if row == "relabelled":
        sets["synthetic"] = relabelled(sets["synthetic"], space, load_oracle())
    elif row not in ("none", "generated"):
        sets["synthetic"] = flawless(sets["synthetic"], space.names, row)
    val = selection_set(collection, classifier.image_px, block.held_out_share)
    data = epoch_images(sets, block, params.seed)
    _, history = fit(classifier, data, val, space, block.config, params.seed, work_dir)
    return history


def line(row: str, history: History) -> str:
    """Return the row of a table: ZSL / GZSL mAP after each epoch, in percent."""
    epochs = [f"{100 * one[ZSL]:.1f} / {100 * one[GZSL]:.1f}" for one in history if one["epoch"] > 0]
    return f"| {row} | " + " | ".join(epochs) + " |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help=f"images of unseen labels, of {', '.join(ROWS)}; default: all")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", dest="changes")
    given = parser.parse_args(arguments)
    if unknown := [row for row in given.rows if row not in ROWS]:
        parser.error(f"unknown rows {unknown}: choose from {', '.join(ROWS)}")
    settings = read_yaml("params.yaml")
    for key, _, value in (change.partition("=") for change in given.changes):
        settings["train_classifier"][key] = yaml.safe_load(value)
    params = check_params(settings, "params.yaml with --set")
    for row in given.rows or ROWS:
        with tempfile.TemporaryDirectory(prefix="tailorset-flawless-") as folder:
            print(line(row, trained(params, row, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
