"""SDXL in the differentiable loop: two text encoders, a pooled embedding, sizes; the stock pipeline is the oracle."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch._dynamo.testing import CompileCounter

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from real_models import (
    SDXL,
    clip_tokenizer,
    random_second_text_encoder,
    random_text_encoder,
    random_unet,
    random_vae,
)

from tailorset.clip.model import load_clip
from tailorset.clip.scorer import LabelScorer
from tailorset.generators.parts.denoising import training_pair
from tailorset.generators.parts.lora import WEIGHTS
from tailorset.generators.parts.schedulers import build_scheduler
from tailorset.generators.stable_diffusion import Config, StableDiffusion, build
from tailorset.storage.checkpoint import load_checkpoint, save_checkpoint
from tailorset.storage.hub import is_read, lacking
from tailorset.tuning.tuner import Tuner
from tests.generators import tiny_pipelines
from tests.generators.test_stable_diffusion import (
    PROMPTS,
    SEEDS,
    Make,
    assert_useful_and_alike,
    gradients,
    in_double,
    kohya_lora,
    photos,
    slopes,
    weighted_sum,
    with_random_adapter,
)
from tests.tuning.test_tuner import adapter_of, fixed_loss, tuning_config
from tests.tuning_prompts import PROMPTS as TUNING_PROMPTS
from tests.tuning_prompts import UNSEEN

pytestmark = pytest.mark.usefixtures("one_thread")  # quicker for networks this small
SAME = {"atol": 1e-5, "rtol": 0}  # a batch changes the rounding of matrix products
UNREAD = "text_encoder.encoder.layers.1."  # the last layer of the first encoder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    maker = tiny_pipelines.stable_diffusion_xl
    return tiny_pipelines.save(tmp_path_factory.mktemp("xl"), maker, tiny_tokenizer)


@pytest.fixture
def copied_folder(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "xl"))


@pytest.fixture
def make(folder: Path) -> Make:
    def build_tiny(**settings: Any) -> StableDiffusion:
        values = {"model": str(folder), "image_px": 16, "guidance_scale": 4.0} | settings
        return build(Config(**values), "cpu")

    return build_tiny


def stock_images(pipeline: Any, generator: StableDiffusion, num_inference_steps: int, **options: Any) -> Tensor:
    """Images of the stock pipeline with the solver, the noise and the settings of one of ours."""
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = build_scheduler(generator.config.scheduler, generator._scheduler_config)
    return pipeline(
        PROMPTS,
        latents=generator._noise(SEEDS),
        height=generator.image_px,
        width=generator.image_px,
        num_inference_steps=num_inference_steps,
        guidance_scale=generator.config.guidance_scale,
        output_type="pt",
        **options,
    ).images


@pytest.mark.parametrize("scheduler", ["dpm++_2m", "dpm++_2m_early", "euler", "ddim"])
@pytest.mark.parametrize("guidance_scale", [4.0, 1.0, 0.0])
@pytest.mark.parametrize("negative_prompt", ["", "the tree"])
def test_images_equal_the_stock_pipelines(
    make: Make, folder: Path, scheduler: str, guidance_scale: float, negative_prompt: str
) -> None:
    """An empty negative prompt is none to the stock pipeline, which guides away from zeros then."""
    ours = make(scheduler=scheduler, guidance_scale=guidance_scale, negative_prompt=negative_prompt)
    negative = {"negative_prompt": [negative_prompt] * 3} if negative_prompt else {}
    expected = stock_images(StableDiffusionXLPipeline.from_pretrained(folder), ours, 4, **negative)
    torch.testing.assert_close(ours.sample(PROMPTS, SEEDS, 4), expected, **SAME)


@pytest.mark.parametrize("scheduler", ["dpm++_2m", "dpm++_2m_early", "euler", "ddim"])
def test_images_from_photos_equal_the_stock_pipelines(make: Make, folder: Path, scheduler: str) -> None:
    ours = make(scheduler=scheduler)
    stock = StableDiffusionXLImg2ImgPipeline.from_pretrained(folder)
    stock.set_progress_bar_config(disable=True)
    stock.scheduler = build_scheduler(scheduler, ours._scheduler_config)
    latents = torch.cat([ours.encode(photo[None]) for photo in photos(16)])
    expected = stock(
        PROMPTS,
        image=latents,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        strength=0.6,
        num_inference_steps=5,
        guidance_scale=4.0,
        original_size=(16, 16),
        target_size=(16, 16),
        output_type="pt",
    ).images
    torch.testing.assert_close(ours.sample_from(latents, 0.6, PROMPTS, SEEDS, 5), expected, **SAME)


def test_an_empty_negative_prompt_is_encoded_where_the_model_says_so(make: Make, copied_folder: Path) -> None:
    pipeline = StableDiffusionXLPipeline.from_pretrained(copied_folder)
    pipeline.register_to_config(force_zeros_for_empty_prompt=False)
    pipeline.save_pretrained(copied_folder)
    ours = make(model=str(copied_folder))
    torch.testing.assert_close(ours.sample(PROMPTS, SEEDS, 3), stock_images(pipeline, ours, 3), **SAME)
    assert (ours.sample(PROMPTS, SEEDS, 3) - make().sample(PROMPTS, SEEDS, 3)).abs().max() > 1e-4


def test_images_of_the_published_kind_equal_the_stock_pipelines(tmp_path: Path) -> None:
    """As published except for widths and depths: encoders of different widths, and solver settings of its own."""
    narrow = {"block_out_channels": (8, 8, 8), "norm_num_groups": 4, "layers_per_block": 1}
    unet = {
        "attention_head_dim": 2,
        "transformer_layers_per_block": 1,
        "cross_attention_dim": 16 + 24,
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 12,
    }
    text = {"intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    torch.manual_seed(0)
    StableDiffusionXLPipeline(
        vae=random_vae(SDXL.vae | narrow | {"block_out_channels": (8,) * 4}),
        text_encoder=random_text_encoder(SDXL.text_encoder | text | {"hidden_size": 16}),
        text_encoder_2=random_second_text_encoder(
            (SDXL.text_encoder_2 or {}) | text | {"hidden_size": 24, "projection_dim": 12}
        ),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=random_unet(SDXL.unet | narrow | unet),
        scheduler=build_scheduler("euler", SDXL.scheduler | {"timestep_spacing": "leading"}),
    ).save_pretrained(tmp_path)
    ours = build(Config(model=str(tmp_path), image_px=64, negative_prompt="blurry"), "cpu")
    expected = stock_images(
        StableDiffusionXLPipeline.from_pretrained(tmp_path), ours, 3, negative_prompt=["blurry"] * 3
    )
    torch.testing.assert_close(ours.sample(PROMPTS, SEEDS, 3), expected, atol=1e-4, rtol=0)


def test_an_image_does_not_depend_on_its_batch(make: Make) -> None:
    generator = make()
    together = generator.sample(PROMPTS, SEEDS, 4)
    alone = torch.cat([generator.sample([prompt], [seed], 4) for prompt, seed in zip(PROMPTS, SEEDS, strict=True)])
    torch.testing.assert_close(together, alone, **SAME)
    assert torch.equal(together, generator.sample(PROMPTS, SEEDS, 4))
    assert (together[1] - together[2]).abs().max() > 1e-2
    assert (together[0] - generator.sample([PROMPTS[1]], [SEEDS[0]], 4)[0]).abs().max() > 1e-4


@pytest.mark.parametrize(("guidance_scale", "prompts", "rows"), [(4.0, 2, 6), (1.0, 2, 3), (0.0, 2, 3)])
def test_without_guidance_no_negative_prompt_is_encoded_or_drawn(
    make: Make, guidance_scale: float, prompts: int, rows: int
) -> None:
    generator, encoded, drawn = make(guidance_scale=guidance_scale), [], []
    for encoder in generator.text_encoders.values():
        encoder.register_forward_hook(lambda module, inputs, output: encoded.append(len(inputs[0])))
    generator.unet.register_forward_hook(lambda module, inputs, output: drawn.append(len(inputs[0])))
    generator.sample(PROMPTS, SEEDS, 3)
    assert encoded == [prompts] * 2  # each distinct prompt once for all steps, by both encoders
    assert drawn == [rows] * 3


def test_the_pooled_embedding_and_the_sizes_are_read(make: Make) -> None:
    generator = make(negative_prompt="the tree")
    states, pooled, time_ids = generator._guidance_text(PROMPTS)
    assert states.shape[0] == pooled.shape[0] == 6
    assert time_ids.tolist() == [[16, 16, 0, 0, 16, 16]] * 6
    assert (pooled[3] - pooled[4]).abs().max() > 1e-3
    before = generator.sample(PROMPTS, SEEDS, 3)
    generator.text_encoders["text_encoder_2"].text_projection.weight.data.zero_()
    assert torch.equal(generator._guidance_text(PROMPTS)[0], states)
    assert (generator.sample(PROMPTS, SEEDS, 3) - before).abs().max() > 1e-4


def test_a_fresh_adapter_changes_nothing_and_both_encoders_get_a_gradient(make: Make) -> None:
    generator = make()
    before = generator.sample(PROMPTS, SEEDS, 4)
    generator.add_adapter(rank=2, alpha=2)
    assert torch.equal(before, generator.sample(PROMPTS, SEEDS, 4))
    images = generator.sample(PROMPTS, SEEDS, 4, 2)  # with a gradient the branches of guidance are passes of their own
    torch.testing.assert_close(images.detach(), before, atol=1e-6, rtol=0)
    weighted_sum(images).backward()
    second = {name: w.grad for name, w in generator.text_encoders.named_parameters() if ".lora_B." in name}
    assert len(second) == 16  # four projections in each of two layers of two encoders
    for name, gradient in second.items():
        if name.startswith(UNREAD):
            assert gradient is None
        else:
            assert gradient is not None, name
            assert gradient.abs().max() > 0, name


@pytest.mark.parametrize("negative_prompt", ["", "the tree"])
def test_the_full_gradient_equals_finite_differences(make: Make, negative_prompt: str) -> None:
    generator = in_double(make(scheduler="ddim", negative_prompt=negative_prompt))
    weights = with_random_adapter(generator)
    images = generator.sample(PROMPTS, SEEDS, 3, 3)
    exact = torch.autograd.grad(weighted_sum(images), weights, materialize_grads=True)
    slope, measured = slopes(generator, weights, exact, 3, step_size=1e-5)
    assert slope == pytest.approx(measured, rel=1e-5)


def read_weights(generator: StableDiffusion) -> list[torch.nn.Parameter]:
    """Give an adapter, and return the matrices that images depend on."""
    with_random_adapter(generator)
    named = generator.text_encoders.named_parameters()
    return [weight for name, weight in named if weight.requires_grad and not name.startswith(UNREAD)]


@pytest.mark.parametrize("settings", [{}, {"dtype": "bfloat16", "vae_slicing": True, "freeze_negative": True}])
@pytest.mark.parametrize("backprop_steps", [1, 3])
def test_checkpointing_leaves_the_gradient_as_it_is(make: Make, settings: dict[str, Any], backprop_steps: int) -> None:
    plain, saving = make(**settings, negative_prompt="the tree"), make(**settings, negative_prompt="the tree")
    saving.enable_gradient_checkpointing()
    expected, ours = (gradients(one, read_weights(one), 3, backprop_steps) for one in (plain, saving))
    assert_useful_and_alike(ours, expected)


def test_a_frozen_negative_prompt_keeps_all_of_its_text(make: Make) -> None:
    tuned = make(negative_prompt="the tree")
    frozen = make(negative_prompt="the tree", freeze_negative=True)
    torch.testing.assert_close(frozen.sample(PROMPTS, SEEDS, 3), tuned.sample(PROMPTS, SEEDS, 3), **SAME)
    untuned = frozen._guidance_text(PROMPTS)
    for generator in (tuned, frozen):
        with_random_adapter(generator)
    for before, of_tuned, of_frozen in zip(
        untuned[:2], tuned._guidance_text(PROMPTS), frozen._guidance_text(PROMPTS), strict=False
    ):
        assert torch.equal(of_frozen[:3], before[:3])
        assert (of_tuned[:3] - before[:3]).abs().max() > 1e-3
        torch.testing.assert_close(of_frozen[3:], of_tuned[3:])


@pytest.mark.parametrize("settings", [{"negative_prompt": ""}, {"negative_prompt": "tree", "freeze_negative": True}])
def test_a_negative_branch_that_no_adapter_changes_is_recorded_only_where_the_latents_carry_gradient(
    make: Make, settings: dict[str, Any]
) -> None:
    generator, rows = make(**settings), []
    with_random_adapter(generator)
    generator.unet.register_forward_hook(
        lambda module, inputs, output: rows.append(len(inputs[0])) if output[0].requires_grad else None
    )
    generator.sample(PROMPTS, SEEDS, 4, 3)
    assert rows == [3, 6, 6]


def test_compiled_parts_draw_the_same_with_one_graph_for_all_batch_sizes(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.compiler.reset()
    compile_module, graphs = torch.nn.Module.compile, CompileCounter()
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compile_module(module, backend=graphs))
    plain, compiled = make(), make(compile=True, vae_slicing=True)
    torch.testing.assert_close(compiled.sample(PROMPTS, SEEDS, 3), plain.sample(PROMPTS, SEEDS, 3))
    made = graphs.frame_count
    compiled.sample(PROMPTS[:2], SEEDS[:2], 2)
    expected, ours = (gradients(one, read_weights(one), 2, 1) for one in (plain, compiled))
    for left, right in zip(ours, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)
    assert graphs.frame_count == made


def test_the_vae_decodes_in_float32_whatever_the_unets_dtype(make: Make) -> None:
    half = make(dtype="float16")
    assert half.vae.config.force_upcast
    assert half.vae.dtype == torch.float32
    assert {weight.dtype for weight in half.text_encoders.parameters()} == {torch.float32}
    images = half.sample(PROMPTS, SEEDS, 3)
    assert images.dtype == torch.float32
    torch.testing.assert_close(images, make().sample(PROMPTS, SEEDS, 3), atol=0.05, rtol=0)


def test_a_cached_interval_draws_nearly_the_same(make: Make) -> None:
    cached, plain = make(cache_interval=2).sample(PROMPTS, SEEDS, 4), make().sample(PROMPTS, SEEDS, 4)
    assert 0 < (cached - plain).abs().mean() < 0.1


NewTuner = Callable[..., Tuner]


@pytest.fixture
def new_tuner(make: Make, tiny_clip_folder: Path) -> NewTuner:
    """Tuners of both encoders, or of the `only` one that is not frozen."""
    scorer = LabelScorer(load_clip(f"local-dir:{tiny_clip_folder}", "cpu"), UNSEEN, "a photo of a {}")

    def tuner(only: str = "", **settings: Any) -> Tuner:
        generator = make(guidance_scale=2.0)
        generator.add_adapter(rank=2, alpha=4)
        for name, encoder in generator.text_encoders.items():
            if only not in ("", name):
                encoder.requires_grad_(False)
        return Tuner(generator, scorer, TUNING_PROMPTS, tuning_config(**settings), seed=0)

    return tuner


@pytest.mark.parametrize("only", ["", "text_encoder", "text_encoder_2"])
def test_tuning_lowers_the_loss_by_both_encoders_and_by_each(new_tuner: NewTuner, only: str) -> None:
    tuner = new_tuner(only, num_updates=20, batch_size=15, learning_rate=0.03, backprop_steps=3)
    before, loss = [w.clone() for w in tuner.generator.text_encoders.parameters()], fixed_loss(tuner)
    assert all(record.grad_norm > 0 and not record.skipped for record in tuner.updates())
    assert fixed_loss(tuner) < loss - 0.01
    named = zip(tuner.generator.text_encoders.named_parameters(), before, strict=True)
    changed = {name.partition(".")[0] for (name, weight), old in named if not torch.equal(weight, old)}
    assert changed == ({only} if only else {"text_encoder", "text_encoder_2"})


def test_a_resumed_run_equals_an_uninterrupted_one(new_tuner: NewTuner, tmp_path: Path) -> None:
    whole, first, second = new_tuner(), new_tuner(), new_tuner()
    expected, updates = list(whole.updates()), first.updates()
    history = [next(updates) for _ in range(2)]
    save_checkpoint(tmp_path / "state.safetensors", 2, adapter=first.adapter, optimizer=first.optimizer)
    load_checkpoint(tmp_path / "state.safetensors", adapter=second.adapter, optimizer=second.optimizer)
    assert history + list(second.updates(history)) == expected
    assert all(torch.equal(a, b) for a, b in zip(adapter_of(second), adapter_of(whole), strict=True))


@pytest.fixture
def saved_adapter(new_tuner: NewTuner, tmp_path: Path) -> tuple[StableDiffusion, Path]:
    tuner = new_tuner(learning_rate=0.3)
    list(tuner.updates())
    tuner.generator.save_adapter(tmp_path / "lora")
    return tuner.generator, tmp_path / "lora"


def test_the_adapter_loads_into_a_stock_pipeline_which_draws_the_same_images(
    saved_adapter: tuple[StableDiffusion, Path], folder: Path
) -> None:
    """The alpha is not the rank here: it must have travelled along for both encoders."""
    ours, lora = saved_adapter
    stock = StableDiffusionXLPipeline.from_pretrained(folder)
    before = stock_images(stock, ours, 3)
    stock.load_lora_weights(lora)
    after = stock_images(stock, ours, 3)
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(ours.sample(PROMPTS, SEEDS, 3), after, **SAME)


def test_the_adapter_loads_into_a_new_generator_and_its_bytes_are_the_same_again(
    saved_adapter: tuple[StableDiffusion, Path], make: Make, tmp_path: Path
) -> None:
    ours, lora = saved_adapter
    loaded = make(guidance_scale=2.0)
    loaded.load_adapter(lora)
    assert torch.equal(loaded.sample(PROMPTS, SEEDS, 3), ours.sample(PROMPTS, SEEDS, 3))
    assert not any(weight.requires_grad for weight in loaded.text_encoders.parameters())
    loaded.save_adapter(tmp_path / "again")
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (lora / WEIGHTS).read_bytes()


def test_an_adapter_of_one_encoder_alone_is_refused(
    saved_adapter: tuple[StableDiffusion, Path], make: Make, tmp_path: Path
) -> None:
    _, lora = saved_adapter
    tensors = load_file(lora / WEIGHTS)
    of_first = {name: tensor for name, tensor in tensors.items() if name.startswith("text_encoder.")}
    assert 0 < len(of_first) < len(tensors)
    save_file(of_first, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match=r"16 are missing \(first \['text_encoder_2\."):
        make().load_adapter(tmp_path)


@pytest.mark.parametrize("part", ["text_encoder", "text_encoder_2"])
def test_missing_weights_of_either_encoder_are_refused(make: Make, copied_folder: Path, part: str) -> None:
    shutil.rmtree(copied_folder / part)
    with pytest.raises(ValueError, match=rf"{part} has no .safetensors.*git checkout"):
        make(model=str(copied_folder))


def test_the_download_counts_the_weights_of_both_encoders() -> None:
    needed = Config(model="some/model", image_px=16).needed_files
    assert all(is_read(f"{part}/model.safetensors", needed) for part in ("text_encoder", "text_encoder_2", "unet"))
    assert not lacking(needed, ["model_index.json", *(f"{p}/m.safetensors" for p in ("text_encoder", "unet", "vae"))])


def test_a_vae_with_a_mean_of_its_latents_is_refused(make: Make, copied_folder: Path) -> None:
    tiny_pipelines.vae(latents_mean=[0.1] * 4, latents_std=[2.0] * 4).save_pretrained(copied_folder / "vae")
    with pytest.raises(ValueError, match=r"latents_mean.*generator\.name: diffusers") as refused:
        make(model=str(copied_folder))
    assert Config(model=str(copied_folder), image_px=16).misfit(copied_folder) == str(refused.value)


def test_a_few_step_lora_is_fused_into_the_unet(make: Make, tmp_path: Path) -> None:
    before = {name: weight.clone() for name, weight in make().unet.state_dict().items()}
    changes = kohya_lora(make().unet, tmp_path / "lora.safetensors")
    few_step = {"model": str(tmp_path), "file": "lora.safetensors"}
    after = make(few_step=few_step, scheduler="ddim_trailing", guidance_scale=0).unet.state_dict()
    for name, weight in after.items():
        torch.testing.assert_close(weight, before[name] + changes.get(name, 0), **SAME)


def test_the_unet_learns_without_a_caption_what_guidance_takes_in_its_place(make: Make) -> None:
    generator = make()
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    generator.add_adapter(rank=2, alpha=2, part="denoisers")
    assert not [name for name, _ in generator.unet.named_parameters() if ".lora_" in name and "attn2" in name]
    of_prompt, of_none = generator.denoising_losses(latents, ["a red cup", ""], [1, 2])
    alone = generator.denoising_losses(latents[1:], [""], [2])
    torch.testing.assert_close(alone[0], of_none, **SAME)
    noise = generator._noise([2])
    noisy, timesteps, target = training_pair(generator._training_scheduler, latents[1:], noise, [2])
    negative = generator._frozen_negative
    assert negative is not None
    prediction = generator._call_unet(noisy, timesteps, *negative).sample
    torch.testing.assert_close((prediction - target).square().mean(), of_none, atol=1e-4, rtol=0)
    weights = [weight for weight in generator.denoisers.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(of_prompt + of_none, weights)
    assert any(gradient.abs().sum() > 0 for gradient in gradients)
