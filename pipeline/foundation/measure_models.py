"""Measure the foundation models against their bars: `make foundation-report`.

The oracle, supervised on everything in web style, finds what generated images really show.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from foundation_settings import Foundation, load_settings
from measure_captions import measure_captions
from measure_drawing import measure_generator, measure_steps
from measure_llm import measure_llm
from probe import from_scratch_map, mean_average_precision, probe_map
from train_oracle import through_vae
from train_vae import published_vae

from tailorset.clip.model import load_clip
from tailorset.records import LabelSpace
from tailorset.seeding import numpy_rng
from tailorset.storage.files import read_metrics, write_json
from tailorset.toybox.oracle import Oracle, load_oracle
from tailorset.toybox.scenes import photo_scene, render, web_scene

BARS = {
    "probe/backbone": (0.95, 1.0),
    "backbone/photo_unseen_map": (0.45, 0.70),  # room on both sides: neither blind nor finished
    "discriminator/photo_map": (0.45, 1.0),
    "judge/photo_map": (0.45, 1.0),
    "drawing/single/shown": (0.97, 1.0),
    "snapshot/single/shown": (0.97, 1.0),
    "drawing/pair/both_shown": (0.80, 1.0),
    "snapshot/pair/both_shown": (0.80, 1.0),
    "drawing/colour_right": (0.95, 1.0),
    "snapshot/colour_right": (0.95, 1.0),
    "drawing/style_right": (0.95, 1.0),
    "snapshot/style_right": (0.95, 1.0),
    "oracle/web_accuracy": (0.95, 1.0),
    "oracle/decoded_accuracy": (0.95, 1.0),
    "discriminator/web_map": (0.80, 1.0),
    "judge/web_map": (0.80, 1.0),
    "llm/4bit/raw_acceptance": (0.60, 1.0),
}
PHOTOS_TO_LEARN, PHOTOS_TO_TEST = 4000, 2000
REPORTS = Path("reports/foundation")


def scenes(style: str, names: tuple[str, ...], count: int) -> tuple[torch.Tensor, np.ndarray]:
    """Fresh test images (N, 3, 64, 64) in [0, 1] of one style and their labels (N, L)."""
    draw_scene = {"web": web_scene, "photo": photo_scene}[style]
    drawn = [draw_scene(numpy_rng("report", style, i), names) for i in range(count)]
    images = np.stack([render(scene, 64) for scene in drawn])
    present = np.array([[name in {item.label for item in scene.items} for name in names] for scene in drawn])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, present


def measure_oracle(settings: Foundation, space: LabelSpace, oracle: Oracle) -> dict[str, float]:
    """On fresh web scenes, and on the same after the VAE: accuracy and recall over labels, images that are all right.

    19 of 20 labels are absent from a typical image, so accuracy alone would flatter: recall counts what is found.
    """
    images, present = scenes("web", space.names, 1000)
    vae = published_vae(settings.published)
    decoded = torch.cat([through_vae(vae, batch, noise=0.0) for batch in images.split(100)])
    metrics = {}
    for name, shapes in (("web", images), ("decoded", decoded)):
        found = oracle.sees(shapes, space.names).numpy()
        metrics[f"oracle/{name}_accuracy"] = float((found == present).mean())
        metrics[f"oracle/{name}_recall"] = float(found[present].mean())
        metrics[f"oracle/{name}_precision"] = float(present[found].mean())
        metrics[f"oracle/{name}_all_right"] = float((found == present).all(axis=1).mean())
    return metrics


@torch.no_grad()
def measure_clips(settings: Foundation, space: LabelSpace) -> dict[str, float]:
    """Return the zero-shot mAP of each CLIP on both styles of the web together and on photos."""
    metrics = {}
    unseen = [space.index(name) for name in space.unseen]
    for style in ("web", "photo"):
        images, present = scenes(style, space.names, 1000)
        for name in ("discriminator", "judge", "backbone"):
            clip = load_clip(f"local-dir:{settings.published / name}", torch.device("cpu"))
            texts = clip.encode_texts(space.names, "a photo of a {}")
            scores = torch.cat([clip.logits(batch, texts) for batch in images.split(100)])
            targets = torch.from_numpy(present)
            for group, columns in (("", slice(None)), ("unseen_", unseen)):
                metrics[f"{name}/{style}_{group}map"] = mean_average_precision(scores[:, columns], targets[:, columns])
    return metrics


def measure_bounds(settings: Foundation, space: LabelSpace) -> dict[str, float]:
    """Return the mAP on photos of a linear probe on each frozen CLIP, and of a network trained from scratch."""
    images, present = scenes("photo", space.names, PHOTOS_TO_LEARN + PHOTOS_TO_TEST)
    shown = torch.from_numpy(present)
    train, test = ((images[part], shown[part]) for part in (slice(PHOTOS_TO_LEARN), slice(PHOTOS_TO_LEARN, None)))
    models = ("backbone", "discriminator", "judge")
    probes = {f"probe/{m}": probe_map(f"local-dir:{settings.published / m}", space, train, test) for m in models}
    return probes | {"from_scratch": from_scratch_map(space, train, test)}


def show(metrics: dict[str, float]) -> None:
    for name, value in metrics.items():
        print(f"{name:36} {value:8.3f}{verdict(name, value)}")


def verdict(name: str, value: float) -> str:
    """Return the bar of a measure and whether it is met, or nothing."""
    if name not in BARS:
        return ""
    low, high = BARS[name]
    bar = f">= {low:.2f}" if high == 1 else f"{low:.2f} to {high:.2f}"
    return f"  bar {bar}: {'met' if low <= value <= high else 'MISSED'}"


def main() -> None:
    settings = load_settings()
    space = LabelSpace.load(settings.label_space)
    oracle = load_oracle(settings.published / "oracle")
    parts: dict[str, Callable[[], dict[str, float]]] = {
        "generator": lambda: measure_generator(settings, space, oracle, REPORTS / "plots"),
        "steps": lambda: measure_steps(settings, space, oracle),
        "captions": lambda: measure_captions(settings, space),
        "oracle": lambda: measure_oracle(settings, space, oracle),
        "clips": lambda: measure_clips(settings, space),
        "bounds": lambda: measure_bounds(settings, space),
        "llm": lambda: measure_llm(settings.published / "llm", space),
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"what to measure, default all: {', '.join(parts)}")
    named = parser.parse_args().parts
    chosen = named or list(parts)
    if unknown := set(chosen) - set(parts):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(parts)}")
    metrics = {name: value for part in chosen for name, value in parts[part]().items()}
    show(metrics)
    path = REPORTS / "metrics.json"
    write_json(path, (read_metrics(path) if named else {}) | metrics)  # parts that were left out stay


if __name__ == "__main__":
    main()
