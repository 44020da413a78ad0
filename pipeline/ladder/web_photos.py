"""A folder of the toybox's web images without captions or annotations: the pool of the row `retrieval`."""

from __future__ import annotations

from pathlib import Path

from tailorset.images.codec import encode_png
from tailorset.progress import Bar
from tailorset.records import LabelSpace
from tailorset.seeding import numpy_rng
from tailorset.storage.files import atomic_output
from tailorset.toybox.scenes import render, web_scene

NUM_IMAGES, IMAGE_PX = 4000, 64


def draw_pool(folder: Path, label_space: LabelSpace) -> None:
    """Draw the images into a folder, unless it is there; none was seen by the foundation models."""
    if folder.exists():
        return
    with atomic_output(folder) as partial:
        partial.mkdir()
        for number in Bar(range(NUM_IMAGES), desc="web photos", unit="image"):
            scene = web_scene(numpy_rng("web photos", number), label_space.names)
            (partial / f"{number:04d}.png").write_bytes(encode_png(render(scene, IMAGE_PX)))
