"""benchmarks/filter_quality.py: the oracle says which images are right, the scores who knows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filter_quality import main

from tailorset.images.codec import encode_png
from tailorset.project.layout import SYNTHETIC
from tailorset.records import LabelSpace
from tailorset.seeding import numpy_rng
from tailorset.storage.shards import sha256, write_shard
from tailorset.toybox.scenes import render, web_scene

ROOT = Path(__file__).resolve().parents[2]
NUM = 24


def test_a_clip_that_knows_the_labels_has_a_larger_area_than_one_that_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    for shared in ("params.yaml", "data/labels", "models"):
        (tmp_path / shared).symlink_to(ROOT / shared)
    monkeypatch.chdir(tmp_path)
    unseen = LabelSpace.load("data/labels/toybox.yaml").unseen
    rows, contents = [], []
    for index in range(NUM):
        shown, is_right = index % len(unseen), index % 2 == 0
        asked = shown if is_right else (shown + 1) % len(unseen)
        scene = web_scene(numpy_rng("filter quality", index), [unseen[shown]], 1, "snapshot")
        content = encode_png(render(scene, 64))
        contents.append((f"image-{index:04d}", content))
        logits = np.eye(len(unseen))
        rows.append(
            {"image_id": f"image-{index:04d}", "labels": [unseen[asked]], "shard": "0.tar", "sha256": sha256(content)}
            | {"discriminator_logits": 9 * logits[shown], "judge_logits": 9 * logits[(index // 2) % len(unseen)]}
        )
    write_shard(SYNTHETIC / "shards" / "0.tar", contents)
    pd.DataFrame(rows).to_parquet(SYNTHETIC / "manifest.parquet")
    main()
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert lines[0][:5] == ["CLIP", "labels", "candidates", "right", "AUC"]
    assert lines[2][2:] == lines[3][2:], "all images have one label"
    (_, *discriminator), _, (_, *judge), _ = lines[2:]
    assert discriminator[:2] == judge[:2] == ["1", str(NUM)]
    assert float(discriminator[2]) == pytest.approx(0.5, abs=0.05)
    assert float(discriminator[3]) > 0.9
    assert float(judge[3]) < 0.8
    assert discriminator[4] == "12, 1.00" or discriminator[4].startswith("12, 0.9")
