"""Photos that prompts and drawings may start from: those of the train split, without their annotations."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from tailorset.seeding import sample_seed

NONE_TO_LEND = (
    "has no photo in the train split, and prepare_dataset.lend_photos is true: add photos, or set it to false"
)


def lent_photos(folder: Path, number: int, seed: int) -> pd.DataFrame:
    """Return the manifest rows of at most `number` train photos, chosen by their ids and the seed.

    folder: of the real images.

    Raises:
        ValueError: there is no manifest, or no train photo.
    """
    path = folder / "manifest.parquet"
    if not path.exists():
        raise ValueError(f"{path} is missing: `dvc repro prepare_dataset` makes it, `dvc pull` fetches it")
    train = _train(pd.read_parquet(path), folder)
    order = sorted(train["image_id"], key=lambda image_id: sample_seed("lent", seed, image_id))
    return train[train["image_id"].isin(order[:number])].reset_index(drop=True)


def lent_digest(manifest: pd.DataFrame, folder: Path) -> str:
    """Return a digest of the train photos' ids and contents: what starts from them goes stale with it.

    Raises:
        ValueError: there is no train photo.
    """
    train = _train(manifest, folder)
    return hashlib.sha256("\n".join(train["image_id"] + " " + train["sha256"]).encode()).hexdigest()


def _train(manifest: pd.DataFrame, folder: Path) -> pd.DataFrame:
    train = manifest[manifest["split"] == "train"]
    if train.empty:
        raise ValueError(f"{folder} {NONE_TO_LEND}")
    return train
