"""A pool of candidates: the first images of every prompt with the scores of both CLIPs, drawn once and kept on disk.

An image is a function of (seed, prompt, index) alone, so the pool holds what any allocation would have drawn, and
earlier candidates of generate_images are taken from its manifest after a batch of them was drawn again as a check.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from tqdm import tqdm

from tailorset.compute.device import resolve_device, use_tf32
from tailorset.generation.quota import Draw
from tailorset.generation.shard_store import MANIFEST_SCHEMA, ShardStore
from tailorset.generation.studio import PlannedShard, Row, Studio
from tailorset.project.assembly import open_studio
from tailorset.project.definition import fingerprint, stage_definition
from tailorset.project.layout import SYNTHETIC
from tailorset.project.params import Params
from tailorset.records import LabelSpace, Prompt
from tailorset.storage.paths import project_root

LOGITS = ("discriminator_logits", "judge_logits")
SCRIPT = "pipeline/generate_images.py"  # plans and reports, like most of the package: they change no image
PACKAGE, DRAWING = "src/tailorset/generation", "src/tailorset/generation/studio.py"
MAX_DIFFERENCE = 0.1  # of logits, between a candidate of the manifest and the same drawn again


def candidates(params: Params, prompts: Sequence[Prompt], images_per_prompt: int) -> pd.DataFrame:
    """Manifest rows of the first `images_per_prompt` images of each prompt, by index; those missing are drawn."""
    wanted = [
        Draw(prompt, i, prompt.labels[0])
        for i in range(images_per_prompt)
        for prompt in sorted(prompts, key=lambda prompt: prompt.prompt_id)
    ]
    use_tf32()
    space, device = LabelSpace.load(params.label_space), resolve_device(params.device)
    studio = open_studio(params, space, device)
    known = {row["image_id"]: row for row in drawn_before(studio, wanted)}
    known |= {row["image_id"]: row for row in _draw(studio, [draw for draw in wanted if draw.image_id not in known])}
    return pd.DataFrame([known[draw.image_id] for draw in wanted])


def drawn_before(studio: Studio, wanted: Sequence[Draw]) -> list[Row]:
    """Rows of the manifest of generate_images, if there is one and a batch of it comes out the same when drawn again.

    Raises: ValueError if it does not: the manifest is of other settings, prompts or weights.
    """
    path = SYNTHETIC / "manifest.parquet"
    if not path.exists():
        return []
    rows = pq.read_table(path, schema=MANIFEST_SCHEMA).to_pylist()
    known = {row["image_id"]: row for row in rows}
    again = [draw for draw in wanted if draw.image_id in known][: studio.batch_size]
    redrawn, _ = studio.draw_shard(PlannedShard("again", again))
    before = [known[draw.image_id] for draw in again]
    if not again or max(_difference(before, redrawn, name) for name in LOGITS) > MAX_DIFFERENCE:
        raise ValueError(f"{path} was drawn with other settings than these: run `dvc repro generate_images` first")
    return rows


def _difference(some: Sequence[Row], others: Sequence[Row], name: str) -> float:
    """Largest difference between two lists of logits."""
    a, b = (np.array([row[name] for row in rows]) for rows in (some, others))  # (B, U)
    return float(np.abs(a - b).max())


def _draw(studio: Studio, draws: Sequence[Draw]) -> Iterator[Row]:
    store, size = ShardStore(_folder()), 4 * studio.batch_size
    with tqdm(total=len(draws), desc="drawing the pool", unit="image") as bar:
        for start in range(0, len(draws), size):
            part, name = draws[start : start + size], f"pool-{start:05d}.tar"
            rows = store.finished_rows(name)
            if rows is None or [row["image_id"] for row in rows] != [draw.image_id for draw in part]:
                rows, samples = studio.draw_shard(PlannedShard(name, part), bar.update)
                store.keep(name, rows, samples)
            else:
                bar.update(len(rows))
            yield from rows


def _folder() -> Path:
    """Folder of the pool: a separate one for every setting, weight and prompt that changes an image."""
    definition = stage_definition("generate_images")
    drawing = ("generate_images.num_inference_steps", "generate_images.from_photos")
    shaping = {
        key: value
        for key, value in definition["params"].items()
        if not key.startswith("generate_images.") or key.startswith(drawing)
    }
    deps = [DRAWING if dep == PACKAGE else dep for dep in definition["deps"] if dep != SCRIPT]
    folder = project_root() / ".work" / "allocation" / fingerprint({"params": shaping, "deps": deps})
    folder.mkdir(parents=True, exist_ok=True)
    return folder
