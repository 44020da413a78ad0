"""Typed settings of the foundation DAG and the paths its stages share."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tailorset.records.yaml_files import parse_yaml
from tailorset.settings import Block

WEB = Path("data/foundation/web")
WORK = Path(".work/foundation")


class DrawWeb(Block):
    num_images: int
    num_captions: int
    image_px: int


class TrainTokenizer(Block):
    vocab_size: int
    max_length: int


class TrainClip(Block):
    seed: int
    half: Literal["all", "even", "odd"]
    num_steps: int
    batch_size: int
    learning_rate: float
    object_captions: float  # share of steps on "a photo of a X" instead of whole captions
    captions_first: int = 0  # steps on whole captions before that: names alone stall a new network
    vision: dict[str, int | str | list[int]]


class TrainVae(Block):
    num_steps: int
    num_decoder_steps: int
    batch_size: int
    learning_rate: float


class TrainUnet(Block):
    num_steps: int
    batch_size: int
    learning_rate: float
    ema_decay: float
    unconditional_share: float
    several_share: float
    snr_gamma: float
    widths: tuple[int, ...]


class TrainOracle(Block):
    width: int
    num_steps: int
    batch_size: int
    learning_rate: float


class TrainLlm(Block):
    """Widths are multiples of 64: bitsandbytes requires that in 4 bit on a CPU."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    caption_share: float  # of the answers that are web captions
    num_tokenizer_examples: int
    num_steps: int
    batch_size: int
    learning_rate: float


class Foundation(Block):
    seed: int
    label_space: Path
    output: Path
    published: Path
    continue_from: Path | None
    draw_web: DrawWeb
    train_tokenizer: TrainTokenizer
    train_clip: dict[str, TrainClip]
    train_vae: TrainVae
    train_unet: TrainUnet
    train_oracle: TrainOracle
    train_llm: TrainLlm


def load_settings(path: Path = Path("pipeline/foundation/params.yaml")) -> Foundation:
    return Foundation.model_validate(parse_yaml(path.read_text(encoding="utf-8"), path))
