"""Photos of a further folder that prompts and drawings may start from: none like a photo of val or test.

Shapes: N photos, D numbers of a signature.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from tailorset.images.codec import decode_image, encode_png, file_content, shrunk
from tailorset.messages import some
from tailorset.progress import Bar
from tailorset.storage.held_out import are_copies, held_out_signatures, photo_signature
from tailorset.storage.lent import LENT
from tailorset.storage.photo_files import find_photos
from tailorset.storage.shards import sha256, write_shard

LENT_PX = 512  # longest shorter side that is stored
SHARD_SIZE = 500
UNREADABLE = "cannot be read"
log = logging.getLogger(__name__)


class _Lent(NamedTuple):
    image_id: str
    png: bytes


def lend_folder(photos: Path, product: Path) -> dict[str, int]:
    """Write the photos of a folder to the folder `lent` of a product, and return how many were lent and left out.

    product: folder of the real images, with manifest and shards.

    Raises:
        ValueError: there is no such folder, or none of its photos can be lent.
    """
    found = find_photos(photos, "prepare_dataset.lend_photos")
    left_out = Counter({UNREADABLE: len(found.unread)})
    lent = _lendable(found.photos, held_out_signatures(product), left_out)
    rows: list[dict[str, str]] = []
    while batch := list(islice(lent, SHARD_SIZE)):
        shard = f"{LENT}-{len(rows) // SHARD_SIZE:05d}.tar"
        write_shard(product / LENT / "shards" / shard, batch)
        rows += [{"image_id": one.image_id, "shard": shard, "sha256": sha256(one.png)} for one in batch]
    reasons = some([f"{number} {reason}" for reason, number in left_out.items() if number])
    if not rows:
        raise ValueError(f"none of {len(found.photos)} photos in {photos} can be lent: {reasons}")
    log.info("%d photos of %s are lent%s", len(rows), photos, f"; left out: {reasons}" if reasons else "")
    pd.DataFrame(rows).to_parquet(product / LENT / "manifest.parquet", index=False)
    return {"real/num_lent": len(rows), "real/num_not_lent": left_out.total()}


def _lendable(found: dict[str, Path], measured: np.ndarray, left_out: Counter[str]) -> Iterator[_Lent]:
    """Yield photos in the order of their names; `left_out` counts the rest by reason."""
    for number, name in enumerate(Bar(sorted(found), desc="photos to lend", unit="photo")):
        try:
            image = shrunk(decode_image(file_content(found[name])), LENT_PX)
        except (OSError, ValueError):
            left_out[UNREADABLE] += 1
            continue
        if are_copies(photo_signature(image)[None], measured)[0]:
            left_out["are like a photo of val or test"] += 1
        else:
            yield _Lent(f"{LENT}-{number:06d}", encode_png(np.asarray(image)))
