"""The toybox's truth: a network, supervised on every label, colour and style, that finds what an image really shows.

For measuring only: nothing that influences a run may use it.
Shapes: B images of a batch, N images, L labels, C colours.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from tailorset.messages import first_line
from tailorset.storage import checksums

COMMITTED = Path("models/foundation/toybox/oracle")  # the weights of this repository, below its root
IMAGE_PX = 64
SHOWN_ABOVE = 0.5  # probability of a label that counts as visible
WEIGHTS = "oracle.safetensors"
BATCH = 256


class Oracle(nn.Module):
    """Images (B, 3, P, P) in [0, 1] -> logits (B, L, 1 + C): label visible; visible in each of the colours.

    `style` has the logits (B,) of a snapshot instead of a drawing.
    """

    def __init__(self, labels: Sequence[str], colours: Sequence[str], width: int) -> None:
        super().__init__()
        self.labels, self.colours, self.width = tuple(labels), tuple(colours), width
        widths = (3, width, 2 * width, 4 * width, 6 * width)
        blocks = [_block(a, b, stride) for a, b, stride in zip(widths, widths[1:], (2, 2, 1, 1), strict=False)]
        self.features = nn.Sequential(*blocks)
        self.head = nn.Linear(widths[-1], len(labels) * (1 + len(colours)))
        self.style_head = nn.Linear(widths[-1], 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.both(images)[0]

    def both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of labels and colours (B, L, 1 + C), and of the style (B,)."""
        features = self.features(2 * images - 1)
        shown = self.head(features.amax(dim=(2, 3))).view(len(images), len(self.labels), -1)
        return shown, self.style_head(features.mean(dim=(2, 3))).squeeze(1)

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """(N, L, 1 + C) of images (N, 3, H, W) in [0, 1] of any size, as `forward` orders them, in [0, 1]."""
        return torch.cat([self(batch).sigmoid() for batch in _sized(images).split(BATCH)])

    @torch.no_grad()
    def snapshots(self, images: Tensor) -> Tensor:
        """(N,) probability that each of images (N, 3, H, W) in [0, 1] is a snapshot, and not a drawing."""
        return torch.cat([self.both(batch)[1].sigmoid() for batch in _sized(images).split(BATCH)])

    def shown(self, images: Tensor) -> Tensor:
        """(N, L) probability that each label is visible in images (N, 3, H, W) in [0, 1]."""
        return self.probabilities(images)[..., 0]

    def sees(self, images: Tensor, labels: Sequence[str]) -> Tensor:
        """(N, L) bool: whether each of these labels is visible in images (N, 3, H, W) in [0, 1]."""
        return self.shown(images)[:, [self.labels.index(label) for label in labels]] > SHOWN_ABOVE


def _sized(images: Tensor) -> Tensor:
    if images.shape[-2:] == (IMAGE_PX, IMAGE_PX):
        return images
    return F.interpolate(images, size=(IMAGE_PX, IMAGE_PX), mode="area")


def save_oracle(oracle: Oracle, folder: Path) -> None:
    """Write the weights in half precision, with the names of labels and colours in one header entry."""
    folder.mkdir(parents=True, exist_ok=True)
    header = {"labels": oracle.labels, "colours": oracle.colours, "width": oracle.width}
    state = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in oracle.state_dict().items()}
    save_file(state, folder / WEIGHTS, metadata={"oracle": json.dumps(header)})


def load_oracle(folder: Path = COMMITTED) -> Oracle:
    """Read what `save_oracle` wrote, in float32 and evaluation mode.

    Raises:
        ValueError: the file is missing or damaged.
    """
    path = folder / WEIGHTS
    checksums.check(folder, checksums.RESTORE)
    try:
        with safe_open(path, framework="pt") as file:
            oracle = Oracle(**json.loads(file.metadata()["oracle"]))
            oracle.load_state_dict({key: file.get_tensor(key) for key in list(file.keys())})
    except (OSError, SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"oracle {path} cannot be used ({first_line(error)}); {checksums.RESTORE}") from error
    return oracle.eval().requires_grad_(False)


def _block(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
        nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )
