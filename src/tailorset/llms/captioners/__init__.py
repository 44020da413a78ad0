"""Plug-ins that describe photos in words; the scenes of prompts come from them.

A captioner is one file here with a `Config` and `build(config, device) -> Captioner`. Its captions are untrusted text:
`tailorset.prompts.captions` keeps plain words of them, and replaces the names of labels.
"""

from __future__ import annotations

from typing import Protocol

from PIL import Image


class Captioner(Protocol):
    """A model that describes photos."""

    batch_size: int  # the best number of photos per call

    def caption(self, photos: list[Image.Image]) -> list[str]:
        """Return one caption per photo, an RGB image of any size; the same photo has the same caption in any batch."""
        ...
