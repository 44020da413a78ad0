"""Draw the web-style pre-training set: images (N, P, P, 3) uint8, captions (N, C), what is shown (N, L, 1 + K) bool."""

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
from tailorset.toybox.objects import COLOURS
from tailorset.toybox.scenes import Scene, render, web_scene

Drawn = tuple[np.ndarray, list[str], np.ndarray, bool]


def scene_at(settings: Foundation, names: tuple[str, ...], index: int) -> tuple[Scene, np.random.Generator]:
    """Scene number `index`, and the random stream that its captions continue."""
    rng = numpy_rng("web", settings.seed, index)
    return web_scene(rng, names), rng


def draw(settings: Foundation, names: tuple[str, ...], index: int) -> Drawn:
    """Return image, captions, truth and style of one scene; they depend on (seed, index) only."""
    scene, rng = scene_at(settings, names, index)
    captions = [caption(scene, rng) for _ in range(settings.draw_web.num_captions)]
    image = render(scene, settings.draw_web.image_px)
    return image, captions, truth(scene, names), scene.style == "snapshot"


def truth(scene: Scene, names: tuple[str, ...]) -> np.ndarray:
    """Return (L, 1 + K) bool: the labels in a scene, and their colours."""
    colours = list(COLOURS)
    shown = np.zeros((len(names), 1 + len(colours)), dtype=bool)
    for item in scene.items:
        shown[names.index(item.label), [0, 1 + colours.index(item.colour)]] = True
    return shown


def main() -> None:
    settings = load_settings()
    names = LabelSpace.load(settings.label_space).names
    count, px = settings.draw_web.num_images, settings.draw_web.image_px
    WEB.mkdir(parents=True, exist_ok=True)
    images = open_memmap(WEB / "images.npy", mode="w+", dtype=np.uint8, shape=(count, px, px, 3))
    shown = np.zeros((count, len(names), 1 + len(COLOURS)), dtype=bool)
    is_snapshot = np.zeros(count, dtype=bool)
    captions = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        drawn = pool.map(partial(draw, settings, names), range(count), chunksize=256)
        for index, (image, texts, objects, snapshot) in enumerate(tqdm(drawn, total=count, desc="web images")):
            images[index], shown[index], is_snapshot[index] = image, objects, snapshot
            captions.append(texts)
    np.save(WEB / "shown.npy", shown)
    np.save(WEB / "is_snapshot.npy", is_snapshot)
    (WEB / "captions.json").write_text(json.dumps(captions))


if __name__ == "__main__":
    main()
