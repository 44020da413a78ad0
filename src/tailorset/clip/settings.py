"""The two CLIPs of params.yaml: one that steers and filters, one that only judges."""

from __future__ import annotations

from tailorset.clip.model import OpenClip
from tailorset.settings import Block, Wording


class ClipModel(OpenClip, Block):
    """An open_clip model; an unknown key is an error as everywhere here."""


class Clip(Block):
    discriminator: ClipModel
    judge: ClipModel
    prompt_template: Wording
