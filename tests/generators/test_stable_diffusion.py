"""The differentiable sampling loop: diffusers' own pipeline and finite differences are the oracles."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file
from torch._dynamo.testing import CompileCounter

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from plain_ways import checkpointed_plainly
from real_models import SD_1_5, SD_2_1, clip_tokenizer, random_text_encoder, random_unet, random_vae
from timing import peak_bytes

from tailorset.generators.parts.schedulers import build_scheduler, clean_latents
from tailorset.generators.stable_diffusion import Config, StableDiffusion, build, build_tokenizers

PROMPTS = ["a photo of a red kite", "a boat next to the clock", "a boat next to the clock"]
SEEDS = [5, 6, 7]
SCHEDULERS = ["dpm++_2m", "dpm++_2m_early", "euler", "ddim"]
ALL_SCHEDULERS = [*SCHEDULERS, "ddim_trailing"]
Make = Callable[..., StableDiffusion]


@pytest.fixture
def make(tiny_diffusion_folder: Path) -> Make:
    def build_tiny(**settings: Any) -> StableDiffusion:
        values = {"model": str(tiny_diffusion_folder), "image_px": 8, "guidance_scale": 4.0} | settings
        return build(Config(**values), "cpu")

    return build_tiny


def with_random_adapter(generator: StableDiffusion, size: float = 0.2) -> list[torch.nn.Parameter]:
    """An adapter whose second matrices are not zero, so that every matrix has a gradient."""
    generator.add_adapter(rank=2, alpha=4)
    weights = [weight for weight in generator.text_encoders.parameters() if weight.requires_grad]
    torch.manual_seed(0)
    for weight in weights:
        weight.data.normal_(std=size)
    return weights


def in_double(generator: StableDiffusion) -> StableDiffusion:
    for module in (generator.text_encoders, generator.unet, generator.vae):
        module.double()
    return generator


def weighted_sum(images: torch.Tensor) -> torch.Tensor:
    """A smooth scalar of images that no symmetry makes constant."""
    pattern = torch.randn(images.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (images.double() * pattern).sum()


def gradients(generator: StableDiffusion, weights: list[torch.nn.Parameter], steps: int, backprop_steps: int) -> Any:
    return torch.autograd.grad(weighted_sum(generator.sample(PROMPTS, SEEDS, steps, backprop_steps)), weights)


def slopes(
    generator: StableDiffusion, weights: list[torch.nn.Parameter], exact: Any, steps: int, step_size: float
) -> tuple[float, float]:
    """Return the slope of `weighted_sum` along random directions of the weights: by gradients, and by differences."""
    directions = [torch.randn(w.shape, generator=torch.Generator().manual_seed(i)) for i, w in enumerate(weights)]

    def value(offset: float) -> float:
        for weight, direction in zip(weights, directions, strict=True):
            weight.data += offset * direction
        result = float(weighted_sum(generator.sample(PROMPTS, SEEDS, steps)))
        for weight, direction in zip(weights, directions, strict=True):
            weight.data -= offset * direction
        return result

    by_gradients = sum(float((g * d).sum()) for g, d in zip(exact, directions, strict=True))
    return by_gradients, (value(step_size) - value(-step_size)) / (2 * step_size)


def assert_useful_and_alike(ours: Any, expected: Any) -> None:
    """Check gradients that save memory: finite, not zero, and as those that do not."""
    for left, right in zip(expected, ours, strict=True):
        assert right.isfinite().all()
        assert right.abs().max() > 0
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("scheduler", ALL_SCHEDULERS)
@pytest.mark.parametrize("guidance_scale", [4.0, 1.0])
def test_images_equal_the_stock_pipelines(
    make: Make, tiny_diffusion_folder: Path, scheduler: str, guidance_scale: float
) -> None:
    ours = make(scheduler=scheduler, guidance_scale=guidance_scale, negative_prompt="the tree")
    stock = StableDiffusionPipeline.from_pretrained(tiny_diffusion_folder, safety_checker=None)
    stock.set_progress_bar_config(disable=True)
    stock.scheduler = build_scheduler(scheduler, stock.scheduler.config)
    noise = torch.stack([torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in SEEDS])
    expected = stock(
        PROMPTS,
        negative_prompt=["the tree"] * 3,
        latents=noise,
        height=8,
        width=8,
        num_inference_steps=5,
        guidance_scale=guidance_scale,
        output_type="pt",
    ).images
    torch.testing.assert_close(ours.sample(PROMPTS, SEEDS, 5), expected, atol=1e-5, rtol=0)


def photos(image_px: int) -> torch.Tensor:
    """Three smooth pictures and noise, (3, 3, P, P) in [0, 1]."""
    return torch.rand(3, 3, image_px, image_px, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scheduler", ALL_SCHEDULERS)
@pytest.mark.parametrize(("strength", "guidance_scale"), [(0.3, 4.0), (0.75, 1.0), (1.0, 4.0)])
def test_images_from_photos_equal_the_stock_pipelines(
    make: Make, tiny_diffusion_folder: Path, scheduler: str, strength: float, guidance_scale: float
) -> None:
    ours = make(scheduler=scheduler, guidance_scale=guidance_scale)
    stock = StableDiffusionImg2ImgPipeline.from_pretrained(tiny_diffusion_folder, safety_checker=None)
    stock.set_progress_bar_config(disable=True)
    stock.scheduler = build_scheduler(scheduler, stock.scheduler.config)
    latents = torch.cat([ours.encode(photo[None]) for photo in photos(8)])
    means = stock.vae.encode(2 * photos(8) - 1).latent_dist.mean * stock.vae.config.scaling_factor
    torch.testing.assert_close(latents, means, atol=1e-5, rtol=0)
    expected = stock(
        PROMPTS,
        image=means,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        strength=strength,
        num_inference_steps=5,
        guidance_scale=guidance_scale,
        output_type="pt",
    ).images
    torch.testing.assert_close(ours.sample_from(latents, strength, PROMPTS, SEEDS, 5), expected, atol=1e-5, rtol=0)


def test_the_lower_the_strength_the_more_of_the_photo_stays(make: Make) -> None:
    generator = make(guidance_scale=1.0)
    latents = torch.cat([generator.encode(photo[None]) for photo in photos(8)])
    kept = generator.decode(latents)
    drawn = {strength: generator.sample_from(latents, strength, PROMPTS, SEEDS, 10) for strength in (0.1, 0.5, 1.0)}
    changes = [float((images - kept).abs().mean()) for images in drawn.values()]
    assert changes == sorted(changes)
    alone = [generator.sample_from(latents[i : i + 1], 0.5, [PROMPTS[i]], [SEEDS[i]], 10) for i in range(3)]
    torch.testing.assert_close(torch.cat(alone), drawn[0.5], atol=1e-5, rtol=0)


def test_a_strength_without_a_step_is_refused(make: Make) -> None:
    generator = make()
    latents = generator.encode(photos(8)[:1])
    with pytest.raises(ValueError, match=r"strength 0\.15 of 5 sampling steps is none.*raise it to 0\.2 or more"):
        generator.sample_from(latents, 0.15, PROMPTS[:1], SEEDS[:1], 5)


def test_photos_and_a_feature_cache_start_with_a_whole_step(make: Make) -> None:
    generator = make(cache_interval=2)
    latents = generator.encode(photos(8)[:1])
    drawn = generator.sample_from(latents, 0.6, PROMPTS[:1], SEEDS[:1], 5)
    generator.sample(PROMPTS, SEEDS, 5)  # leaves features of other images
    assert torch.equal(generator.sample_from(latents, 0.6, PROMPTS[:1], SEEDS[:1], 5), drawn)


@pytest.mark.parametrize("use_attention_mask", [False, True])
@pytest.mark.parametrize("kind", ["SD 1.5", "SD 2.1"])
def test_images_of_both_public_kinds_equal_the_stock_pipelines(
    tmp_path: Path, kind: str, use_attention_mask: bool
) -> None:
    """As published except for the widths: epsilon, from a PNDM file without that setting, and v-prediction."""
    public = {"SD 1.5": SD_1_5, "SD 2.1": SD_2_1}[kind]
    narrow = {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "layers_per_block": 1}
    heads = 2 if kind == "SD 1.5" else (1, 2, 2, 2)
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    torch.manual_seed(0)
    StableDiffusionPipeline(
        vae=random_vae(public.vae | narrow),
        text_encoder=random_text_encoder(public.text_encoder | text | {"use_attention_mask": use_attention_mask}),
        tokenizer=clip_tokenizer(),
        unet=random_unet(public.unet | narrow | {"cross_attention_dim": 16, "attention_head_dim": heads}),
        scheduler=DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(tmp_path)
    of_kind = {"_class_name": "PNDMScheduler", "skip_prk_steps": True} if kind == "SD 1.5" else {}
    scheduler = {"_class_name": "DDIMScheduler", "_diffusers_version": "0.6.0"} | public.scheduler | of_kind
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    index = tmp_path / "model_index.json"
    index.write_text(index.read_text().replace("DDIMScheduler", scheduler["_class_name"]))

    ours = build(Config(model=str(tmp_path), image_px=64, negative_prompt="blurry", scheduler="dpm++_2m"), "cpu")
    stock = StableDiffusionPipeline.from_pretrained(tmp_path, safety_checker=None)
    stock.set_progress_bar_config(disable=True)
    assert type(stock.scheduler).__name__ == scheduler["_class_name"]
    stock.scheduler = build_scheduler("dpm++_2m", stock.scheduler.config)
    assert stock.scheduler.config.prediction_type == ("epsilon" if kind == "SD 1.5" else "v_prediction")
    noise = torch.stack([torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in SEEDS])
    expected = stock(
        PROMPTS,
        negative_prompt=["blurry"] * 3,
        latents=noise,
        height=64,
        width=64,
        num_inference_steps=3,
        guidance_scale=7.5,
        output_type="pt",
    ).images
    torch.testing.assert_close(ours.sample(PROMPTS, SEEDS, 3), expected, atol=1e-4, rtol=0)


def test_images_are_in_range_and_depend_on_prompt_and_seed(make: Make) -> None:
    images = make().sample([PROMPTS[0], PROMPTS[1], PROMPTS[1]], [1, 1, 2], 3)
    assert images.shape == (3, 3, 8, 8)
    assert images.dtype == torch.float32
    assert not images.requires_grad
    assert 0 <= images.min() < images.max() <= 1
    assert (images[0] - images[1]).abs().max() > 1e-4
    assert (images[1] - images[2]).abs().max() > 1e-2


def test_an_image_does_not_depend_on_its_batch(make: Make) -> None:
    generator = make()
    together = generator.sample(PROMPTS, SEEDS, 4)
    alone = torch.cat([generator.sample([prompt], [seed], 4) for prompt, seed in zip(PROMPTS, SEEDS, strict=True)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert torch.equal(together, generator.sample(PROMPTS, SEEDS, 4))


def test_each_distinct_prompt_is_encoded_once(make: Make) -> None:
    generator, sizes = make(), []
    (encoder,) = generator.text_encoders.values()
    encoder.register_forward_hook(lambda module, inputs, output: sizes.append(len(output[0])))
    generator.sample(PROMPTS, SEEDS, 3)
    assert sizes == [3]  # two prompts and the negative one, once for all steps


def test_guidance_costs_one_unet_call_per_step(make: Make) -> None:
    generator, sizes = make(), []
    generator.unet.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    generator.sample(PROMPTS, SEEDS, 4)
    assert sizes == [6] * 4


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("backprop_steps", [1, 2, 4])
def test_a_fresh_adapter_changes_nothing_and_gets_a_gradient(make: Make, scheduler: str, backprop_steps: int) -> None:
    generator = make(scheduler=scheduler)
    before = generator.sample(PROMPTS, SEEDS, 4)
    generator.add_adapter(rank=2, alpha=2)
    images = generator.sample(PROMPTS, SEEDS, 4, backprop_steps)
    assert torch.equal(before, images.detach())
    weighted_sum(images).backward()
    second = [w.grad for name, w in generator.text_encoders.named_parameters() if ".lora_B." in name]
    assert len(second) == 8  # four projections in each of two layers
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in second)


@pytest.mark.parametrize(
    ("scheduler", "step_size", "tolerance"),
    [("ddim", 1e-5, 1e-6), ("dpm++_2m", 2e-4, 2e-3)],  # diffusers computes a DPM-Solver step in float32
)
@pytest.mark.parametrize("freeze_negative", [False, True])
def test_the_full_gradient_equals_finite_differences(
    make: Make, scheduler: str, step_size: float, tolerance: float, freeze_negative: bool
) -> None:
    generator = in_double(make(scheduler=scheduler, freeze_negative=freeze_negative))
    weights = with_random_adapter(generator)
    exact = gradients(generator, weights, 4, backprop_steps=4)
    slope, measured = slopes(generator, weights, exact, 4, step_size)
    assert slope == pytest.approx(measured, rel=tolerance)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("backprop_steps", [1, 2])
@pytest.mark.parametrize("freeze_negative", [False, True])
def test_a_truncated_gradient_equals_detaching_the_earlier_steps(
    make: Make, scheduler: str, backprop_steps: int, freeze_negative: bool
) -> None:
    generator = make(scheduler=scheduler, freeze_negative=freeze_negative)
    weights = with_random_adapter(generator)
    truncated = gradients(generator, weights, 4, backprop_steps)

    text = generator._guidance_text(PROMPTS)
    stepper = build_scheduler(scheduler, generator._scheduler_config)
    stepper.set_timesteps(4)
    latents = generator._noise(SEEDS) * stepper.init_noise_sigma
    for step, timestep in enumerate(stepper.timesteps):
        with_gradient = step >= 4 - backprop_steps  # the reference: all steps recorded
        known = text if with_gradient else tuple(part.detach() for part in text)
        prediction = generator._predict(stepper.scale_model_input(latents, timestep), timestep, known)
        latents = stepper.step(prediction, timestep, latents).prev_sample
    reference = torch.autograd.grad(weighted_sum(generator.decode(latents)), weights)
    for ours, expected in zip(truncated, reference, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-6)


def test_more_steps_with_gradient_give_another_gradient(make: Make) -> None:
    generator = make()
    weights = with_random_adapter(generator)
    one, full = gradients(generator, weights, 4, 1), gradients(generator, weights, 4, 4)
    assert any((a - b).abs().max() > 1e-3 * b.abs().max() for a, b in zip(one, full, strict=True))


def test_checkpointing_leaves_the_gradient_as_it_is(make: Make) -> None:
    generator = make()
    weights = with_random_adapter(generator)
    plain = gradients(generator, weights, 3, 3)
    generator.enable_gradient_checkpointing()
    generator.enable_gradient_checkpointing()  # a fallback may call it again
    for ours, expected in zip(gradients(generator, weights, 3, 3), plain, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("backprop_steps", [1, 3])
def test_what_saves_memory_holds_together(make: Make, backprop_steps: int) -> None:
    """A bfloat16 UNet, LoRA, K steps of gradient, checkpointing and slicing: finite, and as without the last two."""
    plain = make(dtype="bfloat16", freeze_negative=True)
    saving = make(dtype="bfloat16", freeze_negative=True, vae_slicing=True)
    saving.enable_gradient_checkpointing()
    expected, ours = (
        gradients(generator, with_random_adapter(generator), 3, backprop_steps) for generator in (plain, saving)
    )
    assert_useful_and_alike(ours, expected)


def test_checkpointing_keeps_less_for_the_backward_pass(make: Make) -> None:
    generator = make()
    with_random_adapter(generator)

    def kept() -> int:
        sizes: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            images = generator.sample(PROMPTS, SEEDS, 3, 3)
        assert images.requires_grad
        return sum(sizes.values())

    plain = kept()
    generator.enable_gradient_checkpointing()
    assert kept() < plain / 2


def test_the_backward_pass_recomputes_one_layer_and_one_step_at_a_time(make: Make) -> None:
    def peak(recompute: Callable[[StableDiffusion], object], backprop_steps: int) -> int:
        generator = make(image_px=64)
        weights = with_random_adapter(generator)
        recompute(generator)
        return peak_bytes(lambda: gradients(generator, weights, 4, backprop_steps), torch.device("cpu"))

    ours, by_blocks = StableDiffusion.enable_gradient_checkpointing, checkpointed_plainly
    assert peak(ours, 1) < 0.95 * peak(by_blocks, 1)
    assert peak(ours, 4) < 1.1 * peak(ours, 1)


def test_compiled_parts_draw_the_same_with_one_graph_for_all_batch_sizes_and_none_for_gradients(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.compiler.reset()
    compile_module, graphs = torch.nn.Module.compile, CompileCounter()
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compile_module(module, backend=graphs))
    plain, compiled = make(), make(compile=True, vae_slicing=True)
    torch.testing.assert_close(compiled.sample(PROMPTS, SEEDS, 3), plain.sample(PROMPTS, SEEDS, 3))
    made = graphs.frame_count
    assert made >= 2  # UNet and decoder
    compiled.sample(PROMPTS[:2], SEEDS[:2], 3)
    expected, ours = (gradients(generator, with_random_adapter(generator), 3, 2) for generator in (plain, compiled))
    for left, right in zip(ours, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)
    assert graphs.frame_count == made


def test_slicing_draws_the_same_images_and_tiling_nearly(make: Make) -> None:
    """The tiny VAE's own size is 8 px: images of 16 px are decoded in tiles, and only these differ."""
    for image_px, tiled_differs in ((8, False), (16, True)):
        plain = make(image_px=image_px).sample(PROMPTS, SEEDS, 2)
        sliced = make(image_px=image_px, vae_slicing=True).sample(PROMPTS, SEEDS, 2)
        tiled = make(image_px=image_px, vae_tiling=True).sample(PROMPTS, SEEDS, 2)
        torch.testing.assert_close(sliced, plain, atol=1e-6, rtol=0)
        assert bool((tiled - plain).abs().max() > 1e-4) == tiled_differs


def test_a_frozen_negative_prompt_keeps_its_states_and_changes_nothing_without_an_adapter(make: Make) -> None:
    tuned, frozen = make(), make(freeze_negative=True)
    torch.testing.assert_close(frozen.sample(PROMPTS, SEEDS, 3), tuned.sample(PROMPTS, SEEDS, 3), atol=1e-6, rtol=0)
    (untuned,) = frozen._guidance_text(PROMPTS)
    for generator in (tuned, frozen):
        with_random_adapter(generator)
    (of_tuned,), (of_frozen,) = tuned._guidance_text(PROMPTS), frozen._guidance_text(PROMPTS)
    assert torch.equal(of_frozen[:3], untuned[:3])
    assert (of_tuned[:3] - untuned[:3]).abs().max() > 1e-3
    assert torch.equal(of_frozen[3:], of_tuned[3:])


@pytest.mark.parametrize(("backprop_steps", "rows_with_gradient"), [(1, [3]), (3, [3, 6, 6])])
def test_a_frozen_negative_branch_is_recorded_only_where_the_latents_carry_gradient(
    make: Make, backprop_steps: int, rows_with_gradient: list[int]
) -> None:
    generator, rows = make(freeze_negative=True), []
    with_random_adapter(generator)
    generator.unet.register_forward_hook(
        lambda module, inputs, output: rows.append(len(inputs[0])) if output[0].requires_grad else None
    )
    generator.sample(PROMPTS, SEEDS, 4, backprop_steps)
    assert rows == rows_with_gradient


def test_half_precision_is_for_the_unet_only(make: Make) -> None:
    generator = make(dtype="bfloat16")
    images = generator.sample(PROMPTS, SEEDS, 3)
    assert images.dtype == torch.float32
    assert generator.unet.dtype == torch.bfloat16
    assert generator.vae.dtype == torch.float32
    assert {weight.dtype for weight in generator.text_encoders.parameters()} == {torch.float32}
    assert (images - make().sample(PROMPTS, SEEDS, 3)).abs().max() < 0.2


@pytest.mark.parametrize(
    ("seeds", "steps", "backprop_steps", "stop_after"),
    [([1], 4, 0, None), (SEEDS, 4, 5, None), (SEEDS, 0, 0, None), (SEEDS, 4, 0, 5), (SEEDS, 4, 2, 1)],
)
def test_senseless_requests_are_refused(
    make: Make, seeds: list[int], steps: int, backprop_steps: int, stop_after: int | None
) -> None:
    with pytest.raises(ValueError, match=r"one seed per prompt|backprop_steps|steps: choose"):
        make().sample(PROMPTS, seeds, steps, backprop_steps, stop_after)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_a_perfect_model_foresees_its_image_at_any_step(scheduler: str, prediction_type: str) -> None:
    made = build_scheduler(scheduler, DDIMScheduler(prediction_type=prediction_type).config)
    made.set_timesteps(5)
    image, noise = (torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(i)) for i in range(2))
    variances = ((1 - made.alphas_cumprod) / made.alphas_cumprod).sqrt().numpy()
    for step, timestep in enumerate(made.timesteps):  # Euler's are between the model's own
        kept = 1 / (1 + torch.tensor(np.interp(timestep, range(1000), variances)) ** 2)
        noisy = kept.sqrt() * image + (1 - kept).sqrt() * noise
        answers = {"epsilon": noise, "v_prediction": kept.sqrt() * noise - (1 - kept).sqrt() * image, "sample": image}
        foreseen = clean_latents(made, answers[prediction_type], step, noisy)
        torch.testing.assert_close(foreseen, image, atol=1e-4, rtol=0, check_dtype=False, msg=f"step {step}")


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_an_image_foreseen_after_some_steps(make: Make, scheduler: str) -> None:
    generator = make(scheduler=scheduler)
    foreseen = {stop: generator.sample(PROMPTS, SEEDS, 5, stop_after=stop) for stop in (1, 3, 4, 5)}
    finished = generator.sample(PROMPTS, SEEDS, 5)
    assert torch.equal(foreseen[5], finished)
    far, near = ((foreseen[stop] - finished).abs().mean() for stop in (1, 4))
    assert 0 < near < far  # the later, the closer to what comes out
    weights = with_random_adapter(generator)
    calls: list[int] = []
    generator.unet.register_forward_hook(lambda *_: calls.append(1))
    torch.autograd.grad(weighted_sum(generator.sample(PROMPTS, SEEDS, 5, 1, stop_after=3)), weights)
    assert len(calls) == 3 + (generator.config.freeze_negative)  # two passes in the step with gradient then


def test_an_image_size_the_model_cannot_draw_is_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="choose a multiple of 4,"):
        make(image_px=10)


def kohya_lora(unet: UNet2DConditionModel, file: Path, rename: str = "") -> dict[str, torch.Tensor]:
    """Write a LoRA of rank 2 and alpha 1 for every layer of a UNet's blocks, as kohya does. What it adds."""
    torch.manual_seed(0)
    tensors, changes = {}, {}
    for name, layer in unet.named_modules():
        if not any(part in name for part in ("attentions", "resnets")) or not isinstance(
            layer, torch.nn.Linear | torch.nn.Conv2d
        ):
            continue
        size = layer.weight.shape
        down, up = torch.randn(2, *size[1:]) * 0.1, torch.randn(size[0], 2, *[1] * (len(size) - 2)) * 0.1
        key = f"lora_unet_{rename}{name.replace('.', '_')}"
        tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(1.0)}
        changes[f"{name}.weight"] = torch.einsum("or,r...->o...", up.flatten(1), down) / 2
    save_file(tensors, file)
    return changes


def test_a_few_step_lora_is_fused_into_the_unet(make: Make, tmp_path: Path) -> None:
    before = {name: weight.clone() for name, weight in make().unet.state_dict().items()}
    changes = kohya_lora(make().unet, tmp_path / "lora.safetensors")
    assert len(changes) > 10
    few_step = {"model": str(tmp_path), "file": "lora.safetensors"}
    fused = make(few_step=few_step, scheduler="ddim_trailing", guidance_scale=0)
    after = fused.unet.state_dict()
    assert after.keys() == before.keys()
    for name, weight in after.items():
        torch.testing.assert_close(weight, before[name] + changes.get(name, 0), atol=1e-5, rtol=0)
    assert not torch.equal(fused.sample(PROMPTS, SEEDS, 4), make(guidance_scale=0).sample(PROMPTS, SEEDS, 4))


def test_a_few_step_lora_of_another_model_is_refused(make: Make, tmp_path: Path) -> None:
    few_step = {"model": str(tmp_path), "file": "lora.safetensors"}
    with pytest.raises(ValueError, match=r"generator.few_step .*lora.safetensors'.*cannot be loaded"):
        make(few_step=few_step)
    unet = make().unet
    kohya_lora(unet, tmp_path / "lora.safetensors", rename="other_")
    with pytest.raises(ValueError, match=r"generator.few_step .*cannot be loaded"):
        make(few_step=few_step)
    kohya_lora(unet, tmp_path / "lora.safetensors")
    tensors = load_file(tmp_path / "lora.safetensors")
    key = next(key for key in tensors if key.endswith("lora_up.weight"))
    tensors[key] = tensors[key].repeat(2, *[1] * (tensors[key].ndim - 1))
    save_file(tensors, tmp_path / "lora.safetensors")
    with pytest.raises(ValueError, match=r"generator.few_step .*cannot be loaded"):
        make(few_step=few_step)
    with pytest.raises(ValueError, match="few_step"):
        Config(model="some/model", image_px=8, few_step=few_step | {"file": "lora.pt"})


@pytest.fixture
def copied_folder(tiny_diffusion_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_diffusion_folder, tmp_path / "diffusion"))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_truncated_and_missing_weights_are_refused_with_a_remedy(make: Make, copied_folder: Path, part: str) -> None:
    (weights,) = (copied_folder / part).glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"truncated or damaged.*git checkout"):
        make(model=str(copied_folder))
    weights.unlink()
    with pytest.raises(ValueError, match=rf"{part} has no .safetensors.*git checkout"):
        make(model=str(copied_folder))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_that_lack_a_tensor_are_never_filled_with_random_numbers(
    make: Make, copied_folder: Path, part: str
) -> None:
    (weights,) = (copied_folder / part).glob("*.safetensors")
    tensors = load_file(weights)
    lost = sorted(tensors)[3]
    del tensors[lost]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="1 tensors are missing"):
        make(model=str(copied_folder))


def test_a_unet_with_embedded_guidance_is_refused(make: Make, copied_folder: Path) -> None:
    """It would be drawn without: latent consistency models have such a UNet."""
    unet = copied_folder / "unet"
    weights = unet / "diffusion_pytorch_model.safetensors"
    settings = UNet2DConditionModel.load_config(unet) | {"time_cond_proj_dim": 8}
    UNet2DConditionModel.from_config(settings).save_pretrained(unet)
    assert "time_embedding.cond_proj.weight" in load_file(weights)
    with pytest.raises(ValueError, match=r"guidance of its UNet is embedded.*generator\.name: diffusers") as refused:
        make(model=str(copied_folder))
    assert Config(model=str(copied_folder), image_px=8).misfit(copied_folder) == str(refused.value)


def test_a_tokenizer_without_its_limit_is_refused(make: Make, copied_folder: Path) -> None:
    path = copied_folder / "tokenizer" / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    del settings["model_max_length"]
    path.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"tokenizer cannot be loaded.*no model_max_length, which is 77"):
        make(model=str(copied_folder))
    with pytest.raises(ValueError, match=r"tokenizer cannot be loaded.*no model_max_length, which is 77"):
        build_tokenizers(Config(model=str(copied_folder), image_px=8))


def test_a_model_of_another_kind_or_nowhere_is_refused(make: Make, copied_folder: Path) -> None:
    index = copied_folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": "StableDiffusion3Pipeline"}))
    with pytest.raises(ValueError, match=r"StableDiffusion3Pipeline, .*generator\.name: diffusers") as refused:
        make(model=str(copied_folder))
    config = Config(model=str(copied_folder), image_px=8)
    assert config.misfit(copied_folder) == str(refused.value)
    with pytest.raises(ValueError, match=r"StableDiffusion3Pipeline, .*generator\.name: diffusers"):
        build_tokenizers(config)
    with pytest.raises(ValueError, match=r"cannot be loaded.*HF_HUB_OFFLINE"):
        make(model="nobody/nothing")
