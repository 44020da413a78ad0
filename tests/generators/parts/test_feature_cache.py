"""Between full steps only the outermost blocks run, and a sample never sees another one's features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from tailorset.generators import stable_diffusion

STEPS = 6
PROMPTS, SEEDS = ["a red kite", "the boat", "a clock"], [1, 2, 3]


def generator(folder: Path, interval: int) -> stable_diffusion.StableDiffusion:
    config = stable_diffusion.Config(model=str(folder), image_px=8, guidance_scale=3.0, cache_interval=interval)
    return stable_diffusion.build(config, "cpu")


def counted(generator: Any) -> dict[str, int]:
    """Count the runs of the outermost and the innermost layers from now on."""
    calls = {"outer": 0, "inner": 0}
    modules = {"outer": generator.unet.down_blocks[0].resnets[0], "inner": generator.unet.mid_block.resnets[0]}
    for name, module in modules.items():
        module.register_forward_hook(lambda *_, name=name: calls.__setitem__(name, calls[name] + 1))
    return calls


def drawn(generator: Any, **options: Any) -> Tensor:
    return generator.sample(PROMPTS, SEEDS, STEPS, **options)


@pytest.mark.parametrize(("interval", "full_steps"), [(1, 6), (2, 3), (4, 2), (9, 1)])
def test_only_each_nth_step_runs_the_whole_unet(tiny_diffusion_folder: Path, interval: int, full_steps: int) -> None:
    at_work = generator(tiny_diffusion_folder, interval)
    calls = counted(at_work)
    drawn(at_work)
    assert calls == {"outer": STEPS, "inner": full_steps}


def test_images_are_close_to_those_of_all_steps_and_not_the_same(tiny_diffusion_folder: Path) -> None:
    whole, cached = drawn(generator(tiny_diffusion_folder, 1)), drawn(generator(tiny_diffusion_folder, 2))
    rougher = drawn(generator(tiny_diffusion_folder, STEPS))
    assert 0 < float((cached - whole).abs().mean()) < float((rougher - whole).abs().mean())


def test_what_was_drawn_before_does_not_matter(tiny_diffusion_folder: Path) -> None:
    at_work = generator(tiny_diffusion_folder, 4)
    expected = drawn(at_work)
    at_work.sample(["the tree"], [9], STEPS)
    torch.testing.assert_close(drawn(at_work), expected, rtol=0, atol=0)


def test_steps_with_gradient_run_the_whole_unet(tiny_diffusion_folder: Path) -> None:
    at_work = generator(tiny_diffusion_folder, STEPS)
    at_work.add_adapter(rank=2, alpha=2.0)
    calls = counted(at_work)
    drawn(at_work, backprop_steps=2).sum().backward()
    assert calls["inner"] == 3  # the first, and the two last
    assert any(weight.grad is not None and weight.grad.any() for weight in at_work.text_encoders.parameters())


def test_with_compiling_it_is_refused() -> None:
    with pytest.raises(ValidationError, match="choose one of them"):
        stable_diffusion.Config(model="x", image_px=8, compile=True, cache_interval=2)
