"""Measure how well CLIP tells right generated images from wrong ones: `python benchmarks/filter_quality.py`.

After `make run` of the toybox, whose oracle says what the candidates in data/synthetic show. A row per CLIP and number
of requested labels: candidates, share of them that show all of their labels, area under the ROC curve of the lowest
grouped probability (0.5 = blind), then for some thresholds how many images pass and which share of these is right.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

import tailorset  # noqa: F401 - sets the offline and telemetry switches before any library is imported
from tailorset.clip.scorer import weakest_stored
from tailorset.clip.settings import ROLES
from tailorset.project.layout import SYNTHETIC
from tailorset.project.params import load_params
from tailorset.records import LabelSpace, requested_mask
from tailorset.storage.image_set import load_image_set
from tailorset.toybox.oracle import IMAGE_PX, Oracle, load_oracle

THRESHOLDS = (0.5, 0.7, 0.9)


def right(candidates: pd.DataFrame, space: LabelSpace, oracle: Oracle) -> np.ndarray:
    """Return (N,) bool: to the oracle, the candidate shows every label that it was asked to show."""
    targets = torch.from_numpy(requested_mask(candidates["labels"].tolist(), space.unseen))
    images = load_image_set(candidates, targets, SYNTHETIC, IMAGE_PX, "synthetic").images
    return (oracle.sees(images.float() / 255, space.unseen) | ~targets).all(1).numpy()


def table(candidates: pd.DataFrame, shows: np.ndarray, space: LabelSpace) -> list[list[str]]:
    """Return the rows of the table, cells as text. shows: (N,), as `right` returns it."""
    sizes = candidates["labels"].map(len).to_numpy()
    groups = {str(size): sizes == size for size in np.unique(sizes)} | {"any": sizes > 0}
    records, rows = candidates.to_dict("records"), []
    for role in ROLES:
        weakest = weakest_stored(records, space.unseen, role)
        for size, chosen in groups.items():
            of_size, probability = shows[chosen], weakest[chosen]
            passed = [of_size[probability > threshold] for threshold in THRESHOLDS]
            cells = [f"{len(one)}, {one.mean():.2f}" if len(one) else "0" for one in passed]
            area = f"{roc_auc_score(of_size, probability):.2f}" if len(set(of_size)) == 2 else "-"
            rows.append([role, size, str(len(of_size)), f"{of_size.mean():.2f}", area, *cells])
    return rows


def main() -> None:
    space = LabelSpace.load(load_params().label_space)
    candidates = pd.read_parquet(SYNTHETIC / "manifest.parquet")
    head = ["CLIP", "labels", "candidates", "right", "AUC", *(f"> {value}: passed, right" for value in THRESHOLDS)]
    rows = table(candidates, right(candidates, space, load_oracle()), space)
    for row in [head, ["---"] * len(head), *rows]:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
