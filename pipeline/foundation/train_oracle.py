"""Train the oracle: supervised on every label and colour of web style, used for measuring only, never by a stage."""

from __future__ import annotations

import numpy as np
import torch
from draw_web import scene_at
from loop import half, train
from safetensors.torch import load_file, save_file
from settings import WEB, Foundation, load_settings
from torch import Tensor, nn
from torch.nn import functional as F
from web import Web, batch_indices

from tailorset.records import LabelSpace
from tailorset.toybox.objects import COLOURS

IMAGE_PX = 32
ORACLE = WEB.parent / "oracle.safetensors"


class Oracle(nn.Module):
    """Images (B, 3, 32, 32) in [0, 1] -> logits (B, L, 1 + C): label present; present in each of C colours."""

    def __init__(self, num_labels: int, width: int = 32) -> None:
        super().__init__()
        widths = (3, width, 2 * width, 4 * width, 8 * width)
        blocks = [block(a, b, stride) for a, b, stride in zip(widths, widths[1:], (1, 2, 2, 1), strict=False)]
        self.features = nn.Sequential(*blocks)
        self.head = nn.Linear(widths[-1], num_labels * (1 + len(COLOURS)))
        self.num_labels = num_labels

    def forward(self, images: Tensor) -> Tensor:
        peak = self.features(2 * images - 1).amax(dim=(2, 3))
        return self.head(peak).view(len(images), self.num_labels, -1)


def block(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
        nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


def truth(settings: Foundation, names: tuple[str, ...], count: int) -> np.ndarray:
    """(N, L, 1 + C) bool: what each web image shows, redrawn from its seed."""
    colours = list(COLOURS)
    shown = np.zeros((count, len(names), 1 + len(colours)), dtype=bool)
    for index in range(count):
        for item in scene_at(settings, names, index)[0].items:
            shown[index, names.index(item.label), [0, 1 + colours.index(item.colour)]] = True
    return shown


def blur(images: Tensor) -> Tensor:
    """Half of the batches lose detail, as decoded images do."""
    if torch.rand(()) < 0.5:
        return images
    return F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1) * 0.5 + images * 0.5


def load_oracle(num_labels: int) -> Oracle:
    oracle = Oracle(num_labels)
    oracle.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(ORACLE).items()})
    return oracle.eval()


def main() -> None:
    settings = load_settings()
    options = settings.train_oracle
    names = LabelSpace.load(settings.label_space).names
    web = Web.load()
    targets = truth(settings, names, len(web))
    torch.manual_seed(settings.seed)
    oracle = Oracle(len(names)).to(memory_format=torch.channels_last).train()

    def loss_at(step: int) -> Tensor:
        indices = batch_indices(len(web), options.batch_size, step, settings.seed)
        images = blur(web.pixels(indices, IMAGE_PX)).contiguous(memory_format=torch.channels_last)
        if step % 2:
            images = images.flip(-1)
        target = torch.from_numpy(targets[indices]).float()
        return F.binary_cross_entropy_with_logits(oracle(images), target) * len(names)

    train("oracle", {"oracle": oracle}, loss_at, options.num_steps, options.learning_rate)
    save_file(half(oracle), ORACLE)


if __name__ == "__main__":
    main()
