"""The data card as one HTML file without further files: images and styles are inside, and all text is escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from tailorset.card.facts import LabelCard, hardest_first
from tailorset.evaluation.results import percent
from tailorset.images.codec import encode_png
from tailorset.pages import render_page
from tailorset.storage.shards import load_images

TEMPLATE = "card/page.html"
MAX_PX = 128  # larger images are shown as thumbnails of this size


def render(
    cards: Sequence[LabelCard],
    facts: Mapping[str, object],
    parts: Sequence[Sequence[str]],
    generated: Mapping[str, str],
    photos: Mapping[str, str],
    notes: Sequence[str] = (),
) -> str:
    """Return the page, with labels that are hard to draw first.

    facts: settings at its head. parts: of models and photos that were used, role, name, revision, licence and
    commercial use.
    generated, photos: image id -> data URI of every image on the cards. notes: where training did not help.
    """
    context = {"cards": hardest_first(cards), "facts": facts, "parts": parts, "widest": widest_gain(cards)}
    filters = {"percent": card_percent, "signed": signed}
    return render_page(TEMPLATE, context | {"generated": generated, "photos": photos, "notes": notes}, filters)


def data_uris(manifest: pd.DataFrame, chosen: Iterable[str], folder: Path) -> dict[str, str]:
    """Return image id -> data URI of the chosen images of a product folder."""
    rows = manifest[manifest["image_id"].isin(set(chosen))]
    return {image_id: data_uri(image) for image_id, image in load_images(rows, folder)}


def data_uri(image: Image.Image) -> str:
    """Return a small image exactly, as PNG; a larger one as a JPEG thumbnail."""
    if max(image.size) <= MAX_PX:
        return _uri("png", encode_png(np.asarray(image)))
    thumbnail = image.copy()
    thumbnail.thumbnail((MAX_PX, MAX_PX))
    buffer = io.BytesIO()
    thumbnail.save(buffer, format="JPEG", quality=85)
    return _uri("jpeg", buffer.getvalue())


def card_percent(share: float | None) -> str:
    """Return 0.4567 as "46 %"; a share of nothing is a dash."""
    return "–" if share is None else f"{percent(share, 0)} %"


def signed(points: float) -> str:
    """Return 0.123 as "+12.3", in percentage points."""
    return percent(points, signed=True).replace("-", "−")


def widest_gain(cards: Sequence[LabelCard]) -> float:
    """Return the bound furthest from 0 of all intervals: they are drawn on one scale."""
    gains = [gain for card in cards for gain in (card.precision.gain, card.verdict.gain) if gain]
    return max((abs(bound) for gain in gains for bound in (gain.low, gain.high)), default=0.0) or 1.0


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
