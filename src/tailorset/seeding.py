"""One seed per sample: results depend on neither batch size, number of workers, device nor restarts."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

import numpy as np
import torch

T = TypeVar("T")


def sample_seed(*parts: str | int) -> int:
    """A 63-bit seed out of what names the sample, e.g. (base seed, prompt id, index)."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def occurrence_numbers(keys: Iterable[Hashable]) -> list[int]:
    """Number each key by how often it occurred before: 0 for the first, 1 for the second, and so on.

    The number of a prompt's image is part of its seed.
    """
    counts: Counter[Hashable] = Counter()
    numbers = []
    for key in keys:
        numbers.append(counts[key])
        counts[key] += 1
    return numbers


def numpy_rng(*parts: str | int) -> np.random.Generator:
    """A numpy generator of the sample's own."""
    return np.random.default_rng(sample_seed(*parts))


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """Draw one of the options, each as likely as the others."""
    return options[int(rng.integers(len(options)))]


def torch_generator(*parts: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator of the sample's own; draw on the CPU and move the result to stay device-independent."""
    return torch.Generator(device=device).manual_seed(sample_seed(*parts))
