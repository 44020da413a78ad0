"""The data card as one HTML file that needs nothing else: images and styles are inside, and all text is escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from tailorset.card.facts import LabelCard, hardest_first
from tailorset.images.codec import encode_png
from tailorset.pages import render_page
from tailorset.storage.hub import Origin
from tailorset.storage.shards import load_images

TEMPLATE = "card/page.html"
MAX_PX = 128  # larger images are shown as thumbnails of this size


def render(
    cards: Sequence[LabelCard],
    facts: Mapping[str, object],
    models: Sequence[Origin],
    generated: Mapping[str, str],
    photos: Mapping[str, str],
    notes: Sequence[str] = (),
) -> str:
    """The page: labels that are hard to draw first.

    facts: settings to state at its head. models: those that were used.
    generated, photos: image id -> data URI of every image the cards show. notes: where training did not help.
    """
    context = {"cards": hardest_first(cards), "facts": facts, "models": models, "widest": widest_gain(cards)}
    filters = {"percent": percent, "signed": signed}
    return render_page(TEMPLATE, context | {"generated": generated, "photos": photos, "notes": notes}, filters)


def data_uris(manifest: pd.DataFrame, chosen: Iterable[str], folder: Path) -> dict[str, str]:
    """image id -> data URI of the chosen images of a product folder."""
    rows = manifest[manifest["image_id"].isin(set(chosen))]
    return {image_id: data_uri(image) for image_id, image in load_images(rows, folder)}


def data_uri(image: Image.Image) -> str:
    """Small images exactly, as PNG; larger ones as a JPEG thumbnail."""
    if max(image.size) <= MAX_PX:
        return _uri("png", encode_png(np.asarray(image)))
    thumbnail = image.copy()
    thumbnail.thumbnail((MAX_PX, MAX_PX))
    buffer = io.BytesIO()
    thumbnail.save(buffer, format="JPEG", quality=85)
    return _uri("jpeg", buffer.getvalue())


def percent(share: float | None) -> str:
    """0.4567 -> "46 %"; a share of nothing is a dash."""
    return "–" if share is None else f"{100 * share:.0f} %"


def signed(points: float) -> str:
    """0.123 -> "+12.3", in percentage points."""
    return f"{100 * points:+.1f}".replace("-", "−")


def widest_gain(cards: Sequence[LabelCard]) -> float:
    """The bound furthest from 0 of all intervals: they are drawn on one scale."""
    gains = [gain for card in cards for gain in (card.precision.gain, card.verdict.gain) if gain]
    return max((abs(bound) for gain in gains for bound in (gain.low, gain.high)), default=0.0) or 1.0


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
