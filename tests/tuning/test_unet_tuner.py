"""Tuning the UNet: what changes, what must not, and what survives an interruption."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline

from tailorset.generators.parts.denoising import training_pair, training_scheduler
from tailorset.generators.stable_diffusion import Config, StableDiffusion, build
from tailorset.tuning.photo_captions import CaptionedPhotos
from tailorset.tuning.unet_settings import TuneUnet
from tailorset.tuning.unet_tuner import UnetTuner, UnetUpdate, restored_unet, tune_unet

ROOT = Path(__file__).resolve().parents[2]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())["tune_unet"]
SMALL = {"num_updates": 6, "batch_size": 4, "learning_rate": 1e-2, "checkpoint_every": 2}
SMALL |= {"lora_rank": 2, "lora_alpha": 4}
PHOTOS = CaptionedPhotos(
    torch.randn(5, 4, 4, 4, generator=torch.Generator().manual_seed(0)), ("kite", "boat", "a photo", "clock", "red")
)
NewTuner = Callable[..., UnetTuner]


def generator_of(folder: Path, **settings: Any) -> StableDiffusion:
    return build(Config.model_validate({"model": str(folder), "image_px": 8, "guidance_scale": 2.0} | settings), "cpu")


@pytest.fixture
def new_tuner(tiny_diffusion_folder: Path) -> NewTuner:
    def make(**settings: Any) -> UnetTuner:
        config = TuneUnet.model_validate(PARAMS | SMALL | settings)
        return UnetTuner(generator_of(tiny_diffusion_folder), PHOTOS, config, seed=0)

    return make


def weights_of(tuner: UnetTuner) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in tuner.adapter]


def test_only_the_adapter_changes_and_no_layer_that_reads_the_prompt_has_one(new_tuner: NewTuner) -> None:
    tuner = new_tuner()
    generator = tuner.generator

    def frozen() -> dict[str, torch.Tensor]:
        parts = (generator.unet, generator.vae, generator.text_encoders)
        states = {f"{i}.{key}": value for i, part in enumerate(parts) for key, value in part.state_dict().items()}
        return {key: value.clone() for key, value in states.items() if ".lora_" not in key}

    before, adapter = frozen(), weights_of(tuner)
    records = list(tuner.updates())
    after = frozen()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert all((a - b).abs().max() > 0 for a, b in zip(adapter, weights_of(tuner), strict=True))
    adapted = [name for name, _ in generator.unet.named_parameters() if ".lora_" in name]
    assert adapted
    assert not any(".attn2." in name for name in adapted)
    assert any(".attn1." in name for name in adapted)
    assert any(".conv1." in name for name in adapted)
    assert [record.update for record in records] == list(range(6))


def test_the_loss_on_the_photos_goes_down(new_tuner: NewTuner) -> None:
    tuner = new_tuner(num_updates=60, lora_rank=8, lora_alpha=8)

    def loss() -> float:
        with torch.no_grad():
            losses = [tuner.generator.denoising_losses(PHOTOS.latents, [*PHOTOS.captions], [s] * 5) for s in range(20)]
        return float(torch.cat(losses).mean())

    before = loss()
    list(tuner.updates())
    assert loss() < 0.9 * before


def test_a_resumed_run_equals_an_uninterrupted_one(new_tuner: NewTuner, tmp_path: Path) -> None:
    whole, history = new_tuner(), list[UnetUpdate]()
    list(tune_unet(whole, history, tmp_path / "whole"))
    first = tune_unet(new_tuner(), [], tmp_path / "cut")
    for _ in range(4):
        next(first)  # a checkpoint after the second update; the third and fourth are lost
    second = new_tuner()
    resumed = restored_unet(tmp_path / "cut", second)
    assert resumed == history[: len(resumed)]
    assert len(resumed) == 2
    list(tune_unet(second, resumed, tmp_path / "cut"))
    assert resumed == history
    assert all(torch.equal(a, b) for a, b in zip(weights_of(whole), weights_of(second), strict=True))


def test_a_history_longer_than_its_checkpoint_is_cut(new_tuner: NewTuner, tmp_path: Path) -> None:
    list(tune_unet(new_tuner(num_updates=2), [], tmp_path))
    (tmp_path / "history.json").write_text(json.dumps({"losses": [1.0, 2.0, 3.0, 4.0]}))
    assert restored_unet(tmp_path, new_tuner()) == [UnetUpdate(0, 1.0), UnetUpdate(1, 2.0)]


def test_a_batch_that_does_not_fit_is_split_with_the_same_result(
    new_tuner: NewTuner, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(new_tuner(num_updates=2).updates())
    tuner = new_tuner(num_updates=2)
    losses = tuner.generator.denoising_losses

    def small_memory(latents: torch.Tensor, prompts: list[str], seeds: list[int]) -> torch.Tensor:
        if len(prompts) > 1:
            raise torch.OutOfMemoryError("too large")
        return losses(latents, prompts, seeds)

    monkeypatch.setattr(tuner.generator, "denoising_losses", small_memory)
    found = list(tuner.updates())
    assert tuner.batches.size == 1
    assert [record.loss for record in found] == pytest.approx([record.loss for record in expected], rel=1e-4)


def test_what_sampling_has_cached_is_not_trained_on(tiny_diffusion_folder: Path) -> None:
    config = TuneUnet.model_validate(PARAMS | SMALL)
    plain = UnetTuner(generator_of(tiny_diffusion_folder), PHOTOS, config, seed=0)
    cached = generator_of(tiny_diffusion_folder, cache_interval=2)
    cached.sample(["kite", "boat"], [1, 2], 4)  # its last step reuses what the one before it has cached
    tuner = UnetTuner(cached, PHOTOS, config, seed=0)
    assert next(tuner.updates()).loss == pytest.approx(next(plain.updates()).loss)


def test_a_gradient_that_is_not_finite_is_not_taken(new_tuner: NewTuner, monkeypatch: pytest.MonkeyPatch) -> None:
    tuner = new_tuner()
    before, losses = weights_of(tuner), tuner.generator.denoising_losses

    def flat_and_steep(*batch: Any) -> torch.Tensor:
        loss = losses(*batch)
        return loss + (loss - loss.detach()) * 1e38 * 10

    monkeypatch.setattr(tuner.generator, "denoising_losses", flat_and_steep)
    with pytest.raises(ValueError, match="a gradient of norm"):
        next(tuner.updates())
    assert all(torch.equal(a, b) for a, b in zip(before, weights_of(tuner), strict=True))


def test_a_loss_that_is_not_finite_names_the_remedy(new_tuner: NewTuner, monkeypatch: pytest.MonkeyPatch) -> None:
    tuner = new_tuner()
    losses = tuner.generator.denoising_losses
    monkeypatch.setattr(tuner.generator, "denoising_losses", lambda *batch: losses(*batch) * float("nan"))
    with pytest.raises(ValueError, match=r"lower tune_unet\.learning_rate"):
        next(tuner.updates())


def test_a_saved_adapter_draws_the_same_here_and_in_a_stock_pipeline(
    new_tuner: NewTuner, tiny_diffusion_folder: Path, tmp_path: Path
) -> None:
    tuner = new_tuner(learning_rate=0.1)
    list(tuner.updates())
    tuner.generator.save_adapter(tmp_path, "denoisers")
    loaded = generator_of(tiny_diffusion_folder)
    untuned = loaded.sample(["kite"], [1], 3)
    loaded.load_adapter(tmp_path, "denoisers")
    tuned = tuner.generator.sample(["kite"], [1], 3)
    assert (tuned - untuned).abs().max() > 1e-2
    torch.testing.assert_close(loaded.sample(["kite"], [1], 3), tuned, atol=1e-4, rtol=0)
    assert not any(weight.requires_grad for weight in loaded.unet.parameters())

    stock = StableDiffusionPipeline.from_pretrained(tiny_diffusion_folder, safety_checker=None)
    stock.load_lora_weights(tmp_path)
    latents, text = PHOTOS.latents[:2], loaded.prompt_encoder.encode(["kite", "boat"])[0]
    with torch.no_grad():  # alpha is not the rank here: it must have travelled along
        timestep = torch.tensor(300)
        expected = tuner.generator.unet(latents, timestep, text).sample
        torch.testing.assert_close(stock.unet(latents, timestep, text).sample, expected, atol=1e-5, rtol=1e-4)


def test_an_adapter_of_another_part_is_refused(
    new_tuner: NewTuner, tiny_diffusion_folder: Path, tmp_path: Path
) -> None:
    tuner = new_tuner()
    tuner.generator.save_adapter(tmp_path, "denoisers")
    with pytest.raises(ValueError, match="does not fit this model"):
        generator_of(tiny_diffusion_folder).load_adapter(tmp_path)


def test_in_half_precision_the_adapter_stays_in_full(tiny_diffusion_folder: Path) -> None:
    generator = generator_of(tiny_diffusion_folder, dtype="bfloat16")
    tuner = UnetTuner(generator, PHOTOS, TuneUnet.model_validate(PARAMS | SMALL), seed=0)
    before = weights_of(tuner)
    list(tuner.updates())
    assert {weight.dtype for weight in tuner.adapter} == {torch.float32}
    assert generator.unet.conv_in.base_layer.weight.dtype == torch.bfloat16
    assert all((a - b).abs().max() > 0 for a, b in zip(before, weights_of(tuner), strict=True))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_the_right_prediction_gives_the_latents_back(kind: str) -> None:
    """The target, read as the sampler reads a prediction, is the clean latents."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(prediction_type=kind, clip_sample=False)
    noise = torch.randn(5, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    noisy, timesteps, target = training_pair(training_scheduler(scheduler.config), PHOTOS.latents, noise, range(5))
    scheduler.set_timesteps(1000)
    for i in range(5):
        clean = scheduler.step(target[i], int(timesteps[i]), noisy[i]).pred_original_sample
        torch.testing.assert_close(clean, PHOTOS.latents[i], atol=1e-3, rtol=0)


def test_another_kind_of_prediction_is_refused() -> None:
    with pytest.raises(
        ValueError, match="'flow_prediction', and the UNet can be tuned for epsilon, v_prediction, sample"
    ):
        training_scheduler({"prediction_type": "flow_prediction"})


def test_noise_and_its_strength_depend_on_the_photo_s_own_seed(tiny_diffusion_folder: Path) -> None:
    generator = generator_of(tiny_diffusion_folder)
    losses = generator.denoising_losses(PHOTOS.latents, [*PHOTOS.captions], [1, 2, 3, 4, 5])
    alone = generator.denoising_losses(PHOTOS.latents[2:3], [PHOTOS.captions[2]], [3])
    torch.testing.assert_close(alone[0], losses[2])
    other = generator.denoising_losses(PHOTOS.latents[2:3], [PHOTOS.captions[2]], [4])
    assert not torch.isclose(other[0], losses[2])
