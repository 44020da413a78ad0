"""The two CLIPs of params.yaml: the discriminator steers and filters, the judge only measures."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from tailorset.clip.model import Clip, OpenClip
from tailorset.settings import Block, Wording

Role = Literal["discriminator", "judge"]
ROLES: tuple[Role, ...] = get_args(Role)


class ClipModel(OpenClip, Block):
    """An open_clip model of params.yaml, where an unknown key is an error."""


class Clips(Block):
    """A model for each role, and the wording in which labels are shown to both."""

    discriminator: ClipModel
    judge: ClipModel
    prompt_template: Wording

    def load(self, device: torch.device) -> dict[Role, Clip]:
        """Load the model of each role.

        Raises:
            ValueError: see load_clip.
        """
        return {"discriminator": self.discriminator.load(device), "judge": self.judge.load(device)}
