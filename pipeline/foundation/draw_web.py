"""Draw the web-style pre-training set: images (N, P, P, 3) uint8, captions (N, C), objects (N, L) bool."""

from __future__ import annotations

import json
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
from foundation_settings import WEB, Foundation, load_settings
from numpy.lib.format import open_memmap
from tqdm import tqdm

from tailorset.records import LabelSpace
from tailorset.seeding import numpy_rng
from tailorset.toybox.captions import caption
from tailorset.toybox.scenes import Scene, render, web_scene

Drawn = tuple[np.ndarray, list[str], list[str]]


def scene_at(settings: Foundation, names: tuple[str, ...], index: int) -> tuple[Scene, np.random.Generator]:
    """Scene number `index`, and the random stream that its captions continue."""
    rng = numpy_rng("web", settings.seed, index)
    return web_scene(rng, names), rng


def draw(settings: Foundation, names: tuple[str, ...], index: int) -> Drawn:
    """Image, captions and drawn labels of one scene; depends on (seed, index) only."""
    scene, rng = scene_at(settings, names, index)
    captions = [caption(scene, rng) for _ in range(settings.draw_web.num_captions)]
    return render(scene, settings.draw_web.image_px), captions, [item.label for item in scene.items]


def main() -> None:
    settings = load_settings()
    names = LabelSpace.load(settings.label_space).names
    count, px = settings.draw_web.num_images, settings.draw_web.image_px
    WEB.mkdir(parents=True, exist_ok=True)
    images = open_memmap(WEB / "images.npy", mode="w+", dtype=np.uint8, shape=(count, px, px, 3))
    objects = np.zeros((count, len(names)), dtype=bool)
    captions = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        drawn = pool.map(partial(draw, settings, names), range(count), chunksize=256)
        for index, (image, texts, labels) in enumerate(tqdm(drawn, total=count, desc="web images")):
            images[index] = image
            objects[index, [names.index(label) for label in labels]] = True
            captions.append(texts)
    np.save(WEB / "objects.npy", objects)
    (WEB / "captions.json").write_text(json.dumps(captions))


if __name__ == "__main__":
    main()
