"""Tuning the text encoder: what changes, what must not, and what survives an interruption."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import nn

from tailorset.clip.losses import asymmetric_loss
from tailorset.clip.model import load_clip
from tailorset.clip.scorer import LabelScorer
from tailorset.generators.parts.lora import WEIGHTS
from tailorset.generators.stable_diffusion import Config, StableDiffusion, build
from tailorset.records import Label, LabelSpace
from tailorset.storage.checkpoint import load_checkpoint, save_checkpoint
from tailorset.tuning.settings import TuneTextEncoder
from tailorset.tuning.tuner import Tuner, Update
from tailorset.tuning.tuner import new_tuner as tuner_of_params
from tests.tuning_prompts import PROMPTS, UNSEEN

ROOT = Path(__file__).resolve().parents[2]

PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())["tune_text_encoder"]
SETTINGS = {
    "num_updates": 4,
    "batch_size": 3,
    "learning_rate": 1e-2,
    "weight_decay": 1e-3,
    "max_grad_norm": 1.0,
    "num_inference_steps": 3,
    "backprop_steps": 1,
    "stop_after": None,
    "gamma_neg": 4.0,
    "gamma_pos": 0.0,
    "clip": 0.05,
}
NewTuner = Callable[..., Tuner]


def new_generator(folder: Path, adapter: bool = True) -> StableDiffusion:
    generator = build(Config(model=str(folder), image_px=8, guidance_scale=2.0), "cpu")
    if adapter:
        generator.add_adapter(rank=2, alpha=4)
    return generator


def tuning_config(**settings: Any) -> TuneTextEncoder:
    return TuneTextEncoder.model_validate(PARAMS | SETTINGS | settings)


@pytest.fixture
def scorer(tiny_clip_folder: Path) -> LabelScorer:
    return LabelScorer(load_clip(f"local-dir:{tiny_clip_folder}", "cpu"), UNSEEN, "a photo of a {}")


@pytest.fixture
def new_tuner(tiny_diffusion_folder: Path, scorer: LabelScorer) -> NewTuner:
    def make(**settings: Any) -> Tuner:
        return Tuner(new_generator(tiny_diffusion_folder), scorer, PROMPTS, tuning_config(**settings), seed=0)

    return make


def adapter_of(tuner: Tuner) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in tuner.adapter]


def digest(module: nn.Module) -> str:
    tensors = [(key, value) for key, value in sorted(module.state_dict().items()) if ".lora_" not in key]
    return hashlib.sha256(b"".join(value.numpy().tobytes() for _, value in tensors)).hexdigest()


def assert_same(left: list[torch.Tensor], right: list[torch.Tensor]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_only_the_adapter_changes_everything_else_stays_bit_for_bit(new_tuner: NewTuner) -> None:
    tuner = new_tuner()
    frozen = [tuner.generator.unet, tuner.generator.vae, tuner.generator.text_encoders, tuner.discriminator.clip.model]
    before, adapter = [digest(module) for module in frozen], adapter_of(tuner)
    records = list(tuner.updates())
    assert [digest(module) for module in frozen] == before
    assert all((a - b).abs().max() > 0 for a, b in zip(adapter, adapter_of(tuner), strict=True))
    assert [record.update for record in records] == [0, 1, 2, 3]
    assert all(record.grad_norm > 0 and not record.skipped and 0 <= record.acceptance <= 1 for record in records)


def fixed_loss(tuner: Tuner) -> float:
    """The loss on all prompts with seeds that no update draws."""
    stop_after = tuner.config.stop_after[0] if tuner.config.stop_after else None
    texts, seeds = [prompt.text for prompt in PROMPTS], list(range(len(PROMPTS)))
    with torch.no_grad():
        images = tuner.generator.sample(texts, seeds, 3, stop_after=stop_after)
        probabilities = tuner.discriminator.probabilities(images, PROMPTS)
    return float(asymmetric_loss(probabilities, tuner.discriminator.requested(PROMPTS), 4, 0, 0.05))


@pytest.mark.parametrize(("backprop_steps", "stop_after"), [(1, None), (3, None), (1, (1, 1))])
def test_the_loss_goes_down(new_tuner: NewTuner, backprop_steps: int, stop_after: tuple[int, int] | None) -> None:
    tuner = new_tuner(
        num_updates=15, batch_size=8, learning_rate=0.1, backprop_steps=backprop_steps, stop_after=stop_after
    )
    before = fixed_loss(tuner)
    list(tuner.updates())
    assert fixed_loss(tuner) < before - 0.005


@pytest.mark.parametrize("done", [1, 3])
def test_a_resumed_run_equals_an_uninterrupted_one(new_tuner: NewTuner, tmp_path: Path, done: int) -> None:
    whole = new_tuner()
    expected = list(whole.updates())
    first = new_tuner()
    updates = first.updates()
    history = [next(updates) for _ in range(done)]
    save_checkpoint(tmp_path / "state.safetensors", done, adapter=first.adapter, optimizer=first.optimizer)
    torch.manual_seed(99)  # a new process has another global state
    second = new_tuner()
    assert load_checkpoint(tmp_path / "state.safetensors", adapter=second.adapter, optimizer=second.optimizer) == done
    assert history + list(second.updates(history)) == expected
    assert_same(adapter_of(second), adapter_of(whole))


def test_an_update_stops_where_its_number_says(new_tuner: NewTuner, monkeypatch: pytest.MonkeyPatch) -> None:
    tuner, stops = new_tuner(num_updates=12, backprop_steps=3, stop_after=(1, 3)), []
    sample = tuner.generator.sample

    def recorded(texts: Any, seeds: Any, steps: int, backprop_steps: int, stop_after: int | None) -> torch.Tensor:
        stops.append(stop_after)
        assert backprop_steps == stop_after  # K, but for steps that were not taken
        return sample(texts, seeds, steps, backprop_steps, stop_after)

    monkeypatch.setattr(tuner.generator, "sample", recorded)
    records = list(tuner.updates())
    assert set(stops) == {1, 2, 3}
    whole = list(stops)
    stops.clear()
    list(tuner.updates(records[:7]))
    assert stops == whole[7:]


def test_the_loss_compares_the_labels_it_is_told_to(scorer: LabelScorer, tiny_diffusion_folder: Path) -> None:
    space = LabelSpace(
        name="four", labels=tuple(Label(name=name, seen=name not in UNSEEN) for name in (*UNSEEN, "tree"))
    )
    losses = {}
    for labels in ("unseen", "all"):
        config = TuneTextEncoder.model_validate(
            PARAMS | {"compare_with": labels, "num_inference_steps": 6, "num_updates": 1}
        )
        generator = new_generator(tiny_diffusion_folder, adapter=False)
        tuner = tuner_of_params(generator, scorer, PROMPTS, config, space, seed=0)
        assert tuner.discriminator.labels == (space.names if labels == "all" else space.unseen)
        losses[labels] = next(tuner.updates()).loss
    assert losses["all"] > losses["unseen"]  # one label more to be mistaken for


def poison(tuner: Tuner, updates: set[int]) -> None:
    """Let the gradient be NaN in these updates."""
    sample, count = tuner.generator.sample, iter(range(1000))

    def poisoned(*args: Any) -> torch.Tensor:
        images = sample(*args)
        if next(count) in updates:
            images.register_hook(lambda gradient: gradient * float("nan"))
        return images

    tuner.generator.sample = poisoned


def test_an_update_with_a_nan_gradient_is_skipped_and_counted(new_tuner: NewTuner) -> None:
    tuner = new_tuner()
    poison(tuner, {1})
    states, skipped = [], []
    for record in tuner.updates():
        states.append(adapter_of(tuner))
        skipped.append(record.skipped)
    assert skipped == [False, True, False, False]
    assert_same(states[0], states[1])
    assert all(weight.isfinite().all() for weight in states[-1])
    assert (states[1][1] - states[2][1]).abs().max() > 0


def test_nan_gradients_without_end_stop_the_run(new_tuner: NewTuner) -> None:
    tuner = new_tuner(num_updates=20)
    poison(tuner, set(range(3, 20)))
    records: list[Update] = []
    with pytest.raises(ValueError, match="last 10 updates had a gradient that is not finite"):
        records.extend(tuner.updates())  # keeps what came before the error
    assert [record.skipped for record in records] == [False] * 3 + [True] * 10
    resumed = new_tuner(num_updates=20)
    poison(resumed, {0})
    with pytest.raises(ValueError, match="last 10 updates"):
        list(resumed.updates(records[:12]))  # the count goes on across a restart


def test_gradients_of_zero_without_end_stop_the_run(new_tuner: NewTuner) -> None:
    tuner = new_tuner(num_updates=30, batch_size=1)
    scale_gradients(tuner, 0.0)
    records: list[Update] = []
    with pytest.raises(ValueError, match="last 20 updates had a gradient of zero"):
        records.extend(tuner.updates())
    assert len(records) == 20
    resumed = new_tuner(num_updates=30, batch_size=1)
    scale_gradients(resumed, 0.0)
    with pytest.raises(ValueError, match="last 20 updates"):
        list(resumed.updates(records[:19]))


def test_smaller_batches_and_checkpointing_give_the_same_updates(
    new_tuner: NewTuner, failing_twice: Callable[..., list[int]]
) -> None:
    """Memory runs out at the first call and, with one sample left, again: halves, then checkpointing."""
    whole, parted = new_tuner(batch_size=2, backprop_steps=2), new_tuner(batch_size=2, backprop_steps=2)
    expected = list(whole.updates())
    calls = failing_twice(parted.generator, "sample")
    records = list(parted.updates())
    assert calls == [2, 1, 1] + [1] * 7
    assert parted.generator.gradient_checkpointing
    for ours, theirs in zip(records, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    for ours, theirs in zip(adapter_of(parted), adapter_of(whole), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_a_sample_that_never_fits_names_what_to_change(new_tuner: NewTuner) -> None:
    tuner = new_tuner()

    def full(*_: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    tuner.generator.sample = full
    with pytest.raises(MemoryError, match=r"lower generator\.image_px or backprop_steps"):
        next(tuner.updates())


def scale_gradients(tuner: Tuner, factor: float) -> None:
    """Let every gradient be `factor` times as long, as another K would have it."""
    sample = tuner.generator.sample

    def scaled(*args: Any) -> torch.Tensor:
        images = sample(*args)
        images.register_hook(lambda gradient: gradient * factor)
        return images

    tuner.generator.sample = scaled


@pytest.mark.parametrize("factor", [2.0**-10, 2.0**10])
def test_the_length_of_gradients_does_not_matter(new_tuner: NewTuner, factor: float) -> None:
    plain, scaled = new_tuner(), new_tuner()
    scale_gradients(scaled, factor)
    ratios = [b.grad_norm / a.grad_norm for a, b in zip(plain.updates(), scaled.updates(), strict=True)]
    assert ratios == pytest.approx([factor] * len(ratios), rel=1e-3)
    for ours, expected in zip(adapter_of(scaled), adapter_of(plain), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-5)


def test_gradients_are_counted_in_median_norms_and_clipped(new_tuner: NewTuner) -> None:
    tuner = new_tuner(max_grad_norm=2.0)

    def length_after(norm: float, unit: float) -> float:
        for weight in tuner.adapter:
            weight.grad = torch.full_like(weight, norm / sum(w.numel() for w in tuner.adapter) ** 0.5)
        tuner._rescale(norm, unit)
        return float(nn.utils.get_total_norm([weight.grad for weight in tuner.adapter]))

    assert length_after(norm=6.0, unit=4.0) == pytest.approx(1.5)
    assert length_after(norm=60.0, unit=4.0) == pytest.approx(2.0)
    assert length_after(norm=0.0, unit=0.0) == 0


def test_tuning_without_an_adapter_or_prompts_is_refused(tiny_diffusion_folder: Path, scorer: LabelScorer) -> None:
    bare = new_generator(tiny_diffusion_folder, adapter=False)
    with pytest.raises(ValueError, match="0 trainable weights"):
        Tuner(bare, scorer, PROMPTS, tuning_config(), seed=0)


@pytest.fixture
def saved_adapter(new_tuner: NewTuner, tmp_path: Path) -> tuple[Tuner, Path]:
    tuner = new_tuner(learning_rate=0.3)
    list(tuner.updates())
    tuner.generator.save_adapter(tmp_path / "lora")
    return tuner, tmp_path / "lora"


def test_the_adapter_loads_into_a_stock_pipeline_and_changes_its_images(
    saved_adapter: tuple[Tuner, Path], tiny_diffusion_folder: Path
) -> None:
    tuner, folder = saved_adapter
    stock = StableDiffusionPipeline.from_pretrained(tiny_diffusion_folder, safety_checker=None)
    stock.set_progress_bar_config(disable=True)
    prompt, noise = PROMPTS[0].text, torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(3))

    def image() -> torch.Tensor:
        options = {"latents": noise, "height": 8, "width": 8, "num_inference_steps": 3, "guidance_scale": 2.0}
        return stock(prompt, output_type="pt", **options).images

    before = image()
    stock.load_lora_weights(folder)
    assert (image() - before).abs().max() > 1e-3
    tokens = stock.tokenizer(prompt, padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():  # alpha is not the rank here: it must have travelled along
        torch.testing.assert_close(stock.text_encoder(tokens)[0], tuner.generator.prompt_encoder.encode([prompt])[0])


def test_the_adapter_loads_into_a_new_generator_frozen(
    saved_adapter: tuple[Tuner, Path], tiny_diffusion_folder: Path
) -> None:
    tuner, folder = saved_adapter
    generator = new_generator(tiny_diffusion_folder, adapter=False)
    generator.load_adapter(folder)
    texts = [prompt.text for prompt in PROMPTS[:2]]
    assert torch.equal(generator.sample(texts, [1, 2], 3), tuner.generator.sample(texts, [1, 2], 3))
    assert not any(weight.requires_grad for weight in generator.text_encoders.parameters())
    with pytest.raises(ValueError, match="already"):
        generator.load_adapter(folder)


def test_the_same_adapter_gives_the_same_bytes(saved_adapter: tuple[Tuner, Path], tmp_path: Path) -> None:
    tuner, folder = saved_adapter
    for attempt in range(8):  # with several header entries, half of the files would differ
        tuner.generator.save_adapter(tmp_path / str(attempt))
        assert (tmp_path / str(attempt) / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()


def damage(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file(change(tensors), folder / WEIGHTS, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {key.replace("layers.1", "layers.7"): value for key, value in t.items()}, "layers.7"),
        (lambda t: dict(list(t.items())[1:]), "1 are missing"),
        (lambda t: t | {"unet.lora_A.weight": torch.zeros(2, 2)}, "1 matrices have no place"),
        (lambda t: {key: torch.cat([value, value], dim=1) for key, value in t.items()}, "but must be"),
        (lambda t: {}, "are missing"),
    ],
)
def test_an_adapter_of_another_model_is_refused(
    saved_adapter: tuple[Tuner, Path], tiny_diffusion_folder: Path, change: Any, message: str
) -> None:
    _, folder = saved_adapter
    damage(folder, change)
    generator = new_generator(tiny_diffusion_folder, adapter=False)
    with pytest.raises(ValueError, match=message):
        generator.load_adapter(folder)
    assert not any(".lora_" in name for name, _ in generator.text_encoders.named_parameters())


def test_a_truncated_or_missing_adapter_is_refused(
    saved_adapter: tuple[Tuner, Path], tiny_diffusion_folder: Path, tmp_path: Path
) -> None:
    _, folder = saved_adapter
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-50])
    generator = new_generator(tiny_diffusion_folder, adapter=False)
    with pytest.raises(ValueError, match="truncated"):
        generator.load_adapter(folder)
    with pytest.raises(ValueError, match="there is no adapter"):
        generator.load_adapter(tmp_path / "nowhere")
    (tmp_path / "tuning.json").write_text('{"num_updates": 60}')
    with pytest.raises(ValueError, match="there is no adapter"):
        generator.load_adapter(tmp_path)
