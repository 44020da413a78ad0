"""A project in which a classifier can be trained: few labels, random photos and random generated images."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from tailorset.images.codec import encode_png
from tailorset.storage.shards import sha256, write_shard

ROOT = Path(__file__).resolve().parents[1]
LABELS = {"key": False, "cup": False, "fish": False, "tree": True, "ball": True}
SIZES = {"train": 12, "val": 9, "test": 10}
ACCEPTANCE = {f"acceptance/{when}/{who}": 0.5 for when in ("before", "after") for who in ("discriminator", "judge")}


def write_classifier_project(backbone_folder: Path) -> None:
    """Write settings, labels and images in the current folder."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    backbone = {"model": f"local-dir:{backbone_folder}"}
    params["train_classifier"] |= {"backbone": backbone, "num_context_tokens": 2, "num_epochs": 2, "batch_size": 8}
    params["train_classifier"]["held_out_share"] = 0.5
    params["score_baselines"]["clip"] = backbone
    params |= {"label_space": "data/labels/small.yaml", "device": "cpu"}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    labels = [{"name": name, "seen": seen} for name, seen in LABELS.items()]
    Path("data/labels/small.yaml").write_text(yaml.safe_dump({"name": "small", "labels": labels}))
    write_real()
    write_filtered()
    Path("reports/tune_text_encoder").mkdir(parents=True)
    Path("reports/tune_text_encoder/metrics.json").write_text(json.dumps(ACCEPTANCE | {"loss": 1.0}))


def run(stage: str) -> None:
    spec = importlib.util.spec_from_file_location(f"{stage}_stage", ROOT / "pipeline" / f"{stage}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main()


def write_images(folder: Path, shard: str, ids: list[str]) -> pd.DataFrame:
    """Random images of two sizes in one shard; their manifest rows."""
    rng = np.random.default_rng(len(ids))
    heights = [20 + n % 2 for n in range(len(ids))]
    images = [rng.integers(0, 256, (height, 24, 3), dtype=np.uint8) for height in heights]
    contents = [encode_png(image) for image in images]
    write_shard(folder / "shards" / shard, zip(ids, contents, strict=True))
    digests = [sha256(content) for content in contents]
    return pd.DataFrame({"image_id": ids, "shard": shard, "sha256": digests, "width": 24, "height": heights})


def write_real() -> None:
    folder, parts, targets = Path("data/real"), [], []
    for split, size in SIZES.items():
        parts.append(
            write_images(folder, f"{split}-00000.tar", [f"{split}{i}" for i in range(size)]).assign(split=split)
        )
        present = np.random.default_rng(1).integers(0, 2, (size, len(LABELS)))
        table = pd.DataFrame(present, columns=list(LABELS)[::-1], dtype="int8")  # columns in another order
        if split == "train":
            table[["key", "cup", "fish"]] = np.int8(-1)
        targets.append(table.assign(image_id=parts[-1]["image_id"]))
    pd.concat(parts).to_parquet(folder / "manifest.parquet")
    pd.concat(targets[::-1]).to_parquet(folder / "targets.parquet")  # and rows as well


def write_filtered() -> None:
    rows = write_images(Path("data/synthetic"), "0.tar", [f"prompt{i // 2}-{i % 2:04d}" for i in range(16)])
    labels = [["key"], ["cup"], ["key", "fish"], []] * 4
    texts = [" and ".join(["a picture", *names]) for names in labels]
    rows = rows.assign(prompt=texts, kept=[bool(names) for names in labels], labels=labels)
    rows = rows.assign(reason="", confidence=0.9, reviewed=[[]] * len(rows))
    Path("data/filtered").mkdir(parents=True)
    rows.to_parquet("data/filtered/manifest.parquet")
