"""Measure on val what positions and crops of a photo add to its score: `python benchmarks/crops.py`.

First CLIP without training: the best row is what `tailorset.clip.patches` computes. Then the trained classifier: the
rows of crops are those of `train_classifier.crop_weight`. Uses `score_baselines.clip`, the photos and the classifier
of `make run`; two minutes on two cores.

Shapes: N photos, P positions, L labels.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from tqdm import tqdm

import tailorset  # noqa: F401 - sets the offline and telemetry switches before any library is imported
from tailorset.classifiers.dual_prompt import DualPrompt, load
from tailorset.clip.dense_features import crops, dense_encoder
from tailorset.clip.model import Clip
from tailorset.evaluation.metrics import zero_shot_metrics
from tailorset.project.layout import CLASSIFIER, FILTERED, REAL, SYNTHETIC
from tailorset.project.params import load_params
from tailorset.records import LabelSpace
from tailorset.storage.annotated import Collection

BATCH = 100
SHARES = (0.25, 0.5, 0.75, 1.0)
PATCHES = "whole + best position + best crop (clip_patches)"


@torch.no_grad()
def parts(clip: Clip, images: Tensor, texts: Tensor) -> dict[str, Tensor]:
    """Return cosines of uint8 images: of the whole (N, L), of positions (N, P, L), of crops (N, 4, L), of theirs."""
    encode = dense_encoder(clip.model.visual)
    found: dict[str, list[Tensor]] = {"whole": [], "positions": [], "crops": [], "positions of crops": []}
    for batch in tqdm(images.split(BATCH), desc="photos"):
        pixels = batch.float() / 255
        dense, pooled = encode(clip.preprocess(pixels))
        cropped = [encode(clip.preprocess(crop)) for crop in crops(pixels)]
        found["whole"].append(pooled @ texts.T)
        found["positions"].append(dense @ texts.T)
        found["crops"].append(torch.stack([features for _, features in cropped], 1) @ texts.T)
        found["positions of crops"].append(torch.cat([positions for positions, _ in cropped], 1) @ texts.T)
    return {name: torch.cat(cosines) for name, cosines in found.items()}


def variants(cosines: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Return (N, L) scores of each way; scale: the CLIP's own logit_scale."""
    whole = cosines["whole"]
    position, crop, inner = (cosines[name].amax(1) for name in ("positions", "crops", "positions of crops"))
    against_labels = (scale * cosines["positions"]).softmax(-1)
    return {
        "whole image (raw CLIP)": whole,
        "mean of positions": cosines["positions"].mean(1),
        "best position": position,
        "best position, softmax over labels": against_labels.amax(1),
        "best crop": crop,
        "best position of a crop": inner,
        "whole + best position": whole + position,
        "best of whole, positions, crops, theirs": torch.stack([whole, position, crop, inner]).amax(0),
        PATCHES: whole + position + crop,
    }


@torch.no_grad()
def classifier_variants(classifier: DualPrompt, images: Tensor, patches: Tensor) -> dict[str, Tensor]:
    """Return (N, L) logits of a classifier with shares of its own best crop, and of CLIP with patches and crops.

    images: (N, 3, H, W) uint8; patches: (N, L) scores of CLIP, brought to the spread of the classifier's.
    """
    found = []
    for batch in tqdm(images.split(BATCH), desc="classifier"):
        pixels = batch.float() / 255
        best = torch.stack([classifier.logits(crop) for crop in crops(pixels)]).amax(0)
        found.append(torch.stack([classifier.logits(pixels), best]))
    whole, best = torch.cat(found, 1)
    patches = (patches - patches.mean()) / patches.std() * whole.std()
    return (
        {"classifier, whole image": whole}
        | {f"classifier, crop_weight {share}": whole.lerp(best, share) for share in SHARES}
        | {f"classifier + {share} x CLIP with patches and crops": whole + share * patches for share in SHARES}
    )


def main() -> None:
    params = load_params()
    space = LabelSpace.load(params.label_space)
    clip = params.score_baselines.clip.load("cpu")
    photos = Collection(space, REAL, SYNTHETIC, FILTERED).photos("val")
    val = photos.load(clip.image_px)
    texts = clip.encode_texts(space.names, params.clip.prompt_template)
    print(f"{len(val.images)} photos of val; mAP in %, ZSL / GZSL")
    rows = variants(parts(clip, val.images, texts), clip.logit_scale)
    classifier = load(CLASSIFIER, torch.device("cpu"))
    classifier.crop_weight = 0.0  # whatever it was saved with
    rows |= classifier_variants(classifier, photos.load(classifier.image_px).images, rows[PATCHES])
    for name, scores in rows.items():
        metrics = zero_shot_metrics(scores, val.targets, space)
        print(f"{name:50} {100 * metrics['zsl/map']:.1f} / {100 * metrics['gzsl/map']:.1f}")


if __name__ == "__main__":
    main()
