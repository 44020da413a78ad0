"""The contract of generator plug-ins, checked for every file in generators/."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import pytest
import torch

from tailorset.clip.model import OpenClip
from tailorset.generators import Generator, GeneratorConfig, Part, TunableGenerator
from tailorset.images.codec import encode_png
from tailorset.plugins import load_plugin, plugin_names
from tailorset.prompts.token_limit import TokenLimit

OPTIONS: dict[str, dict[str, object]] = {
    "diffusers": {"image_px": 8, "guidance": {"kind": "none"}},
    "retrieval": {"image_px": 8},
    "stable_diffusion": {"image_px": 8},
}
PROMPTS, SEEDS = ["a red cup", "a boat next to a clock", "a red cup"], [1, 2, 3]
Make = Callable[[], Generator]
MakeTunable = Callable[[], TunableGenerator]


class Tiny(NamedTuple):
    """Tiny models and a folder of images, for the settings of a variant."""

    model: Path = Path("model")
    clip: Path = Path("clip")
    folder: Path = Path("photos")


@pytest.fixture(scope="module")
def tiny(tiny_diffusion_folder: Path, tiny_clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 48, 3), dtype=np.uint8)
        (folder / f"{number}.png").write_bytes(encode_png(pixels))
    return Tiny(tiny_diffusion_folder, tiny_clip_folder, folder)


def config_of(name: str, tiny: Tiny = Tiny()) -> GeneratorConfig:  # noqa: B008
    """Settings of a variant, with the tiny models for those it has."""
    config = load_plugin("generators", name).Config
    model = f"local-dir:{tiny.clip}" if issubclass(config, OpenClip) else str(tiny.model)
    models = {"model": model, "images": str(tiny.folder)}
    needed = {key: value for key, value in models.items() if key in config.model_fields}
    return config(**OPTIONS.get(name, {}), **needed)


@pytest.fixture(params=plugin_names("generators"))
def make(request: pytest.FixtureRequest, tiny: Tiny) -> Make:
    config = config_of(request.param, tiny)
    return lambda: load_plugin("generators", request.param).build(config, torch.device("cpu"))


@pytest.fixture(params=[name for name in plugin_names("generators") if not config_of(name).untunable])
def make_tunable(request: pytest.FixtureRequest, tiny: Tiny) -> MakeTunable:
    config = config_of(request.param, tiny)
    return lambda: load_plugin("generators", request.param).build(config, torch.device("cpu"))


def test_images_depend_on_their_own_prompt_and_seed_only(make: Make) -> None:
    generator = make()
    images = generator.sample(PROMPTS, SEEDS, 2)
    assert images.shape == (3, 3, generator.image_px, generator.image_px)
    assert images.dtype == torch.float32
    assert not images.requires_grad
    assert ((images >= 0) & (images <= 1)).all()
    torch.testing.assert_close(generator.sample(PROMPTS[1:2], SEEDS[1:2], 2)[0], images[1], atol=1e-4, rtol=0)
    assert not torch.equal(images[0], images[2])


def test_only_an_adapter_is_trained_and_it_changes_nothing_at_first(make_tunable: MakeTunable) -> None:
    generator = make_tunable()
    assert not any(weight.requires_grad for weight in generator.text_encoders.parameters())
    before = generator.sample(PROMPTS, SEEDS, 2)
    generator.add_adapter(rank=2, alpha=2)
    generator.enable_gradient_checkpointing()
    weights = [weight for weight in generator.text_encoders.parameters() if weight.requires_grad]
    images = generator.sample(PROMPTS, SEEDS, 2, backprop_steps=1)
    torch.testing.assert_close(images.detach(), before)
    gradients = torch.autograd.grad((images**2).sum(), weights)
    assert any(gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.parametrize("part", get_args(Part))
def test_a_saved_adapter_draws_the_same(make_tunable: MakeTunable, part: Part, tmp_path: Path) -> None:
    tuned = make_tunable()
    tuned.add_adapter(rank=2, alpha=2, part=part)
    with torch.no_grad():
        for number, weight in enumerate(getattr(tuned, part).parameters()):
            if weight.requires_grad:
                weight.normal_(std=0.2, generator=torch.Generator().manual_seed(number))
    tuned.save_adapter(tmp_path, part)
    loaded = make_tunable()
    assert not torch.equal(loaded.sample(PROMPTS, SEEDS, 2), tuned.sample(PROMPTS, SEEDS, 2))
    loaded.load_adapter(tmp_path, part)
    torch.testing.assert_close(loaded.sample(PROMPTS, SEEDS, 2), tuned.sample(PROMPTS, SEEDS, 2), atol=1e-4, rtol=0)


@pytest.mark.parametrize("part", get_args(Part))
def test_a_folder_of_zero_updates_is_no_change(make: Make, part: Part, tmp_path: Path) -> None:
    generator = make()
    before = generator.sample(PROMPTS, SEEDS, 2)
    (tmp_path / "tuning.json").write_text('{"num_updates": 0}')
    generator.load_adapter(tmp_path, part)
    assert torch.equal(generator.sample(PROMPTS, SEEDS, 2), before)


def test_a_folder_without_an_adapter_is_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="adapter"):
        make().load_adapter(tmp_path)


@pytest.mark.parametrize("name", plugin_names("generators"))
def test_tokenizers_say_how_much_of_a_prompt_is_read(name: str, tiny: Tiny) -> None:
    tokenizers = load_plugin("generators", name).build_tokenizers(config_of(name, tiny))
    limit = TokenLimit(tokenizers)
    assert limit.read("a red cup") == "a red cup"
    long = " ".join(["cup"] * 500)
    assert limit.excess(long) > 0
    assert limit.excess(limit.read(long)) <= 0
